//! This node as an OVN chassis: what ovn-controller is told, and whether it took it up.
//!
//! The loop keeps `Open_vSwitch.external_ids`, the SSL row and system-id.conf as [`settings`] wants them, puts back what anybody
//! changes, and says in sentences ([`readiness`]) what keeps pods from being plugged. br-int itself is ovn-controller's to make
//! (OVN, ovn-controller(8), "ovn-bridge"). Knows nothing of pods.

mod databases;
mod readiness;
mod settings;

#[cfg(test)]
mod tests;

pub(crate) use databases::{Databases, deadline, rows, trouble};
pub(crate) use settings::{Args, Place};

use std::net::IpAddr;

use ovsdb::{Client, Condition, MonitorSpec, Replica};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use self::readiness::{Expected, Seen};
use self::settings::{Observed, OpenVSwitch, Ssl, TlsFiles};
use crate::netlink::Netlink;
use crate::rounds::Pace;

ovsdb::table! {
    /// The integration bridge, as far as readiness needs it.
    struct Bridge in "Bridge" {
        datapath_type: String,
    }
}

ovsdb::table! {
    /// A chassis in the southbound database.
    struct ChassisRow in "Chassis" {
        name: String,
    }
}

ovsdb::table! {
    /// A tunnel end in the southbound database.
    struct Encap in "Encap" {
        ip: String,
        chassis_name: String,
    }
}

/// Keeps the chassis until the pace says stop. `mtu` gets the largest MTU a pod may have over this node's underlay (`None` while
/// no link has the encapsulation address).
pub(crate) async fn run(
    place: Place,
    args: Args,
    databases: Databases,
    mtu: watch::Sender<Option<u32>>,
    mut pace: Pace,
) {
    let Databases {
        vswitch,
        southbound,
    } = databases;
    let local = vswitch.monitor(
        MonitorSpec::new()
            .table::<OpenVSwitch>()
            .table::<Ssl>()
            .table::<Bridge>()
            .where_([Condition::eq("name", "br-int")]),
    );
    let chassis = place.chassis.as_str();
    let encap_ip = args.encap_ip.to_string();
    let remote = southbound.monitor(
        MonitorSpec::new()
            .table::<ChassisRow>()
            .where_([Condition::eq("name", chassis)])
            .table::<Encap>()
            // A monitor's conditions are alternatives (ovsdb-server(7), 4.1.12 Monitor_cond).
            .where_([
                Condition::eq("ip", encap_ip.as_str()),
                Condition::eq("chassis_name", chassis),
            ]),
    );
    pace.wake_on(local.changed());
    pace.wake_on(remote.changed());
    pace.wake_on(vswitch.status());
    pace.wake_on(southbound.status());
    loop {
        let started = Instant::now();
        let mut problems = converge(&place, &args, &vswitch, &local).await;
        let underlay = underlay_mtu(args.encap_ip);
        mtu.send_if_modified(|held| {
            let bound = underlay.map(|underlay| readiness::pod_mtu(underlay, args.encap_ip));
            std::mem::replace(held, bound) != bound
        });
        let expected = Expected {
            chassis,
            encap_ip: args.encap_ip,
            datapath_type: &args.datapath_type,
            southbound: &place.southbound,
        };
        match see(&expected, &local, &remote) {
            Ok(seen) => {
                let seen = Seen {
                    vswitch_trouble: trouble(&vswitch, &local),
                    southbound_trouble: trouble(&southbound, &remote),
                    underlay_mtu: underlay,
                    ..seen
                };
                problems.extend(readiness::problems(&expected, &seen));
            }
            Err(sentence) => problems.push(sentence),
        }
        pace.finish(started, &problems);
        if pace.next().await.is_none() {
            return;
        }
    }
}

/// Makes the rows and the file right; returns what failed.
async fn converge(place: &Place, args: &Args, vswitch: &Client, local: &Replica) -> Vec<String> {
    let mut problems = Vec::new();
    match settings::keep_system_id(&args.system_id_conf, &place.chassis) {
        Ok(false) => {}
        Ok(true) => info!(path = %args.system_id_conf.display(), "system-id written"),
        Err(error) => problems.push(format!(
            "cannot write {} ({error}): after a restart of Open vSwitch this chassis would have another name; mount the directory writable, or point --system-id-conf at a directory that does not exist",
            args.system_id_conf.display()
        )),
    }
    let observed = match observe(local) {
        Ok(Some(observed)) => observed,
        Ok(None) => return problems,
        Err(sentence) => {
            problems.push(sentence);
            return problems;
        }
    };
    let plan = settings::plan(&settings::desired(place, args), &observed);
    if plan.is_empty() {
        return problems;
    }
    if let settings::SslPlan::Update(..) = plan.ssl {
        warn!("the SSL row of Open vSwitch named other files: it is changed");
    }
    match vswitch.transact(plan.transaction(observed.root), deadline()).await {
        Ok(_) => {
            info!(keys = ?plan.set, config = ?plan.config, "chassis settings written to Open vSwitch");
            if plan.config.contains_key("hw-offload") {
                warn!("Open vSwitch's hw-offload was changed: ovs-vswitchd takes it up for all ports when it is restarted");
            }
        }
        Err(error) => problems.push(format!(
            "cannot write the chassis settings to the local Open vSwitch database: {error}; see ovsdb-server's log"
        )),
    }
    problems
}

/// `None` until the database has been read.
fn observe(local: &Replica) -> Result<Option<Observed>, String> {
    if !local.synced() {
        return Ok(None);
    }
    let Some(root) = rows::<OpenVSwitch>(local)?.pop() else {
        return Ok(None);
    };
    let ssl = rows::<Ssl>(local)?
        .into_iter()
        .find(|row| root.ssl == Some(row.uuid))
        .map(|row| {
            let Ssl {
                uuid,
                private_key,
                certificate,
                ca_cert,
            } = row;
            (
                uuid,
                TlsFiles {
                    private_key,
                    certificate,
                    ca_cert,
                },
            )
        });
    Ok(Some(Observed {
        root: root.uuid,
        external_ids: root.external_ids,
        other_config: root.other_config,
        ssl,
    }))
}

fn see(expected: &Expected<'_>, local: &Replica, remote: &Replica) -> Result<Seen, String> {
    let bridge = rows::<Bridge>(local)?.pop();
    let known = rows::<ChassisRow>(remote)?
        .iter()
        .any(|row| row.name == expected.chassis);
    let (ours, others): (Vec<Encap>, Vec<Encap>) = rows::<Encap>(remote)?
        .into_iter()
        .partition(|encap| encap.chassis_name == expected.chassis);
    Ok(Seen {
        registered: known.then(|| {
            ours.iter()
                .filter_map(|encap| encap.ip.parse().ok())
                .collect()
        }),
        address_taken_by: others
            .into_iter()
            .find(|encap| encap.ip.parse() == Ok(expected.encap_ip))
            .map(|encap| encap.chassis_name),
        datapath_type: bridge.map(|bridge| bridge.datapath_type),
        ..Seen::default()
    })
}

/// MTU of the link that has `address`.
fn underlay_mtu(address: IpAddr) -> Option<u32> {
    let read = || -> std::io::Result<Option<u32>> {
        let mut netlink = Netlink::open()?;
        for link in netlink.links()? {
            if netlink
                .addresses(link.index)?
                .iter()
                .any(|net| net.addr() == address)
            {
                return Ok(Some(link.mtu));
            }
        }
        Ok(None)
    };
    read().unwrap_or_else(|error| {
        warn!("cannot read this node's links and addresses: {error}");
        None
    })
}
