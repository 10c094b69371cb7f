//! The host's own interface `ob0` on the join subnet: a function of the card that stays at home.
//!
//! Its addresses and the cluster's CIDRs are the DPU's to say; they are asked for again whenever the channel comes up, and every half
//! minute. While the DPU does not answer everything stays as it is. Addresses, routes and forwarding are kept as on a plain node.

use std::path::Path;
use std::sync::Arc;

use api::NodeFacts;
use api::names::GATEWAY_IFNAME;
use channel::LinkState;
use channel::proto::Reason;
use cni_bin::code;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::detach;
use super::function::Function;
use super::node::{HOST, HostNode, PATIENCE};
use super::record::{Record, Subject};
use super::told::Told;
use crate::attachment::AttachmentId;
use crate::error::Error;
use crate::gateway::concern::Concern;
use crate::gateway::kernel;
use crate::gateway::node_port::NodePort;
use crate::netlink::{Change, Events, Netlink};
use crate::plumb::no_socket;
use crate::rounds::Pace;
use crate::stages::Stages;

/// Keeps the interface until the pace says stop.
pub(crate) async fn run(node: Arc<HostNode>, mut pace: Pace) {
    let (port, known) = watch::channel(None);
    pace.wake_on(node.link.state());
    pace.wake_on(node.recovered.clone());
    // Subscribed before the first look: nothing is missed in between.
    let events = Events::routing();
    let mut concern = Concern::new(known);
    pace.wake_on_kernel(events, move |event| concern.of(event));
    loop {
        let started = Instant::now();
        let problem = round(&node, &port).await.err();
        let problems: Vec<_> = problem.iter().map(ToString::to_string).collect();
        pace.finish(started, &problems);
        if pace.next().await.is_none() {
            return;
        }
    }
}

async fn round(node: &HostNode, port: &watch::Sender<Option<NodePort>>) -> Result<(), Error> {
    node.recovered(Instant::now()).await?;
    let id = AttachmentId {
        container: HOST.to_owned(),
        ifname: GATEWAY_IFNAME.to_owned(),
    };
    let _alone = node.locks.lock(&id.host_link()).await;
    let up = matches!(*node.link.state().borrow(), LinkState::Up { .. });
    let held = node.store.get(&id);
    let (function, told, problem) = match held.map(|record| (record.told.clone(), record)) {
        Some((Some(told), record)) if up => match renew(node, &record, told).await? {
            Renewed::As(told, problem) => (record.function, *told, problem),
            Renewed::Lost => {
                let deadline = Instant::now() + PATIENCE;
                detach::remove(node, &record, &mut Stages::default(), deadline).await?;
                attach(node, id).await?
            }
        },
        Some((Some(told), record)) => (record.function, told, None),
        _ if up => attach(node, id).await?,
        _ => return Err(silent()),
    };
    let facts = facts(&told);
    let known = facts.clone();
    port.send_if_modified(|held| {
        let changed = held.as_ref() != Some(&known);
        *held = Some(known);
        changed
    });
    let Some(function) = at_home(node, function).await? else {
        return Err(Error::new(
            code::TRY_AGAIN_LATER,
            format!("Function {function} of the card, which is {GATEWAY_IFNAME}, is not there."),
            "Look at the card; it is set up again when the function comes back.",
        ));
    };
    wire(node, function, &told, facts).await?;
    problem.map_or(Ok(()), Err)
}

fn silent() -> Error {
    Error::new(
        code::TRY_AGAIN_LATER,
        format!("The DPU has not said yet what {GATEWAY_IFNAME} is to look like."),
        "See check \"cni\" of /readyz.",
    )
}

enum Renewed {
    /// What it is to look like, and what is wrong all the same.
    As(Box<Told>, Option<Error>),
    /// The DPU holds it for lost.
    Lost,
}

/// Asks what it is to look like now.
async fn renew(node: &HostNode, record: &Record, told: Told) -> Result<Renewed, Error> {
    let deadline = Instant::now() + PATIENCE;
    let asked = node
        .link
        .check(record.key(), record.ordinal, deadline)
        .await;
    let now = match asked {
        Ok(wiring) => Told::read(&wiring, None)?,
        Err(failure) => {
            let lost = matches!(failure.reason, Reason::OldAttempt | Reason::NoFunction);
            return Ok(if lost {
                Renewed::Lost
            } else {
                Renewed::As(Box::new(told), Some(failure.into()))
            });
        }
    };
    if now != told {
        let record = Record {
            told: Some(now.clone()),
            ..record.clone()
        };
        node.store.replace(record).await?;
    }
    Ok(Renewed::As(Box::new(now), None))
}

