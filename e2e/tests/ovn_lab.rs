//! The lab without Kubernetes does what a test may take for granted: packets cross nodes, services restart, nothing stays.

use std::time::Duration;

use e2e::{CentralConfig, Node, OvnLab, OvnLabConfig, run, until};

/// A port of switch `net` on a node, the way a CNI plugin would make it; its far end is a namespace of that node.
fn plug(lab: &OvnLab, node: &Node, port: &str, host: u8) -> anyhow::Result<()> {
    let mac = format!("0a:58:c6:12:00:{host:02x}");
    lab.central.nbctl(&[
        "--wait=hv",
        "lsp-add",
        "net",
        port,
        "--",
        "lsp-set-addresses",
        port,
        &format!("{mac} 198.18.255.{host} fd00:255::{host}"),
    ])?;
    node.script(&format!(
        "ip netns add {port}
         ip link add {port} type veth peer name eth0 address {mac} netns {port}
         ip link set {port} up
         ethtool -K {port} tx off >/dev/null
         ip netns exec {port} ethtool -K eth0 tx off >/dev/null
         ip -n {port} addr add 198.18.255.{host}/24 dev eth0
         ip -n {port} addr add fd00:255::{host}/64 dev eth0 nodad
         ip -n {port} link set eth0 mtu 1400 up
         ovs-vsctl --timeout=10 add-port br-int {port} -- set interface {port} external_ids:iface-id={port}"
    ))?;
    until(
        &format!("port {port} to be installed"),
        Duration::from_secs(20),
        || {
            let ids = node.exec(&[
                "ovs-vsctl",
                "get",
                "interface",
                port,
                "external_ids:ovn-installed",
            ])?;
            Ok(ids.contains("true").then_some(()))
        },
    )
}

fn ping(node: &Node, port: &str, target: &str) -> anyhow::Result<()> {
    until(
        &format!("{port} to reach {target}"),
        Duration::from_secs(20),
        || {
            node.exec(&["ip", "netns", "exec", port, "ping", "-c1", "-W1", target])
                .map(Some)
        },
    )
    .map(drop)
}

#[test]
fn packets_cross_nodes_also_after_restarts_and_down_leaves_nothing() {
    let lab = OvnLab::up(&OvnLabConfig::default()).unwrap();
    let id = lab.site.id();
    let (n1, n2) = (lab.node("n1"), lab.node("n2"));
    lab.central.nbctl(&["ls-add", "net"]).unwrap();
    plug(&lab, n1, "p1", 11).unwrap();
    plug(&lab, n2, "p2", 12).unwrap();
    ping(n1, "p1", "198.18.255.12").unwrap();
    ping(n2, "p2", "fd00:255::11").unwrap();

    for service in ["ovs-vswitchd", "ovn-controller", "ovsdb-server"] {
        n1.process(service).restart().unwrap();
    }
    lab.site.master().process("northd").restart().unwrap();
    let (n2_v4, n2_v6) = n2.addresses();
    for address in [&n2_v4, &n2_v6] {
        until("the underlay to come back", Duration::from_secs(10), || {
            n1.exec(&["ping", "-c1", "-W1", address]).map(Some)
        })
        .unwrap();
    }
    ping(n1, "p1", "198.18.255.12").unwrap();
    lab.central.nbctl(&["--wait=hv", "sync"]).unwrap();

    let (outside, outside6) = lab.site.outside();
    assert_eq!(
        n2.exec(&["curl", "-sS", "-m5", &format!("http://{outside}/")])
            .unwrap(),
        "outside"
    );
    assert_eq!(
        n2.exec(&["curl", "-sS", "-m5", &format!("http://[{outside6}]/")])
            .unwrap(),
        "outside"
    );

    drop(lab);
    let netns = run(&["ip", "netns", "list"]).unwrap();
    assert!(!netns.contains(&format!("ob{id}-")), "{netns}");
    let links = run(&["ip", "-br", "link"]).unwrap();
    assert!(!links.contains(&format!("lab{id}")), "{links}");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains("outboard-lab"), "{mounts}");
    let processes = run(&["ps", "-eo", "args"]).unwrap();
    assert!(
        !processes.contains(&format!("outboard-lab/{id}/")),
        "{processes}"
    );
}

#[test]
fn the_northbound_database_survives_its_leader() {
    let config = OvnLabConfig {
        nodes: 1,
        central: CentralConfig { nb_servers: 3 },
        ..OvnLabConfig::default()
    };
    let lab = OvnLab::up(&config).unwrap();
    let master = lab.site.master();
    lab.central.nbctl(&["ls-add", "before"]).unwrap();
    let leader = lab.central.nb_leader(master).unwrap();
    master.process(&leader).kill9().unwrap();
    let next = until("another leader", Duration::from_secs(20), || {
        lab.central.nb_leader(master).map(Some)
    })
    .unwrap();
    assert_ne!(next, leader);
    lab.central.nbctl(&["ls-add", "after"]).unwrap();
    master.process(&leader).restart().unwrap();
    until(
        "the old leader to serve again",
        Duration::from_secs(20),
        || {
            let control = format!("/run/ovn/{leader}.ctl");
            let status = master.exec(&[
                "ovs-appctl",
                "-t",
                &control,
                "cluster/status",
                "OVN_Northbound",
            ])?;
            Ok(status.contains("Role: follower").then_some(()))
        },
    )
    .unwrap();
    let switches = lab
        .central
        .nbctl(&["--bare", "--columns=name", "list", "logical_switch"])
        .unwrap();
    assert!(
        switches.contains("before") && switches.contains("after"),
        "{switches}"
    );
}

#[test]
fn an_unconfigured_chassis_idles() {
    let lab = OvnLab::up(&OvnLabConfig {
        nodes: 1,
        connect: false,
        ..OvnLabConfig::default()
    })
    .unwrap();
    assert!(lab.node("n1").process("ovn-controller").alive());
    assert_eq!(lab.central.sbctl(&["list", "chassis"]).unwrap(), "");
}
