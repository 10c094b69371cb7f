//! What nodes publish of their pods' interfaces but the first ([`api::PluggedPort`]). Read once, with `--rebuild` alone.
//!
//! A node is believed about the pods that are bound to it and about nobody else's: OVN's role lets a chassis write
//! its own row alone, and a pod's entry is looked for in the row of its own node.

use crate::rows::{Problem, Unit};
use api::{PLUGGED_FORMAT, PLUGGED_KEY, PluggedPort, plugged_key};
use daemon::readiness::Check;
use ovsdb::{Client, Condition, MonitorSpec, Replica};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// How long a node that has published nothing is waited for: after an outage of everything its row
/// comes back when its ovn-controller does. A node that is down must not hold up all others.
const PATIENCE: Duration = Duration::from_secs(10);

ovsdb::table! {
    /// A node's own row.
    struct ChassisPrivate in "Chassis_Private" {
        name: String,
        external_ids: BTreeMap<String, String>,
    }
}

/// An interface that may be plugged, and of which neither kubelet nor Multus reports addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sought {
    /// The pod.
    pub(crate) unit: Unit,
    /// Its UID, as CNI_ARGS carries it.
    pub(crate) uid: Box<str>,
    /// The interface's name.
    pub(crate) ifname: String,
    /// The port that it is to have.
    pub(crate) lsp: String,
    /// The pod's node.
    pub(crate) node: Box<str>,
    /// That node's chassis.
    pub(crate) chassis: String,
}

/// Of each chassis that has a row: those of its keys that are looked for.
pub(crate) type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// What is known of interfaces from their nodes. Empty but with `--rebuild`.
#[derive(Debug, Default)]
pub(crate) struct Published(HashMap<String, PluggedPort>);

impl Published {
    /// What the pod's node says of an interface.
    pub(crate) fn port(&self, uid: &str, ifname: &str) -> Option<&PluggedPort> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&plugged_key(uid, ifname))
    }

    /// Takes over what a further look has found.
    pub(crate) fn merge(&mut self, further: Self) {
        self.0.extend(further.0);
    }
}

/// Reads the rows of the chassis that are concerned. Waits for the southbound database as long as it takes, for
/// nodes that have published nothing [`PATIENCE`]; `check` says so meanwhile.
pub(crate) async fn read(sb: &Client, sought: &[Sought], check: &Check) -> Rows {
    let chassis: BTreeSet<&str> = sought.iter().map(|one| one.chassis.as_str()).collect();
    let named = chassis.iter().map(|name| Condition::eq("name", *name));
    let replica = sb.monitor(MonitorSpec::new().table::<ChassisPrivate>().where_(named));
    let mut synced = replica.watch_synced();
    let mut status = sb.status();
    while !*synced.borrow_and_update() {
        let error = status.borrow_and_update().last_error.clone();
        let error = error.unwrap_or_else(|| "the first read is under way".into());
        check.not_ready(format!(
            "--rebuild waits for the southbound database, in which nodes publish what their pods have: {error}; check --sb"
        ));
        tokio::select! {
            _ = synced.changed() => {}
            _ = status.changed() => {}
        }
    }
    let mut changed = replica.changed();
    let end = Instant::now() + PATIENCE;
    loop {
        changed.borrow_and_update();
        let rows = rows(&replica, sought);
        let silent: Vec<&str> = chassis
            .iter()
            .copied()
            .filter(|name| speaks(rows.get(*name)).is_err())
            .collect();
        if silent.is_empty() {
            return rows;
        }
        check.not_ready(format!(
            "--rebuild waits up to {} s for nodes to publish what their pods have: {}",
            PATIENCE.as_secs(),
            silent.join(", ")
        ));
        if tokio::time::timeout_at(end, changed.changed())
            .await
            .is_err()
        {
            return rows;
        }
    }
}

fn rows(replica: &Replica, sought: &[Sought]) -> Rows {
    let mut wanted: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in sought {
        let keys = wanted.entry(&one.chassis);
        keys.or_insert_with(|| vec![PLUGGED_KEY.to_owned()])
            .push(plugged_key(&one.uid, &one.ifname));
    }
    let mut rows = Rows::new();
    replica.read(|snapshot| {
        for row in snapshot.raw("Chassis_Private") {
            let name = row.get("name").and_then(|name| name.as_str());
            let Some((name, keys)) = name.and_then(|n| Some((n, wanted.get(n)?))) else {
                continue;
            };
            let value = |key: &String| {
                let value = row.get("external_ids")?.get_str(key)?;
                Some((key.clone(), value.to_owned()))
            };
            rows.insert(name.to_owned(), keys.iter().filter_map(value).collect());
        }
    });
    rows
}

/// The node's entries, or why nothing is known of what it has.
fn speaks(row: Option<&BTreeMap<String, String>>) -> Result<&BTreeMap<String, String>, String> {
    let row = row.ok_or(
        "its chassis has no row in the southbound Chassis_Private: does ovn-controller run there?",
    )?;
    match row.get(PLUGGED_KEY).map(String::as_str) {
        Some(PLUGGED_FORMAT) => Ok(row),
        Some(format) => Err(format!(
            "its cni-node publishes in a form {format:?} that this version does not know."
        )),
        None => Err(
            "its cni-node has published nothing: does it run, and is it of this version?"
                .to_owned(),
        ),
    }
}