/// Attaches it: a function of the card, and what the DPU says.
async fn attach(
    node: &HostNode,
    id: AttachmentId,
) -> Result<(super::function::FunctionId, Told, Option<Error>), Error> {
    let function = match node.card.claim(&id) {
        Some(function) => function,
        None => {
            node.card.look().await?;
            node.card.claim(&id).ok_or_else(|| {
                Error::new(
                    code::TRY_AGAIN_LATER,
                    format!("No function of the card is free for {GATEWAY_IFNAME}."),
                    "Give the card more functions.",
                )
            })?
        }
    };
    let record = Record {
        id,
        subject: Subject::Host,
        function: function.id,
        told: None,
        ordinal: node.store.ordinal(),
    };
    match plug(node, record.clone()).await {
        Ok(told) => Ok((function.id, told, None)),
        Err(error) => {
            detach::undo(node, &record).await;
            Err(error)
        }
    }
}

async fn plug(node: &HostNode, mut record: Record) -> Result<Told, Error> {
    let deadline = Instant::now() + PATIENCE;
    node.attached.enter(&record);
    node.store.insert(record.clone()).await?;
    let asked = node.link.attach(record.attachment(), deadline);
    let mut attaching = Box::pin(asked).await?;
    let told = Told::read(&Box::pin(attaching.wiring()).await?, None)?;
    Box::pin(attaching.installed()).await?;
    record.told = Some(told.clone());
    node.store.replace(record).await?;
    Ok(told)
}

fn facts(told: &Told) -> NodePort {
    let (pods, services, join) = told
        .cluster
        .clone()
        .map_or_else(Default::default, |cluster| {
            (cluster.pods, cluster.services, cluster.join)
        });
    NodePort {
        name: told.logical_port.clone(),
        datapath: None,
        mac: told.mac,
        addresses: told.ips.clone(),
        gateways: told.gateways.clone(),
        mtu: Some(told.mtu),
        facts: NodeFacts {
            pod_cidrs: pods,
            service_cidrs: services,
            join_cidrs: join,
            // The DPU's gateway masquerades.
            nat_cidrs: Vec::new(),
        },
    }
}

/// The function, if it is at home; one that the card has lost is looked for.
async fn at_home(
    node: &HostNode,
    id: super::function::FunctionId,
) -> Result<Option<Function>, Error> {
    let cached = node.card.function(id);
    let provider = node.card.provider();
    let look = move || {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        Ok::<_, Error>(provider.find(id, &mut netlink)?.is_some())
    };
    match cached {
        Some(function) if node.host.run(look).await?? => Ok(Some(function)),
        _ => {
            let mut functions = node.card.look().await?;
            Ok(functions.remove(&id).filter(|one| one.here.is_some()))
        }
    }
}

/// The kernel's side.
async fn wire(
    node: &HostNode,
    function: Function,
    told: &Told,
    port: NodePort,
) -> Result<(), Error> {
    let (provider, id) = (node.card.provider(), function.id);
    let (mac, mtu) = (told.mac, told.mtu);
    let work = move || -> Result<usize, Error> {
        let mut netlink = Netlink::open().map_err(|why| no_socket(&why))?;
        let Some(link) = provider.find(id, &mut netlink)? else {
            return Err(refused(format!(
                "function {id} of the card went away meanwhile"
            )));
        };
        let mut changes = Vec::new();
        let index = link.index;
        let (named, addressed) = (link.name == GATEWAY_IFNAME, link.mac == Some(mac));
        if !named || !addressed {
            provider.prepare(&function, mac)?;
            changes.push(Change::SetDown { link: index });
        }
        if !named {
            changes.push(Change::Rename {
                link: index,
                name: GATEWAY_IFNAME.to_owned(),
            });
        }
        if !addressed {
            changes.push(Change::SetMac { link: index, mac });
        }
        if link.mtu != mtu {
            changes.push(Change::SetMtu { link: index, mtu });
        }
        netlink.apply(&changes)?;
        let desired = kernel::desired(&port);
        let observed = kernel::observe(&mut netlink, &desired, Path::new("/proc/sys"))
            .map_err(refused)?
            .ok_or_else(|| refused(format!("link {GATEWAY_IFNAME} went away meanwhile")))?;
        let plan = kernel::plan(&desired, &observed);
        kernel::apply(&mut netlink, &plan).map_err(refused)?;
        Ok(changes.len() + plan.changes.len() + plan.settings.len())
    };
    let done = node.host.run(work).await??;
    node.card.moved(id, Some(GATEWAY_IFNAME.to_owned()));
    if done > 0 {
        info!(function = %id, changes = done, "{GATEWAY_IFNAME} set up");
    }
    Ok(())
}

fn refused(cause: impl std::fmt::Display) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!("{GATEWAY_IFNAME} cannot be set up: {cause}."),
        "cni-node tries again by itself; see its log.",
    )
}
