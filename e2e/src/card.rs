//! The emulated card between a host and its DPU, as far as it is the lab's: the way into the DPU's network namespace, which is
//! how the host's cni-node reaches the far ends of its functions. The functions themselves, pairs `vf<N>` on the host and
//! `pf0vf<N>` on the DPU, are made by cni-node.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::node::Node;
use crate::topology::Role;

/// Where the host has its DPU's network namespace (manifests/overlays/lab-dpu).
const NETNS: &str = "/run/outboard/card/dpu";

/// Of a host: puts the card in. Of another node: nothing.
pub(crate) fn plug(node: &Node, nodes: &[Node]) -> Result<()> {
    let Role::Host { dpu } = node.role() else {
        return Ok(());
    };
    let found = nodes.iter().find(|other| other.name() == dpu);
    let holder = found
        .with_context(|| format!("host {} has no DPU {dpu}", node.name()))?
        .holder();
    node.script(&format!(
        "mkdir -p {}\n: >{NETNS}\nmount --bind /proc/{holder}/ns/net {NETNS}\n",
        NETNS.trim_end_matches("/dpu")
    ))
    .map(drop)
}

/// Numbers of the functions that are in the host's own namespace, under their own names: those that nobody has.
///
/// # Errors
/// The host cannot be asked.
pub fn functions_at_home(host: &Node) -> Result<BTreeSet<u32>> {
    let links = veths(host)?;
    Ok(links
        .iter()
        .filter_map(|name| name.strip_prefix("vf")?.parse().ok())
        .collect())
}

/// Names of the representors that a DPU has.
///
/// # Errors
/// The DPU cannot be asked.
pub fn representors(dpu: &Node) -> Result<BTreeSet<String>> {
    let mut links = veths(dpu)?;
    links.retain(|name| is_representor(name));
    Ok(links)
}

/// `pf0vf` and a number.
pub(crate) fn is_representor(link: &str) -> bool {
    link.strip_prefix("pf0vf")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Names of the veth links in a node's own namespace.
///
/// # Errors
/// The node cannot be asked.
pub(crate) fn veths(node: &Node) -> Result<BTreeSet<String>> {
    let links = node.exec(&["ip", "-json", "link", "show", "type", "veth"])?;
    // With no link of the type it prints nothing at all.
    let links: Vec<Value> = if links.is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(&links).context("ip printed no JSON")?
    };
    let names = links.iter().filter_map(|link| link["ifname"].as_str());
    Ok(names.map(str::to_owned).collect())
}
