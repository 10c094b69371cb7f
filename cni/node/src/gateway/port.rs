//! ob0 in the local Open vSwitch database: an internal port of the integration bridge. `plan` is pure.

use std::collections::BTreeMap;

use api::names::GATEWAY_IFNAME;
use ovsdb::{Condition, Mutation, Transaction, Uuid, Values};

use super::node_port::NodePort;

/// The integration bridge; ovn-controller makes it.
pub(crate) const BRIDGE: &str = "br-int";

/// Marks rows of the gateway; those of pods say `pod`.
const OWNER: (&str, &str) = ("outboard", "gateway");

ovsdb::table! {
    /// An OVS bridge. Its ports are left out: they change with every pod.
    pub(crate) struct Bridge in "Bridge" {
        name: String,
    }
}

ovsdb::table! {
    /// An OVS port.
    pub(crate) struct Port in "Port" {
        name: String,
    }
}

ovsdb::table! {
    /// An OVS interface.
    pub(crate) struct Interface in "Interface" {
        name: String,
        r#type: String,
        mac: Option<String>,
        mtu_request: Option<i64>,
        ofport: Option<i64>,
        error: Option<String>,
        external_ids: BTreeMap<String, String>,
    }
}

/// What the database holds about ob0.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) bridge: Option<Bridge>,
    pub(crate) port: Option<Port>,
    pub(crate) interface: Option<Interface>,
}

/// What the Interface row is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    mac: String,
    mtu: i64,
    external_ids: BTreeMap<String, String>,
}

/// One transaction, or nothing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Keep,
    /// Insert Port and Interface into this bridge.
    Create {
        bridge: Uuid,
    },
    /// Correct the Interface.
    Correct {
        interface: Uuid,
    },
}

/// The Interface of the node's port with an MTU of `mtu` bytes.
pub(crate) fn desired(port: &NodePort, mtu: u32) -> Desired {
    let external_ids = [
        ("iface-id", port.name.clone()),
        ("attached-mac", port.mac.to_string()),
        (OWNER.0, OWNER.1.to_owned()),
    ];
    Desired {
        mac: port.mac.to_string(),
        mtu: i64::from(mtu),
        external_ids: external_ids
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    }
}

/// What is missing.
///
/// # Errors
/// A sentence when the bridge is not there yet, or when a port of that name is not ours.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Result<Step, String> {
    let Some(bridge) = &observed.bridge else {
        return Err(format!(
            "bridge {BRIDGE} does not exist: ovn-controller makes it when it runs on this node and Open_vSwitch external_ids are set"
        ));
    };
    let (Some(_), Some(interface)) = (&observed.port, &observed.interface) else {
        return Ok(Step::Create {
            bridge: bridge.uuid,
        });
    };
    if interface.external_ids.get(OWNER.0).map(String::as_str) != Some(OWNER.1) {
        return Err(format!(
            "Open vSwitch has a port {GATEWAY_IFNAME} that is not Outboard's: remove it (ovs-vsctl del-port {GATEWAY_IFNAME})"
        ));
    }
    let same = interface.r#type == "internal"
        && interface.mac.as_deref() == Some(&desired.mac)
        && interface.mtu_request == Some(desired.mtu)
        && desired
            .external_ids
            .iter()
            .all(|(key, value)| interface.external_ids.get(key) == Some(value));
    Ok(if same {
        Step::Keep
    } else {
        Step::Correct {
            interface: interface.uuid,
        }
    })
}

/// The transaction of a step; `None` for [`Step::Keep`].
pub(crate) fn transaction(desired: &Desired, step: &Step) -> Option<Transaction> {
    let mut transaction = Transaction::new();
    match step {
        Step::Keep => return None,
        Step::Create { bridge } => {
            let columns = interface_columns(desired)
                .set("name", GATEWAY_IFNAME)
                .set("external_ids", &desired.external_ids);
            let interface = transaction.insert("Interface", columns);
            let port = transaction.insert(
                "Port",
                Values::new()
                    .set("name", GATEWAY_IFNAME)
                    .set("interfaces", &interface),
            );
            transaction.mutate(
                "Bridge",
                [Condition::uuid(*bridge)],
                [Mutation::insert("ports", &port)],
            );
        }
        Step::Correct { interface } => {
            let this = || [Condition::uuid(*interface)];
            transaction.update("Interface", this(), interface_columns(desired));
            // A map insert keeps an old value silently, so the keys go first.
            let keys: Vec<String> = desired.external_ids.keys().cloned().collect();
            transaction.mutate(
                "Interface",
                this(),
                [
                    Mutation::delete("external_ids", keys),
                    Mutation::insert("external_ids", &desired.external_ids),
                ],
            );
        }
    }
    transaction.comment("outboard cni-node: gateway port");
    Some(transaction)
}

fn interface_columns(desired: &Desired) -> Values {
    Values::new()
        .set("type", "internal")
        .set("mac", desired.mac.as_str())
        .set("mtu_request", desired.mtu)
}
