//! The other pod of a virtual machine: it migrates, or its next pod came before the last one had gone.
//!
//! Both have one logical port. While a migration is under way its row names both; before and after, and without one, it is one pod's alone,
//! and the other one's node has no row to see. So a node asks the southbound database for the machine's port, and the row of the chassis that
//! has it for how it is plugged there (`plugged`): a machine cannot go from one kind to the other while it runs. Asked only by an ADD of a
//! machine's interface that is not its pod's alone, and by a CHECK of one that OVN has no flows for. The port is found by the machine's name
//! in the pod's, which is KubeVirt's; what is found is believed no further than for the sentence of a refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use api::names::owner_of_port;
use api::{PodPort, PortFacts, plugged_kind_key};
use cni_bin::code;
use ovsdb::{Client, Condition, Datum, Transaction};
use tokio::time::Instant;
use tracing::debug;

use crate::attachment::Pod;
use crate::call::Add;
use crate::error::Error;
use crate::node::Node;
use crate::row::{Row, Wanted};

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
    found
        .map(|holder| holder.of_kind(here, add, node.southbound.chassis()))
        .transpose()
}

/// Looks whether the machine can come here, when the row of an ADD is one that it is migrating with.
///
/// # Errors
/// As of [`holder`].
pub(crate) async fn agree(
    node: &Node,
    add: &Add,
    row: &Row,
    here: &str,
    deadline: Instant,
) -> Result<(), Error> {
    let ours = node.southbound.chassis();
    let source = row.facts.pod().filter(|pod| pod.is_coming_to(&add.pod.uid));
    let chassis = row.facts.chassis.iter().find(|chassis| *chassis != ours);
    let (Some(source), Some(chassis)) = (source, chassis) else {
        return Ok(());
    };
    let deadline = deadline.min(Instant::now() + PATIENCE);
    let client = node.southbound.client();
    let holder = Holder::at(client, &row.logical_port, source, chassis, deadline).await;
    holder.of_kind(here, add, ours).map(drop)
}

/// Whether the port of an Interface with these external_ids is that of another pod of its machine: of one that has migrated away, or did
/// not come. ovn-controller has no flows for it here, and it stays until its DEL.
pub(crate) async fn has_left(node: &Node, ids: &BTreeMap<String, String>) -> bool {
    let id = |key: &str| ids.get(key).map(String::as_str).unwrap_or_default();
    let (port, uid) = (id("iface-id"), id("uid"));
    let of_machine = |(namespace, owner): (&str, &str)| id("pod") != format!("{namespace}/{owner}");
    if !owner_of_port(port).is_some_and(of_machine) {
        return false;
    }
    let deadline = Instant::now() + PATIENCE;
    let facts = facts(node.southbound.client(), port, deadline).await;
    let pod = facts.as_ref().and_then(PortFacts::pod);
    pod.is_some_and(|pod| pod.uid != uid && !pod.is_coming_to(uid))
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
    let facts = facts(client, port, deadline).await?;
    let pod = facts.pod()?;
    let chassis = facts.chassis.first()?;
    if pod.uid == add.pod.uid || pod.namespace != add.pod.namespace {
        return None;
    }
    Some(Holder::at(client, port, pod, chassis, deadline).await)
}

/// What a port's row says, whosever chassis it is for.
async fn facts(client: &Client, port: &str, deadline: Instant) -> Option<PortFacts> {
    let ids = ids(client, "Port_Binding", ("logical_port", port), deadline).await?;
    PortFacts::decode(&ids).ok()
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
    /// The pod of a row, with the word of the chassis that has it.
    async fn at(
        client: &Client,
        port: &str,
        pod: &PodPort,
        chassis: &str,
        deadline: Instant,
    ) -> Self {
        let published = ids_of_chassis(client, chassis, deadline).await;
        Self {
            kind: published
                .get(&plugged_kind_key(&pod.uid, &pod.ifname))
                .cloned(),
            pod: format!("{}/{}", pod.namespace, pod.name),
            port: port.to_owned(),
            chassis: chassis.to_owned(),
        }
    }

    /// Itself, unless its node says that it has it otherwise than `here`.
    fn of_kind(self, here: &str, add: &Add, chassis: &str) -> Result<Self, Error> {
        match &self.kind {
            Some(kind) if kind != here => {
                Err(self.other_kind(&add.pod, &add.id.ifname, chassis, here))
            }
            _ => Ok(self),
        }
    }

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
            "No VirtualMachineInstanceMigration that is under way names this pod: migrate the machine by one (virtctl migrate), and look at \
             this pod's events; if the other pod is just ending, the runtime tries again by itself.",
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
