//! Open vSwitch and ovn-controller of a node, as host services.
//!
//! The datapath is userspace: a tunnel leaves only through an OVS bridge that owns the underlay address, so `br-phy` has
//! eth0 as its port and the node's addresses. ovn-controller runs from the start and idles until the local database tells
//! it where the southbound database is, who it is and which keys to show: cni-node's job, or [`configure`]'s.

use std::time::Duration;

use anyhow::Result;

use crate::node::Node;
use crate::{conntrack, dpdk, wait};

const OVS_SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const DB: &str = "unix:/run/openvswitch/db.sock";

/// Starts ovsdb-server, ovs-vswitchd and ovn-controller and puts the underlay onto br-phy.
pub(crate) fn start(node: &Node) -> Result<()> {
    node.script(
        "mkdir -p /run/openvswitch /run/ovn /etc/openvswitch /var/lib/openvswitch /var/lib/ovn \
         /var/log/openvswitch /var/log/ovn",
    )?;
    start_switch(node)?;
    conntrack::without_zero_snat(node)?;
    underlay(node)?;
    node.start(
        "ovn-controller",
        &[
            "ovn-controller",
            DB,
            "--pidfile=/run/ovn/ovn-controller.pid",
            "--overwrite-pidfile",
            "-vconsole:info",
            "-vsyslog:off",
        ],
    )?;
    Ok(())
}

/// What is in the switch's database is lost, as when its disk is: both programs end, and start with an empty one.
pub(crate) fn lose_database(node: &Node) -> Result<()> {
    node.process("ovs-vswitchd").kill9()?;
    node.process("ovsdb-server").kill9()?;
    forget(node)?;
    start_switch(node)?;
    underlay(node)
}

/// Removes the switch's database.
pub(crate) fn forget(node: &Node) -> Result<()> {
    node.script("rm -f /etc/openvswitch/conf.db /etc/openvswitch/.conf.db.~lock~")
        .map(drop)
}

fn start_switch(node: &Node) -> Result<()> {
    node.exec(&[
        "ovsdb-tool",
        "create",
        "/etc/openvswitch/conf.db",
        OVS_SCHEMA,
    ])?;
    node.start(
        "ovsdb-server",
        &[
            "ovsdb-server",
            "/etc/openvswitch/conf.db",
            "--remote=punix:/run/openvswitch/db.sock",
            "--remote=db:Open_vSwitch,Open_vSwitch,manager_options",
            "--private-key=db:Open_vSwitch,SSL,private_key",
            "--certificate=db:Open_vSwitch,SSL,certificate",
            "--bootstrap-ca-cert=db:Open_vSwitch,SSL,ca_cert",
            "--pidfile=/run/openvswitch/ovsdb-server.pid",
            "--unixctl=/run/openvswitch/ovsdb-server.ctl",
            "--overwrite-pidfile",
            "-vconsole:warn",
            "-vsyslog:off",
        ],
    )?;
    socket(node, "/run/openvswitch/db.sock")?;
    node.exec(&["ovs-vsctl", "--no-wait", "init"])?;
    let program = if node.has_dpdk() {
        dpdk::prepare(node)?
    } else {
        "ovs-vswitchd"
    };
    node.start(
        "ovs-vswitchd",
        &[
            program,
            DB,
            "--disable-system",
            "--pidfile=/run/openvswitch/ovs-vswitchd.pid",
            "--overwrite-pidfile",
            "-vconsole:info",
            "-vsyslog:off",
        ],
    )?;
    Ok(())
}

/// Points ovn-controller at a southbound database, as cni-node does it; `tls` is the directory of the node's identity.
pub(crate) fn configure(node: &Node, southbound: &str, tls: Option<&str>) -> Result<()> {
    if let Some(dir) = tls {
        let file = |name: &str| format!("{dir}/{name}");
        node.exec(&[
            "ovs-vsctl",
            "set-ssl",
            &file("tls.key"),
            &file("tls.crt"),
            &file("ca.crt"),
        ])?;
    }
    let (ip, _) = node.addresses();
    node.exec(&[
        "ovs-vsctl",
        "--timeout=20",
        "set",
        "open",
        ".",
        &format!("external_ids:system-id={}", node.name()),
        &format!("external_ids:ovn-remote=\"{southbound}\""),
        "external_ids:ovn-encap-type=geneve",
        &format!("external_ids:ovn-encap-ip={ip}"),
        "external_ids:ovn-bridge-datapath-type=netdev",
        "external_ids:ovn-monitor-all=false",
    ])?;
    Ok(())
}

/// Moves the node's address from eth0 to br-phy. The kernel must not see eth0's packets as well: each would come twice, and
/// connection tracking must not know the first one either (a RST would end a connection before the copy that counts comes).
fn underlay(node: &Node) -> Result<()> {
    let (v4, v6) = node.addresses();
    let (mac, lab) = (node.mac(), node.lab());
    node.script(&format!(
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1 net.ipv4.conf.eth0.arp_ignore=8\n\
         ethtool -K eth0 tx off >/dev/null\n\
         ip link set eth0 up\n\
         nft -f - <<'RULES'\n\
         table inet lab {{\n\
           chain prerouting {{ type filter hook prerouting priority -350; iifname eth0 drop; }}\n\
         }}\n\
         RULES\n\
         ovs-vsctl --timeout=20 --may-exist add-br br-phy \
         -- set bridge br-phy datapath_type=netdev 'other_config:hwaddr=\"{mac}\"' -- --may-exist add-port br-phy eth0\n\
         ethtool -K br-phy tx off >/dev/null\n\
         ip addr replace {v4}/24 dev br-phy\n\
         ip -6 addr replace {v6}/64 dev br-phy nodad\n\
         ip link set br-phy up\n\
         ip route replace default via 198.18.{lab}.1\n\
         ip -6 route replace default via fd00:198:{lab}::1\n"
    ))?;
    Ok(())
}

/// Waits until a server listens on a unix socket of the node.
pub(crate) fn socket(node: &Node, inside: &str) -> Result<()> {
    let path = node.path(inside);
    wait::until_true(
        &format!("{inside} on node {}", node.name()),
        Duration::from_secs(20),
        || Ok(std::os::unix::net::UnixStream::connect(&path).map(|_| true)?),
    )
}
