//! A host's attachment in Open vSwitch: its representor goes down first and up last.
//!
//! What went down with the former owner's port must not come up under it, and what comes up must lead to the new port alone. Each
//! step holds the representor's lock: an operation on another attachment may want the same link. It is taken inside the
//! attachment's lock, never the other way round.
//!
//! ovs-vswitchd keeps an open link, by name, and writes its flags when it lets go of it: so it is waited for. Nor does it notice
//! that a link went and came back (seen with 3.1's userspace datapath: no error, the same ofport, the new ifindex, no packet):
//! the port says for which index it was plugged, and the reconcile loop compares.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use cni_bin::code;
use daemon::keyed::Held;
use fail::fail_point;
use ovsdb::Uuid;
use tokio::time::Instant;
use tracing::debug;

use super::representor::Plug;
use crate::attach::installed::taken_up;
use crate::attachment::{AttachmentId, Far, Record};
use crate::error::{Error, chain};
use crate::netlink::{Change, Link, Netlink, transmit_checksum_off};
use crate::node::{Node, UNDO};
use crate::reconcile::plan::{ObservedPort, Representor};
use crate::sysctl;
use crate::vswitch::IntegrationBridge;

/// How long the reconcile loop waits for ovs-vswitchd to let go of a link.
const PATIENCE: Duration = Duration::from_secs(1);

/// Plugs the port of a host's attachment; the new Interface. The caller holds the attachment's lock.
pub(crate) async fn plug(
    node: &Node,
    bridge: IntegrationBridge,
    record: &Record,
    far: &Far,
    deadline: Instant,
) -> Result<Uuid, Error> {
    let _alone = alone(node, &far.link).await;
    // One that is plugged goes down first; of any other `prepare` takes care.
    if node.vswitch.port(&far.link).is_some() {
        set_down(node, &far.link).await?;
    }
    node.vswitch.vacate(&far.link, deadline).await?;
    let index = prepare(node, far, bridge.userspace).await?;
    let interface = node.vswitch.plug(bridge, record, index, deadline).await?;
    fail_point!("dpu::plugged");
    // ovs-vswitchd reads a new port's flags, adds "promiscuous" and writes them back: up before that is down again.
    taken_up(node, &record.port.iface_id, interface, deadline).await?;
    set_up(node, &far.link).await?;
    fail_point!("dpu::up");
    Ok(interface)
}

/// A link that an attachment has given up, and its Interface.
pub(crate) type Left = (String, Option<Uuid>);

/// Removes what an attachment has in Open vSwitch, its representor first set down unless another attachment has it by now; what it
/// leaves. The caller holds the attachment's lock. `link` is what its record says.
pub(crate) async fn unplug(
    node: &Node,
    id: &AttachmentId,
    link: Option<String>,
    deadline: Instant,
) -> Result<Vec<Left>, Error> {
    let plugged = node.vswitch.ports_of(id).into_iter();
    let mut left: BTreeMap<String, Option<Uuid>> =
        link.map(|link| (link, None)).into_iter().collect();
    left.extend(plugged.map(|port| (port.name, Some(port.interface))));
    for link in left.keys() {
        let _alone = alone(node, link).await;
        if !has_another(node, id, link) {
            set_down(node, link).await?;
        }
    }
    node.vswitch.unplug(id, deadline).await?;
    Ok(left.into_iter().collect())
}

/// Down for good: ovs-vswitchd writes the flags of a link once more when it lets go of it. Nothing if it is plugged again meanwhile.
pub(crate) async fn let_go(node: Arc<Node>, left: Vec<Left>) {
    let patience = Instant::now() + UNDO;
    for (link, removed) in &left {
        let _alone = alone(&node, link).await;
        let mut changed = node.vswitch.changed();
        // The removal may not have come back to us yet.
        let gone = loop {
            match node.vswitch.port(link) {
                None => break true,
                Some(port) if Some(port.interface) != *removed => break false,
                Some(_) => {}
            }
            if !crate::wait::change(&mut changed, patience).await {
                break false;
            }
        };
        if gone && let Err(error) = let_go_of(&node, link, patience).await {
            debug!(link, "{error}");
        }
    }
}

/// Waits for ovs-vswitchd, and sets a link without a port down. The caller holds its lock.
async fn let_go_of(node: &Node, link: &str, deadline: Instant) -> Result<(), Error> {
    let free = node.vswitch.vacate(link, deadline).await;
    set_down(node, link).await.and(free)
}

