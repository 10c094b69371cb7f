//! What is there, in each place that knows of ports.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::card;
use crate::lab::Lab;
use crate::node::Node;
use crate::pods::{self, Pod};
use crate::topology::Role;
use crate::{rows, site};

const JOURNAL: &str = "/var/lib/outboard/attachments";
/// Of a host behind a DPU.
const HOST_JOURNAL: &str = "/var/lib/outboard/attachments/host";

/// All places at about one time.
#[derive(Debug, Default)]
pub(super) struct Observed {
    pub(super) pods: Vec<Pod>,
    pub(super) ports: Vec<LogicalPort>,
    pub(super) nodes: Vec<OnNode>,
    pub(super) subnets: Vec<Subnet>,
}

/// A pod's logical switch port.
#[derive(Debug, Clone, Default)]
pub(super) struct LogicalPort {
    pub(super) name: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) ifname: String,
    pub(super) subnet: String,
    /// Without prefix.
    pub(super) ips: Vec<String>,
}

/// What one node has.
#[derive(Debug, Clone, Default)]
pub(super) struct OnNode {
    pub(super) name: String,
    /// The nodes whose pods have their ports here: of a plain node itself, of a DPU its host, too, of a host none.
    pub(super) ports_of: Vec<String>,
    pub(super) interfaces: Vec<Interface>,
    /// All veth links: host ends of pods' pairs, a card's functions or its representors, and others.
    pub(super) links: BTreeSet<String>,
    /// Of a host behind a DPU: numbers of the functions that nobody has.
    pub(super) functions: Option<BTreeSet<u32>>,
    pub(super) journal: Vec<Record>,
}

/// An OVS Interface of an attachment.
#[derive(Debug, Clone, Default)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) iface_id: String,
    /// Empty: a host's own, on its DPU.
    pub(super) uid: String,
    pub(super) sandbox: String,
    pub(super) ifname: String,
}

/// A journal's record.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    /// Empty: the node's own, not a pod's.
    pub(super) uid: String,
    pub(super) sandbox: String,
    pub(super) ifname: String,
    /// Of a host behind a DPU: its function's number.
    pub(super) function: Option<u32>,
}

/// What a Subnet says of its use.
#[derive(Debug, Clone, Default)]
pub(super) struct Subnet {
    pub(super) name: String,
    /// `status.v4.used` and `status.v6.used`, of the families it has.
    pub(super) used: Vec<(Family, i64)>,
}

/// `v4` or `v6`, as in the status.
pub(super) type Family = &'static str;

/// Looks everywhere.
pub(super) fn observe(lab: &Lab) -> Result<Observed> {
    Ok(Observed {
        pods: pods::all(lab)?,
        ports: ports(lab)?,
        nodes: site::in_parallel(lab.nodes().iter(), on_node)?,
        subnets: subnets(lab)?,
    })
}

fn ports(lab: &Lab) -> Result<Vec<LogicalPort>> {
    let columns = "--columns=name,external_ids";
    let text = lab.nbctl(&["--format=json", columns, "list", "Logical_Switch_Port"])?;
    let ours = rows::parse(&text)?.into_iter().filter_map(|row| {
        let mut ids = row.map("external_ids");
        let mut take = |key: &str| ids.remove(key).unwrap_or_default();
        let unit = take("outboard");
        unit.starts_with("pod/").then(|| LogicalPort {
            name: row.text("name"),
            pod: take("pod"),
            uid: take("uid"),
            ifname: take("ifname"),
            subnet: take("subnet"),
            ips: take("ips").split_whitespace().map(without_prefix).collect(),
        })
    });
    Ok(ours.collect())
}

fn on_node(node: &Node) -> Result<OnNode> {
    let (name, own) = (node.name().to_owned(), node.name().to_owned());
    let on_host = matches!(node.role(), Role::Host { .. });
    Ok(OnNode {
        ports_of: match node.role() {
            Role::Plain => vec![own],
            Role::Host { .. } => Vec::new(),
            Role::Dpu { host } => vec![own, host.clone()],
        },
        interfaces: if on_host {
            Vec::new()
        } else {
            interfaces(node)?
        },
        links: card::veths(node)?,
        functions: on_host.then(|| card::functions_at_home(node)).transpose()?,
        journal: journal(node)?,
        name,
    })
}

fn interfaces(node: &Node) -> Result<Vec<Interface>> {
    let find = [
        "ovs-vsctl",
        "--timeout=20",
        "--format=json",
        "--columns=name,external_ids",
        "find",
        "Interface",
    ];
    let text = node.exec(&[&find[..], &["external_ids:outboard=pod"]].concat())?;
    let interfaces = rows::parse(&text)?.into_iter().map(|row| {
        let mut ids = row.map("external_ids");
        let mut take = |key: &str| ids.remove(key).unwrap_or_default();
        Interface {
            name: row.text("name"),
            iface_id: take("iface-id"),
            uid: take("uid"),
            sandbox: take("sandbox"),
            ifname: take("ifname"),
        }
    });
    Ok(interfaces.collect())
}

/// `ob` and 13 hexadecimal digits.
pub(super) fn is_host_link(name: &str) -> bool {
    name.strip_prefix("ob")
        .is_some_and(|digits| digits.len() == 13 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn journal(node: &Node) -> Result<Vec<Record>> {
    let on_host = matches!(node.role(), Role::Host { .. });
    let dir = node.path(if on_host { HOST_JOURNAL } else { JOURNAL });
    let entries = match std::fs::read_dir(&dir) {
        // cni-node never ran here.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("cannot read {}", dir.display()))?,
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if !name.ends_with(".json") || name.starts_with('.') {
            continue;
        }
        // A record may go between the listing and the reading.
        let Ok(text) = std::fs::read(&path) else {
            continue;
        };
        let file: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no JSON", path.display()))?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let record = &file["value"];
        let pod = if on_host {
            &record["subject"]["pod"]["pod"]
        } else {
            &record["pod"]
        };
        records.push(Record {
            uid: text(&pod["uid"]),
            sandbox: text(&record["id"]["container"]),
            ifname: text(&record["id"]["ifname"]),
            function: function(record),
        });
    }
    Ok(records)
}

/// The virtual function's number in a host's record.
fn function(record: &Value) -> Option<u32> {
    let number = record["function"]["virtual"].as_u64()?;
    u32::try_from(number).ok()
}

fn subnets(lab: &Lab) -> Result<Vec<Subnet>> {
    let text = lab.kubectl(&["get", "subnets.iaas.yusur.io", "-o", "json"])?;
    let list: Value = serde_json::from_str(&text).context("kubectl printed no JSON")?;
    let subnet = |object: &Value| Subnet {
        name: object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        used: ["v4", "v6"]
            .into_iter()
            .filter_map(|family| Some((family, object["status"][family]["used"].as_i64()?)))
            .collect(),
    };
    Ok(list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(subnet)
        .collect())
}

fn without_prefix(address: &str) -> String {
    address.split('/').next().unwrap_or_default().to_owned()
}
