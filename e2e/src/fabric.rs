//! The wires of a lab: a bridge in a namespace of its own, a link to the machine, an outside host behind a router.
//!
//! Addresses of lab `k`: nodes `198.18.k.11…` and `fd00:198:k::11…`, the router `.1`, this machine `.254`; the outside
//! host `198.19.k.2` and `fd00:199:k::2` with a web server on port 80. The router knows no pod network: what reaches the
//! outside under a pod's address gets no answer.

use anyhow::{Context as _, Result};

use crate::shell;
use crate::topology::Place;

/// All network namespaces of a lab start with this.
pub(crate) fn netns_prefix(id: u8) -> String {
    format!("ob{id}-")
}

/// The machine's own link into the lab, in its root namespace.
pub(crate) fn root_link(id: u8) -> String {
    format!("lab{id}")
}

/// A network namespace of a lab.
pub(crate) fn netns(id: u8, part: &str) -> String {
    format!("{}{part}", netns_prefix(id))
}

/// Underlay addresses of the node with this index (1, 2, …), without prefix.
pub(crate) fn node_addresses(id: u8, index: u8) -> (String, String) {
    let host = 10 + u16::from(index);
    (
        format!("198.18.{id}.{host}"),
        format!("fd00:198:{id}::{host}"),
    )
}

/// The MAC of a node's uplink.
pub(crate) fn node_mac(id: u8, index: u8) -> String {
    format!("02:4f:42:{id:02x}:00:{index:02x}")
}

/// Runs lines of `ip` in a namespace (none: the machine's own).
pub(crate) fn ip(netns: Option<&str>, lines: &str) -> Result<()> {
    let mut argv = vec!["ip"];
    if let Some(name) = netns {
        argv.extend(["-n", name]);
    }
    argv.extend(["-batch", "-"]);
    shell::run_with_input(&argv, lines).map(drop)
}

/// Makes fabric, router, machine link and outside host, and a namespace with an `eth0` for each node.
pub(crate) fn create(id: u8, nodes: &[Place]) -> Result<()> {
    let fabric = netns(id, "fabric");
    let outside = netns(id, "outside");
    let root = root_link(id);
    let mut spaces = format!("netns add {fabric}\nnetns add {outside}\n");
    for place in nodes {
        spaces += &format!("netns add {}\n", netns(id, &place.name));
    }
    ip(None, &spaces).with_context(|| format!("cannot make the namespaces of lab {id}"))?;
    ip(
        None,
        &format!(
            "link add {root} type veth peer name root netns {fabric}\n\
             addr add 198.18.{id}.254/24 dev {root}\n\
             addr add fd00:198:{id}::254/64 dev {root} nodad\n\
             link set {root} up\n"
        ),
    )?;
    let mut wires = format!(
        "link set lo up\n\
         link add br0 type bridge\n\
         addr add 198.18.{id}.1/24 dev br0\n\
         addr add fd00:198:{id}::1/64 dev br0 nodad\n\
         link set br0 up\n\
         link set root master br0 up\n\
         link add out type veth peer name eth0 netns {outside}\n\
         addr add 198.19.{id}.1/24 dev out\n\
         addr add fd00:199:{id}::1/64 dev out nodad\n\
         link set out up\n"
    );
    for Place { index, name, .. } in nodes {
        let mac = node_mac(id, *index);
        wires += &format!(
            "link add name {name} type veth peer name eth0 address {mac} netns {}\n\
             link set dev {name} master br0 up\n",
            netns(id, name)
        );
    }
    ip(Some(&fabric), &wires)?;
    ip(
        Some(&outside),
        &format!(
            "link set lo up\n\
             addr add 198.19.{id}.2/24 dev eth0\n\
             addr add fd00:199:{id}::2/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via 198.19.{id}.1\n\
             route add ::/0 via fd00:199:{id}::1\n"
        ),
    )?;
    finish_links(&fabric, &outside, &root, nodes)
}

/// Frames reach userspace OVS with whatever checksum they carry: no sender may leave it to hardware.
fn finish_links(fabric: &str, outside: &str, root: &str, nodes: &[Place]) -> Result<()> {
    let ports: Vec<&str> = ["br0", "out", "root"]
        .into_iter()
        .chain(nodes.iter().map(|place| place.name.as_str()))
        .collect();
    let mut script =
        String::from("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1\n");
    for port in ports {
        script += &format!("ethtool -K {port} tx off >/dev/null\n");
    }
    shell::run(&["ip", "netns", "exec", fabric, "sh", "-ec", &script])?;
    shell::run(&[
        "ip", "netns", "exec", outside, "ethtool", "-K", "eth0", "tx", "off",
    ])?;
    shell::run(&["ethtool", "-K", root, "tx", "off"])?;
    Ok(())
}