/// Removes a port that no attachment owns, if that very row is still there.
pub(crate) async fn remove(
    node: &Node,
    port: &ObservedPort,
    deadline: Instant,
) -> Result<(), Error> {
    let _alone = alone(node, &port.name).await;
    if node.vswitch.row(port.interface).is_none() {
        return Ok(());
    }
    set_down(node, &port.name).await?;
    let removed = std::slice::from_ref(port);
    node.vswitch.remove(removed, deadline).await?;
    // One that is dead does not hold it up: the next plug of the link waits for it.
    let patience = deadline.min(Instant::now() + PATIENCE);
    if let Err(error) = let_go_of(node, &port.name, patience).await {
        debug!(link = port.name, "{error}");
    }
    Ok(())
}

/// The representors among the records' links that are there now.
pub(crate) async fn representors(
    node: &Node,
    records: &[Record],
) -> Result<BTreeMap<String, Representor>, Error> {
    let mut wanted: Vec<String> = records
        .iter()
        .filter_map(|record| Some(record.far()?.link.clone()))
        .collect();
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    wanted.sort();
    let links = kernel(node, "read the node's links", || Netlink::open()?.links()).await?;
    Ok(links
        .into_iter()
        .filter(|link| wanted.binary_search(&link.name).is_ok())
        .map(|link| {
            let Link { index, up, .. } = link;
            (link.name, Representor { index, up })
        })
        .collect())
}

/// The link of a representor.
pub(crate) async fn link(node: &Node, name: &str) -> Result<Option<Link>, Error> {
    let name = name.to_owned();
    kernel(node, "look at a representor", move || {
        Netlink::open()?.link(&name)
    })
    .await
}

/// Sets a representor up; one that DPDK drives has no link.
pub(crate) async fn set_up(node: &Node, name: &str) -> Result<(), Error> {
    change(node, name, |link| {
        (!link.up).then_some(Change::SetUp { link: link.index })
    })
    .await
}

async fn set_down(node: &Node, name: &str) -> Result<(), Error> {
    change(node, name, |link| {
        link.up.then_some(Change::SetDown { link: link.index })
    })
    .await
}

/// Down, and as a port's link is to be; its index.
async fn prepare(node: &Node, far: &Far, checksum_off: bool) -> Result<Option<u32>, Error> {
    let (name, mtu) = (far.link.clone(), far.mtu);
    let prepared = node.host.run(move || {
        let step = |why: io::Error| failed(&format!("set up representor {name}"), &why);
        let mut netlink = Netlink::open().map_err(step)?;
        let Some(link) = netlink.link(&name).map_err(step)? else {
            return Ok(None);
        };
        let index = link.index;
        let down = link.up.then_some(Change::SetDown { link: index });
        let grow = (link.mtu < mtu).then_some(Change::SetMtu { link: index, mtu });
        let changes: Vec<Change> = down.into_iter().chain(grow).collect();
        if !changes.is_empty() {
            netlink.apply(&changes)?;
        }
        sysctl::silence(&name)?;
        if checksum_off {
            transmit_checksum_off(&name).map_err(step)?;
        }
        Ok::<_, Error>(Some(index))
    });
    match (prepared.await??, &far.plug) {
        (None, Plug::System) => Err(Error::new(
            code::TRY_AGAIN_LATER,
            format!("Representor {} is not there.", far.link),
            "See whether the card has lost its functions; the port is plugged when it comes back.",
        )),
        (index, _) => Ok(index),
    }
}

/// Whether another attachment's record or port has the link.
fn has_another(node: &Node, id: &AttachmentId, link: &str) -> bool {
    let port = node.vswitch.port(link);
    let recorded = || {
        let mut others = node.store.all().into_iter();
        others.any(|record| record.id != *id && record.link() == link)
    };
    port.is_some_and(|port| port.id != *id) || recorded()
}

async fn alone(node: &Node, link: &str) -> Held {
    node.locks.lock(&format!("representor {link}")).await
}

async fn change(
    node: &Node,
    name: &str,
    change: impl FnOnce(&Link) -> Option<Change> + Send + 'static,
) -> Result<(), Error> {
    let name = name.to_owned();
    let changed = node.host.run(move || {
        let step = |why: io::Error| failed(&format!("look at representor {name}"), &why);
        let mut netlink = Netlink::open().map_err(step)?;
        let link = netlink.link(&name).map_err(step)?;
        match link.as_ref().and_then(change) {
            None => Ok(()),
            // It may vanish at any moment: then there is nothing to set.
            Some(change) => match netlink.apply(&[change]) {
                Err(error) if error.source.raw_os_error() == Some(nix::libc::ENODEV) => Ok(()),
                applied => Ok::<_, Error>(applied?),
            },
        }
    });
    changed.await?
}

async fn kernel<T: Send + 'static>(
    node: &Node,
    step: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = node.host.run(work).await?;
    done.map_err(|why| failed(step, &why))
}

fn failed(step: &str, why: &io::Error) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!("Cannot {step}: {}", chain(why)),
        "Look at the kernel's log and at the privileges of cni-node's pod.",
    )
}
