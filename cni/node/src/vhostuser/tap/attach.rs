//! ADD: record → veth pair, bridge, tap, OVS alongside → ovn-installed → device information.

use api::Mac;
use fail::fail_point;
use tokio::sync::oneshot;
use tracing::warn;

use super::super::attach::blocking;
use super::super::{device_info, needs};
use super::{Tap, links};
use crate::attach::Attempt;
use crate::attach::installed::installed;
use crate::attachment::Record;
use crate::error::Error;
use crate::plumb::{self, Offload};
use crate::stages::{Stages, timed};

/// Makes the interface of a record. The caller undoes what a failure leaves.
pub(crate) async fn make(
    attempt: &Attempt<'_>,
    record: Record,
    missing: &[needs::Lack],
    stages: &mut Stages,
) -> Result<(), Error> {
    let Some(tap) = record.tap().cloned() else {
        return Ok(());
    };
    let (node, deadline) = (attempt.node, attempt.deadline);
    let why = needs::sentences(missing).join("; ");
    warn!(pod = %record.pod, uid = record.pod.uid, sandbox = record.id.container, ifname = record.id.ifname, tap = tap.name,
        "the machine gets a tap instead of a vhost-user socket: {why}");
    fail_point!("tap::begun");
    let link = record.id.host_link();
    let vacant = node.vswitch.vacate(&link, deadline);
    attempt.going.unless_given_up(vacant).await?;
    // First: nothing in the namespace of a pod is found again without it.
    let kept = node.store.insert(record.clone());
    stages.measure("journal", kept).await?;
    fail_point!("tap::recorded");
    let (ready, host_link) = oneshot::channel();
    // Both are driven to their end, as of any veth pair.
    let ((laid, netns), (plugged, ovs)) = tokio::join!(
        timed(lay(attempt, &tap, ready)),
        timed(attempt.plug(&record, host_link)),
    );
    stages.note("netns", netns);
    stages.note("ovs", ovs);
    laid?;
    let interface = plugged?;
    fail_point!("tap::plugged");
    let installed = installed(node, &record.port.iface_id, interface, deadline);
    let installed = attempt.going.unless_given_up(installed);
    stages.measure("ovn_installed", installed).await?;
    fail_point!("tap::installed");
    if let Some(file) = tap.device_info.clone() {
        blocking(move || device_info::write(&file, &device_info::of_tap())).await?;
    }
    fail_point!("tap::told");
    node.vhost.metrics.fallbacks.inc();
    Ok(())
}

/// The links. The pod's end of the pair has not the machine's MAC address: a bridge keeps what is sent to its own links' addresses.
async fn lay(
    attempt: &Attempt<'_>,
    tap: &Tap,
    host_ready: oneshot::Sender<()>,
) -> Result<(), Error> {
    let (netns, wiring) = (attempt.netns, attempt.wiring);
    let offload = Offload {
        checksum_off: attempt.bridge.userspace,
    };
    let former = tap.clone();
    netns.run(move || links::remove(&former)).await??;
    let end = wiring.id.ifname.clone();
    let silent = move || links::silence(&end, offload);
    plumb::pair(netns, wiring, None, offload, host_ready, silent).await?;
    fail_point!("tap::linked");
    let bridge = tap.clone();
    netns.run(move || links::bridge(&bridge)).await??;
    fail_point!("tap::bridged");
    let (args, made) = (&attempt.node.vhost.args, tap.clone());
    let (uid, gid) = (args.vhost_uid, args.vhost_gid);
    let child = netns.run(move || links::make(&made, uid, gid));
    child.await??;
    fail_point!("tap::made");
    let (joined, ifname, mac): (Tap, String, Mac) =
        (tap.clone(), wiring.id.ifname.clone(), wiring.mac);
    netns
        .run(move || links::join(&joined, &ifname, mac))
        .await??;
    fail_point!("tap::joined");
    Ok(())
}
