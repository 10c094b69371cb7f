//! ADD: row → link and namespace, OVS alongside → ovn-installed, journal alongside → result.
//!
//! The next step begins as soon as what it needs is there: OVS is told while the pod's namespace is set up, the record is
//! written while ovn-controller installs flows. No record is needed before: links and ports are known as ours by
//! themselves. What a failure leaves is undone here; what a kill leaves, by the reconcile loop.

pub(crate) mod installed;

use cni_bin::cni::CNIResult;
use cni_bin::code;
use fail::fail_point;
use ovsdb::Uuid;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::installed::installed;
use crate::attachment::{End, PortRecord, Record};
use crate::call::Add;
use crate::detach;
use crate::error::Error;
use crate::netns::Netns;
use crate::node::{Node, UNDO};
use crate::plumb::{self, Offload, plumb};
use crate::row::{Row, Wanted};
use crate::stages::{Stages, timed};
use crate::under_way::Going;
use crate::vhostuser::attach::{self as vhost, Place};
use crate::vhostuser::{Kind, pair, tap, withdraw};
use crate::vswitch::IntegrationBridge;
use crate::wiring::{self, Wiring};

/// Serves an ADD.
pub(crate) async fn add(
    node: &Node,
    add: &Add,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<CNIResult, Error> {
    let going = node.under_way.begin(&add.id);
    let _alone = node.locks.lock(&add.id.host_link()).await;
    going.unless_given_up(node.recovered(deadline)).await?;
    let netns = Netns::of_pod(&add.netns)?;
    free(node, add).await?;
    let place = match &add.keys.kind {
        Kind::Netns => None,
        // Before anything is made or waited for: what is missing does not come by itself.
        Kind::VhostUser(asked) => {
            going.unless_given_up(node.vswitch.bridge(deadline)).await?;
            Some(vhost::place(node, add, asked).await?)
        }
    };
    let wanted = Wanted {
        pod: &add.pod,
        ifname: &add.id.ifname,
        subnet: add.keys.subnet.as_deref(),
        host: None,
    };
    let row = row(node, add, &wanted, place.as_ref(), deadline);
    let row = stages
        .measure("wait_row", going.unless_given_up(row))
        .await?;
    let bridge = going.unless_given_up(node.vswitch.bridge(deadline)).await?;
    let mtu = going.unless_given_up(node.mtu(deadline)).await?;
    let wiring = wiring::wiring(add, &row, mtu)?;
    let record = Record {
        id: add.id.clone(),
        network: add.network.clone(),
        pod: add.pod.clone(),
        netns: add.netns.clone(),
        port: PortRecord::new(&wiring.iface_id, wiring.mac, &wiring.ips),
        ordinal: node.store.ordinal(),
        end: place
            .as_ref()
            .map_or(End::Veth, |place| place.end(wiring.mtu)),
    };
    let socket = record.socket().cloned();
    let attempt = Attempt {
        node,
        netns: &netns,
        bridge,
        wiring: &wiring,
        going: &going,
        deadline,
    };
    let made = match place {
        None => attempt.run(record, stages).await,
        Some(Place::Socket(_, volume)) => {
            vhost::make(node, bridge, record, volume, &going, stages, deadline).await
        }
        Some(Place::Tap(_, missing)) => tap::attach::make(&attempt, record, &missing, stages).await,
    };
    if let Err(error) = made {
        detach::undo(node, &add.id).await;
        if let Some(socket) = socket {
            withdraw::undo(node, &socket).await;
        }
        return Err(error);
    }
    Ok(match socket {
        None => wiring::result(&wiring, add),
        Some(socket) => vhost::result(&wiring, add, &socket),
    })
}

/// The row of an ADD; of a machine's, with a word about its other pod.
async fn row(
    node: &Node,
    add: &Add,
    wanted: &Wanted<'_>,
    place: Option<&Place>,
    deadline: Instant,
) -> Result<Row, Error> {
    let row = node.southbound.row(wanted, deadline);
    let Some(here) = place.and_then(|place| place.end(0).machine_kind()) else {
        return Ok(row.await?);
    };
    let holder = pair::holder(node, add, wanted, here, deadline).await?;
    let row = row.await.map_err(|unfound| match holder {
        Some(holder) if !unfound.away => holder.has_it(&add.pod, &add.id.ifname),
        _ => unfound.into(),
    })?;
    pair::agree(node, add, &row, here, deadline).await?;
    Ok(row)
}

/// An attachment is added once. One whose link died with its namespace is no longer one; a socket has no link, and is one until its DEL.
async fn free(node: &Node, add: &Add) -> Result<(), Error> {
    let Some(old) = node.store.get(&add.id) else {
        return Ok(());
    };
    let link = add.id.host_link();
    if old.socket().is_some() || plumb::host_links(&node.host).await?.contains(&link) {
        return Err(Error::new(
            code::REFUSED,
            format!(
                "Interface {} of pod {} is attached already.",
                add.id, old.pod
            ),
            "An attachment is added once (CNI specification, section \"ADD\"): DEL it first.",
        ));
    }
    detach::remove(node, &add.id, &mut Stages::default(), Instant::now() + UNDO).await
}

/// The part of an ADD that has side effects.
pub(crate) struct Attempt<'a> {
    pub(crate) node: &'a Node,
    pub(crate) netns: &'a Netns,
    pub(crate) bridge: IntegrationBridge,
    pub(crate) wiring: &'a Wiring,
    pub(crate) going: &'a Going<'a>,
    pub(crate) deadline: Instant,
}

impl Attempt<'_> {
    async fn run(&self, record: Record, stages: &mut Stages) -> Result<(), Error> {
        fail_point!("add::begun");
        let offload = Offload {
            checksum_off: self.bridge.userspace,
        };
        let name = record.id.host_link();
        let vacant = self.node.vswitch.vacate(&name, self.deadline);
        self.going.unless_given_up(vacant).await?;
        let (ready, host_link) = oneshot::channel();
        // Both are driven to their end: a namespace thread that is left alone could make a link after the undo.
        let ((wired, netns), (plugged, ovs)) = tokio::join!(
            timed(plumb(self.netns, self.wiring, offload, ready)),
            timed(self.plug(&record, host_link)),
        );
        stages.note("netns", netns);
        stages.note("ovs", ovs);
        wired?;
        let interface = plugged?;
        fail_point!("add::plugged");
        let installed = installed(self.node, &self.wiring.iface_id, interface, self.deadline);
        let ((installed, flows), (kept, journal)) = tokio::join!(
            timed(self.going.unless_given_up(installed)),
            timed(self.node.store.insert(record)),
        );
        stages.note("ovn_installed", flows);
        stages.note("journal", journal);
        installed?;
        kept?;
        fail_point!("add::installed");
        Ok(())
    }

    /// Tells OVS as soon as the host's end of the link exists; an error when it never does. The link is up by then:
    /// ovs-vswitchd reads a new port's flags, adds "promiscuous" and writes them back, and so would take down again
    /// what went up in between.
    pub(crate) async fn plug(
        &self,
        record: &Record,
        host_link: oneshot::Receiver<()>,
    ) -> Result<Uuid, Error> {
        if host_link.await.is_err() {
            return Err(Error::new(
                code::IO_FAILURE,
                "The new link was never ready.",
                "Report this.",
            ));
        }
        fail_point!("add::linked");
        let plugged = self
            .node
            .vswitch
            .plug(self.bridge, record, None, self.deadline);
        plugged.await
    }
}