/// What of it can be believed, and what people must know. `rows` or why there are none.
pub(crate) fn judge(
    sought: &[Sought],
    rows: Result<&Rows, &str>,
) -> (Published, Vec<(Unit, Problem)>) {
    let mut published = Published::default();
    let mut problems = Vec::new();
    let mut silent: BTreeMap<&str, (usize, String)> = BTreeMap::new();
    for one in sought {
        let Sought {
            unit,
            uid,
            ifname,
            lsp,
            node,
            chassis,
        } = one;
        let row = match rows {
            Ok(rows) => speaks(rows.get(chassis)),
            Err(why) => Err(why.to_owned()),
        };
        let entry = match row {
            Ok(row) => row.get(&plugged_key(uid, ifname)),
            Err(why) => {
                problems.push((unit.clone(), lost(ifname, &format!("node {node}: {why}"))));
                silent.entry(node).or_insert((0, why)).0 += 1;
                continue;
            }
        };
        match entry.map(|text| text.parse::<PluggedPort>()) {
            // It is not plugged: any address will do.
            None => {}
            Some(Ok(port)) if port.lsp == *lsp => {
                published.0.insert(plugged_key(uid, ifname), port);
            }
            Some(Ok(port)) => {
                let why = format!(
                    "node {node} has it plugged as port {}, and it is to be {lsp}: was the NetworkAttachmentDefinition changed?",
                    port.lsp
                );
                problems.push((unit.clone(), lost(ifname, &why)));
            }
            Some(Err(error)) => {
                problems.push((
                    unit.clone(),
                    lost(
                        ifname,
                        &format!("node {node} publishes what cannot be read: {error}"),
                    ),
                ));
            }
        }
    }
    for (node, (count, why)) in silent {
        let sentence = format!(
            "--rebuild: Node {node} does not say which addresses {count} further interfaces of its pods have: {why} They are given new addresses. Delete those pods (each has an Event), so that they start with the new ones"
        );
        problems.push((
            Unit::Node(node.to_owned()),
            Problem::new("InterfacesNotPublished", sentence),
        ));
    }
    (published, problems)
}

fn lost(ifname: &str, why: &str) -> Problem {
    let sentence = format!(
        "--rebuild: it is not known which addresses interface {ifname} has ({why}), nor does network-status say; it is given new ones: delete the pod, so that it starts with them"
    );
    Problem::new("AddressNotKnown", sentence)
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str, PluggedPort); N]> for Published {
    fn from(ports: [(&str, &str, PluggedPort); N]) -> Self {
        let ports = ports.into_iter();
        Self(
            ports
                .map(|(uid, ifname, port)| (plugged_key(uid, ifname), port))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(name: &str, node: &str) -> Sought {
        Sought {
            unit: Unit::pod("ns", name),
            uid: format!("uid-{name}").into(),
            ifname: "net1".into(),
            lsp: format!("ns/{name}/storage/net1"),
            node: node.into(),
            chassis: node.to_owned(),
        }
    }

    fn row(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
        let format = (PLUGGED_KEY.to_owned(), PLUGGED_FORMAT.to_owned());
        let entry = |(name, value): &(&str, &str)| {
            (
                plugged_key(&format!("uid-{name}"), "net1"),
                (*value).to_owned(),
            )
        };
        entries.iter().map(entry).chain([format]).collect()
    }

    const PORT: &str = "ns/a/storage/net1 02:00:00:00:00:01 10.200.0.9";

    #[test]
    fn a_node_is_believed_about_its_own_pods_only() {
        let all = [sought("a", "n1"), sought("b", "n2")];
        let other = "ns/b/storage/net1 02:00:00:00:00:02 10.200.0.8";
        let rows = Rows::from([
            ("n1".into(), row(&[("a", PORT), ("b", other)])),
            ("n2".into(), row(&[])),
        ]);
        let (published, problems) = judge(&all, Ok(&rows));
        assert_eq!(
            published.port("uid-a", "net1").unwrap().ips[0].to_string(),
            "10.200.0.9"
        );
        assert_eq!(published.port("uid-b", "net1"), None);
        assert_eq!(problems, []);
    }

    #[test]
    fn a_node_that_says_nothing_is_an_event_and_so_is_each_of_its_pods() {
        let all = [sought("a", "n1"), sought("b", "n1"), sought("c", "n2")];
        let rows = Rows::from([("n2".into(), BTreeMap::new())]);
        let (published, problems) = judge(&all, Ok(&rows));
        assert!(published.0.is_empty());
        let said: Vec<String> = problems
            .iter()
            .map(|(unit, problem)| format!("{unit} {}", problem.reason))
            .collect();
        assert_eq!(
            said,
            [
                "pod/ns/a AddressNotKnown",
                "pod/ns/b AddressNotKnown",
                "pod/ns/c AddressNotKnown",
                "node/n1 InterfacesNotPublished",
                "node/n2 InterfacesNotPublished",
            ]
        );
        assert!(problems[3].1.sentence.contains("2 further interfaces"));
        assert!(problems[4].1.sentence.contains("does it run"));
        let (_, problems) = judge(&all, Err("no --sb was given."));
        assert_eq!(problems.len(), 5);
    }

    #[test]
    fn what_does_not_fit_is_said_and_not_taken() {
        let all = [sought("a", "n1"), sought("b", "n1")];
        let rows = Rows::from([("n1".into(), row(&[("a", "forged"), ("b", PORT)]))]);
        let (published, problems) = judge(&all, Ok(&rows));
        assert!(published.0.is_empty());
        assert!(problems[0].1.sentence.contains("cannot be read"));
        assert!(problems[1].1.sentence.contains("ns/a/storage/net1"));
    }
}
