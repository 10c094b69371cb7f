//! What is there, in each place that knows of ports.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::lab::Lab;
use crate::node::Node;
use crate::pods::{self, Pod};
use crate::rows;

const JOURNAL: &str = "/var/lib/outboard/attachments";

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
    pub(super) interfaces: Vec<Interface>,
    /// Host ends of pods' veth pairs.
    pub(super) links: Vec<String>,
    pub(super) journal: Vec<Record>,
}

/// An OVS Interface of an attachment.
#[derive(Debug, Clone, Default)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) iface_id: String,
    pub(super) uid: String,
    pub(super) sandbox: String,
    pub(super) ifname: String,
}

/// A journal's record.
#[derive(Debug, Clone, Default)]
pub(super) struct Record {
    pub(super) uid: String,
    pub(super) sandbox: String,
    pub(super) ifname: String,
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
        nodes: lab.nodes().iter().map(on_node).collect::<Result<_>>()?,
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
    let links = node.exec(&["ip", "-json", "link", "show", "type", "veth"])?;
    let links: Vec<Value> = serde_json::from_str(&links).context("ip printed no JSON")?;
    let names = links.iter().filter_map(|link| link["ifname"].as_str());
    Ok(OnNode {
        name: node.name().into(),
        interfaces: interfaces.collect(),
        links: names
            .filter(|name| is_host_link(name))
            .map(str::to_owned)
            .collect(),
        journal: journal(node)?,
    })
}

/// `ob` and 13 hexadecimal digits.
fn is_host_link(name: &str) -> bool {
    name.strip_prefix("ob")
        .is_some_and(|digits| digits.len() == 13 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn journal(node: &Node) -> Result<Vec<Record>> {
    let dir = node.path(JOURNAL);
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
        records.push(Record {
            uid: text(&record["pod"]["uid"]),
            sandbox: text(&record["id"]["container"]),
            ifname: text(&record["id"]["ifname"]),
        });
    }
    Ok(records)
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
