//! The other pod of a virtual machine that migrates.
//!
//! Both have one logical port, and it is the first one's as long as that lives: the second has no row to see. So its node asks the southbound
//! database for the machine's port, and the row of the chassis that has it for how it is plugged there (`plugged`). Asked only by an ADD of a
//! machine's interface that has no row yet. The port is found by the machine's name in the pod's, which is KubeVirt's; what is found is
//! believed no further than for the sentence of a refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{PortFacts, plugged_kind_key};
use cni_bin::code;
use ovsdb::{Client, Condition, Datum, Transaction};
use tokio::time::Instant;
use tracing::debug;

use crate::attachment::Pod;
use crate::call::Add;
use crate::error::Error;
use crate::node::Node;
use crate::row::Wanted;

/// What virt-controller calls the pods of a machine: this, its name, and five characters.
const LAUNCHER: &str = "virt-launcher-";
const SUFFIX: usize = 5;
/// A sentence is not worth more time.
const PATIENCE: Duration = Duration::from_secs(2);

/// Another pod that has the machine's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    port: String,
    pod: String,
    chassis: String,
    /// As its node publishes it.
    kind: Option<String>,
}

/// Looks who has the port of an ADD that has no row. `here`: how this node would plug it.
///
/// # Errors
/// Its node plugs it otherwise: a machine cannot go from one to the other while it runs.
pub(crate) async fn holder(
    node: &Node,
    add: &Add,
    wanted: &Wanted<'_>,
    here: &str,
    deadline: Instant,
) -> Result<Option<Holder>, Error> {
    if node.southbound.knows(wanted) {
        return Ok(None);
    }
    let Some(port) = port(add) else {
        return Ok(None);
    };
    let deadline = deadline.min(Instant::now() + PATIENCE);
    let found = look(node.southbound.client(), &port, add, deadline).await;
    match found {
        Some(holder) if holder.kind.as_deref().is_some_and(|kind| kind != here) => {
            Err(holder.other_kind(&add.pod, &add.id.ifname, node.southbound.chassis(), here))
        }
        found => Ok(found),
    }
}

/// The name of the machine's port, where pod and network say enough.
fn port(add: &Add) -> Option<String> {
    let subnet = add.keys.subnet.as_deref()?;
    let machine = machine(&add.pod)?;
    let ifname = Some(add.id.ifname.as_str());
    let port = api::names::pod_port(&add.pod.namespace, machine, subnet, ifname);
    Some(port)
}

/// The name of the machine of a pod.
fn machine(pod: &Pod) -> Option<&str> {
    let (machine, suffix) = pod.name.strip_prefix(LAUNCHER)?.rsplit_once('-')?;
    (suffix.len() == SUFFIX && !machine.is_empty()).then_some(machine)
}

async fn look(client: &Client, port: &str, add: &Add, deadline: Instant) -> Option<Holder> {
    let ids = ids(client, "Port_Binding", ("logical_port", port), deadline).await?;
    let facts = PortFacts::decode(&ids).ok()?;
    let pod = facts.pod()?;
    let chassis = facts.chassis.first()?.clone();
    if pod.uid == add.pod.uid || pod.namespace != add.pod.namespace {
        return None;
    }
    let published = ids_of_chassis(client, &chassis, deadline).await;
    Some(Holder {
        kind: published
            .get(&plugged_kind_key(&pod.uid, &pod.ifname))
            .cloned(),
        pod: format!("{}/{}", pod.namespace, pod.name),
        port: port.to_owned(),
        chassis,
    })
}

async fn ids_of_chassis(
    client: &Client,
    chassis: &str,
    deadline: Instant,
) -> BTreeMap<String, String> {
    let row = ids(client, "Chassis_Private", ("name", chassis), deadline);
    row.await.unwrap_or_default()
}

/// The external_ids of one row.
async fn ids(
    client: &Client,
    table: &str,
    (column, value): (&str, &str),
    deadline: Instant,
) -> Option<BTreeMap<String, String>> {
    let mut transaction = Transaction::new();
    transaction.select(table, [Condition::eq(column, value)], ["external_ids"]);
    let outcome = match client.transact(transaction, deadline).await {
        Ok(outcome) => outcome,
        Err(why) => {
            debug!("the other pod of a machine is not looked for: {why}");
            return None;
        }
    };
    let row = outcome.rows(0).first()?;
    let pairs = row.get("external_ids").map(Datum::pairs)?;
    let text = pairs.filter_map(|(key, value)| Some((key.as_str()?, value.as_str()?)));
    Some(
        text.map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

impl Holder {
    fn other_kind(&self, pod: &Pod, ifname: &str, chassis: &str, here: &str) -> Error {
        let there = self.kind.as_deref().unwrap_or_default();
        Error::new(
            code::TRY_AGAIN_LATER,
            format!(
                "Pod {pod}, interface {ifname}: pod {} of the same machine has it as {there} on node {}, and on this node, {chassis}, it \
                 would be {here}: a running machine cannot go from one to the other.",
                self.pod, self.chassis
            ),
            "Migrate the machine to a node of the same kind (with DPDK: vhost-user, without: tap), or stop and start it; if the other \
             pod is just ending, the runtime tries again by itself.",
        )
    }

    /// Why there is no row.
    pub(crate) fn has_it(&self, pod: &Pod, ifname: &str) -> Error {
        Error::new(
            code::TRY_AGAIN_LATER,
            format!(
                "Pod {pod}, interface {ifname}: port {} is that of pod {} of the same machine, on node {}, as long as that lives.",
                self.port, self.pod, self.chassis
            ),
            "A machine's port does not follow a live migration: stop and start the machine instead; if the other pod is just ending, the \
             runtime tries again by itself.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read_from_its_pods_name() {
        let of = |name: &str| {
            let pod = Pod {
                namespace: "vms".into(),
                name: name.into(),
                uid: "u".into(),
            };
            machine(&pod).map(str::to_owned)
        };
        assert_eq!(of("virt-launcher-db-x7k2p").as_deref(), Some("db"));
        assert_eq!(of("virt-launcher-my-db-x7k2p").as_deref(), Some("my-db"));
        for name in [
            "db",
            "virt-launcher-db",
            "virt-launcher--x7k2p",
            "virt-launcher-db-x7k2pq",
        ] {
            assert_eq!(of(name), None, "{name}");
        }
    }
}
