//! What is wrong on the DPU, for the host's STATUS and for metrics: the node itself, and each of the host's ports.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use channel::proto::Trouble;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::metrics::Metrics;
use super::plugging;
use super::representor::Plug;
use crate::attachment::Record;
use crate::node::Node;
use crate::reconcile::plan::Representor;
use crate::status;
use crate::vswitch::Interface;

/// The longest time between two looks: ovn-controller sends no events, nor does a representor.
const PERIOD: Duration = Duration::from_secs(5);
/// Changes of Open vSwitch and of the journal within this time are looked at once: each ADD makes several.
const PAUSE: Duration = Duration::from_secs(1);
/// A port that is being plugged is not ill.
const PATIENCE: Duration = Duration::from_secs(2);
/// More ports than that are not named one by one.
const NAMED: usize = 5;

/// Looks until the stop, and tells.
pub(super) async fn run(
    node: Arc<Node>,
    troubles: watch::Sender<Vec<Trouble>>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let mut vswitch = node.vswitch.changed();
    let mut records = node.store.changed();
    let mut southbound = node.southbound.client().status();
    let mut connected = node.vswitch.client().status();
    let mut ill: HashMap<String, Instant> = HashMap::new();
    loop {
        let now = Instant::now();
        let ports = ports(&node).await;
        ill.retain(|port, _| ports.contains_key(port));
        for port in ports.keys() {
            ill.entry(port.clone()).or_insert(now);
        }
        let lasting: BTreeMap<String, String> = ports
            .into_iter()
            .filter(|(port, _)| ill.get(port).is_some_and(|since| now - *since >= PATIENCE))
            .collect();
        metrics
            .unhealthy
            .set(i64::try_from(lasting.len()).unwrap_or(i64::MAX));
        let mut found: Vec<Trouble> = status::complaints(&node)
            .await
            .into_iter()
            .map(|complaint| Trouble {
                sentence: complaint.what,
                limits: complaint.limits,
            })
            .collect();
        found.extend(sentences(&lasting));
        tell(&troubles, found);
        let wait = if ill.len() > lasting.len() {
            PATIENCE
        } else {
            PERIOD
        };
        let paused = async {
            tokio::select! {
                _ = vswitch.changed() => {}
                _ = records.changed() => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
            () = paused => {}
            _ = southbound.changed() => {}
            _ = connected.changed() => {}
        }
    }
}

fn tell(troubles: &watch::Sender<Vec<Trouble>>, found: Vec<Trouble>) {
    troubles.send_if_modified(|told| {
        if *told == found {
            return false;
        }
        match found.as_slice() {
            [] => info!("nothing keeps the host's pods from being attached"),
            found => {
                let all: Vec<&str> = found.iter().map(|one| one.sentence.as_str()).collect();
                warn!("the host is told: {}", all.join("; "));
            }
        }
        *told = found;
        true
    });
}

/// The host's ports that do not work, by logical port, with the reason.
async fn ports(node: &Node) -> BTreeMap<String, String> {
    // Without the database nothing is known of them: that is told by itself.
    if node.vswitch.trouble().is_some() {
        return BTreeMap::new();
    }
    let records: Vec<Record> = node
        .store
        .all()
        .into_iter()
        .filter(|record| record.far().is_some())
        .collect();
    let Ok(links) = plugging::representors(node, &records).await else {
        return BTreeMap::new();
    };
    let interfaces: HashMap<String, Interface> = node
        .vswitch
        .interfaces()
        .into_iter()
        .map(|interface| (interface.name.clone(), interface))
        .collect();
    judge(&records, &links, &interfaces)
}

fn judge(
    records: &[Record],
    links: &BTreeMap<String, Representor>,
    interfaces: &HashMap<String, Interface>,
) -> BTreeMap<String, String> {
    // Of two sandboxes of one pod the younger has the port.
    let mut holders: BTreeMap<&str, &Record> = BTreeMap::new();
    for record in records {
        let holder = holders.entry(&record.port.iface_id).or_insert(record);
        if record.ordinal > holder.ordinal {
            *holder = record;
        }
    }
    let why = |record: &Record| {
        let name = record.link();
        let has_link = record.far().is_some_and(|far| far.plug == Plug::System);
        match (links.get(&name), interfaces.get(&name)) {
            (None, _) if has_link => Some(format!("its representor {name} is gone")),
            (_, None) => Some(format!("it is not in Open vSwitch as {name}")),
            (_, Some(interface)) if interface.error.is_some() => interface.error.clone(),
            (_, Some(interface)) if interface.ofport.is_none_or(|number| number <= 0) => {
                Some("ovs-vswitchd has not taken it up".to_owned())
            }
            (Some(link), _) if !link.up => Some(format!("its representor {name} is down")),
            _ => None,
        }
    };
    holders
        .into_iter()
        .filter_map(|(port, record)| Some((port.to_owned(), why(record)?)))
        .collect()
}

/// One each, or one for all when they are many: a card that was reset has lost all of them.
fn sentences(ports: &BTreeMap<String, String>) -> Vec<Trouble> {
    let trouble = |sentence| Trouble {
        sentence,
        limits: true,
    };
    let named = ports
        .iter()
        .map(|(port, why)| trouble(format!("port {port} of the host does not work: {why}")));
    let mut all: Vec<Trouble> = named.take(NAMED).collect();
    if ports.len() > NAMED {
        all.push(trouble(format!(
            "{} more ports of the host do not work",
            ports.len() - NAMED
        )));
    }
    all
}

#[cfg(test)]
mod tests {
    use ovsdb::Uuid;

    use super::*;
    use crate::attachment::{AttachmentId, End, Far, Pod, PortRecord};
    use crate::dpu::representor::CardFunction;

    fn record(number: u32, plug: Plug) -> Record {
        Record {
            id: AttachmentId::of_host("h1", &number.to_string(), "eth0"),
            network: String::new(),
            pod: Pod {
                namespace: "default".into(),
                name: "web".into(),
                uid: "u1".into(),
            },
            netns: std::path::PathBuf::new(),
            port: PortRecord {
                iface_id: format!("p{number}"),
                mac: String::new(),
                ips: Vec::new(),
            },
            ordinal: 1,
            end: End::Representor(Far {
                link: format!("pf0vf{number}"),
                plug,
                host: "h1".into(),
                function: CardFunction {
                    physical: 0,
                    vf: Some(number),
                },
                attempt: 1,
                mtu: 1400,
            }),
        }
    }

    fn interface(number: u32, ofport: i64, error: Option<&str>) -> Interface {
        Interface {
            uuid: Uuid::from_u128(number.into()),
            r#type: String::new(),
            options: BTreeMap::new(),
            status: BTreeMap::new(),
            mtu: None,
            mtu_request: None,
            name: format!("pf0vf{number}"),
            ofport: Some(ofport),
            error: error.map(str::to_owned),
            external_ids: BTreeMap::new(),
        }
    }

    #[test]
    fn each_way_not_to_work_is_told() {
        let records: Vec<Record> = (0..6).map(|number| record(number, Plug::System)).collect();
        let up = |index| Representor { index, up: true };
        let mut links: BTreeMap<String, Representor> = (0..5)
            .map(|number| (format!("pf0vf{number}"), up(number)))
            .collect();
        links.insert(
            "pf0vf4".into(),
            Representor {
                index: 4,
                up: false,
            },
        );
        let interfaces = [
            interface(0, 3, None),
            interface(
                2,
                -1,
                Some("could not open network device pf0vf2 (No such device)"),
            ),
            interface(3, -1, None),
            interface(4, 5, None),
            interface(5, 6, None),
        ];
        let interfaces = interfaces
            .into_iter()
            .map(|one| (one.name.clone(), one))
            .collect();
        let found = judge(&records, &links, &interfaces);
        let lines: Vec<String> = found
            .iter()
            .map(|(port, why)| format!("{port}: {why}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        p1: it is not in Open vSwitch as pf0vf1
        p2: could not open network device pf0vf2 (No such device)
        p3: ovs-vswitchd has not taken it up
        p4: its representor pf0vf4 is down
        p5: its representor pf0vf5 is gone
        ");
        let dpdk = record(
            0,
            Plug::Dpdk {
                devargs: String::new(),
            },
        );
        assert!(judge(&[dpdk], &BTreeMap::new(), &interfaces).is_empty());
        let many = (0..9)
            .map(|number| (number.to_string(), String::new()))
            .collect();
        let sentences = sentences(&many);
        assert_eq!(sentences.len(), NAMED + 1);
        assert!(sentences[NAMED].sentence.starts_with("4 more"));
    }
}
