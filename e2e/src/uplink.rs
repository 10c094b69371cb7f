//! How a node comes to its underlay: with Open vSwitch as a port of it, without by itself.

use anyhow::Result;

use crate::node::Node;
use crate::switch;

/// Starts Open vSwitch and ovn-controller where the node has them; otherwise only the uplink.
pub(crate) fn of_node(node: &Node) -> Result<()> {
    if node.role().has_switch() {
        switch::start(node)
    } else {
        start(node)
    }
}

/// Gives eth0 the node's addresses. Who is at the other end is a userspace switch: no checksum may be left to hardware.
fn start(node: &Node) -> Result<()> {
    let (v4, v6) = node.addresses();
    let lab = node.lab();
    node.script(&format!(
        "ethtool -K eth0 tx off >/dev/null\n\
         ip addr replace {v4}/24 dev eth0\n\
         ip -6 addr replace {v6}/64 dev eth0 nodad\n\
         ip link set eth0 up\n\
         ip route replace default via 198.18.{lab}.1\n\
         ip -6 route replace default via fd00:198:{lab}::1\n"
    ))
    .map(drop)
}
