//! The node half against a real kernel and a real OVN.

pub(crate) mod ovn;
pub(crate) mod sandbox;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use api::{NodeFacts, PortFacts, Role};
use daemon::readiness::Readiness;
use ipnet::IpNet;
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::ovn::{NODE, Ovn};
use self::sandbox::{ask, eventually, sandboxed, serve, sh, soon, uplink};
use super::node_port::{NodePort, PortBinding, choose};
use super::{Links, kernel};
use crate::chassis::{self, Databases, Place};
use crate::netlink::{Change, Link, Netlink};
use crate::rounds::{Pace, Rounds};

fn nets(list: &str) -> Vec<IpNet> {
    list.split_whitespace()
        .map(|net| net.parse().unwrap())
        .collect()
}

fn node_facts() -> PortFacts {
    PortFacts {
        chassis: BTreeSet::from([NODE.to_owned()]),
        host: None,
        role: Role::Node(NodeFacts {
            pod_cidrs: nets("10.244.0.0/16 fd00:10:244::/64"),
            service_cidrs: nets("10.96.0.0/16 fd01::/112"),
            join_cidrs: nets("100.64.0.0/16 fd98::/64"),
            nat_cidrs: nets("10.244.0.0/16 fd00:10:244::/64"),
        }),
        subnet: "join".to_owned(),
        mac: "0a:58:64:40:00:02".parse().unwrap(),
        ips: nets("100.64.0.2/16 fd98::2/64"),
        gateways: vec!["100.64.0.1".parse().unwrap(), "fd98::1".parse().unwrap()],
        routes: Vec::new(),
        mtu: None,
        default_route: false,
    }
}

pub(crate) fn node_port() -> NodePort {
    let facts = node_facts();
    NodePort {
        name: "node/n1".to_owned(),
        datapath: None,
        mac: facts.mac,
        addresses: facts.ips.clone(),
        gateways: facts.gateways.clone(),
        mtu: None,
        facts: facts.node().unwrap().clone(),
    }
}

#[test]
fn the_port_of_a_host_behind_the_chassis_is_not_the_nodes_own() {
    let row = |name: &str, host: Option<&str>| PortBinding {
        uuid: ovsdb::Uuid::nil(),
        logical_port: name.to_owned(),
        datapath: None,
        external_ids: PortFacts {
            host: host.map(str::to_owned),
            ..node_facts()
        }
        .encode(),
    };
    let rows = [row("node/h1", Some("h1")), row("node/n1", None)];
    assert_eq!(choose(&rows, NODE).unwrap(), node_port());
    let none = choose(&rows[..1], NODE).unwrap_err();
    assert!(none.contains("has no port of this node"), "{none}");
}

#[test]
fn the_kernel_ends_up_as_desired_whatever_it_had() {
    sandboxed(
        "gateway::tests::the_kernel_ends_up_as_desired_whatever_it_had",
        async {
            let root = Path::new("/proc/sys");
            let mut netlink = Netlink::open().unwrap();
            let mut port = node_port();
            let desired = kernel::desired(&port);
            assert_eq!(kernel::observe(&mut netlink, &desired, root).unwrap(), None);

            sh("ip link add ob0 type veth peer name far
            ip link set far up
            ip addr add 100.64.9.9/16 dev ob0
            ip link set ob0 up
            ip route add 10.99.0.0/16 via 100.64.0.1 dev ob0
            ip route add 10.96.0.0/16 via 100.64.0.7 dev ob0
            sysctl -q net.ipv6.conf.lo.accept_ra=1");
            let converge = |netlink: &mut Netlink, desired: &kernel::Desired| {
                let observed = kernel::observe(netlink, desired, root).unwrap().unwrap();
                kernel::apply(netlink, &kernel::plan(desired, &observed)).unwrap();
                let observed = kernel::observe(netlink, desired, root).unwrap().unwrap();
                assert_eq!(kernel::plan(desired, &observed), kernel::Plan::default());
            };
            converge(&mut netlink, &desired);
            let routes =
                sh("ip route show dev ob0; ip -6 route show dev ob0; ip addr show dev ob0");
            for shown in [
                "10.244.0.0/16 via 100.64.0.1",
                "10.96.0.0/16 via 100.64.0.1",
                "fd00:10:244::/64 via fd98::1",
                "fd01::/112 via fd98::1",
                "100.64.0.2/16",
                "fd98::2/64",
            ] {
                assert!(routes.contains(shown), "{shown} is missing: {routes}");
            }
            assert!(
                !routes.contains("10.99.0.0/16") && !routes.contains("100.64.9.9"),
                "{routes}"
            );
            let settings = sh(
                "sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding \
            net.ipv4.conf.ob0.rp_filter net.ipv6.conf.lo.accept_ra",
            );
            assert_eq!(settings, "1\n1\n2\n2\n");

            port.facts.pod_cidrs = nets("10.244.0.0/16 10.246.0.0/16");
            port.addresses = nets("100.64.0.3/16 fd98::2/64");
            converge(&mut netlink, &kernel::desired(&port));
            let routes = sh("ip route show dev ob0; ip addr show dev ob0");
            assert!(
                routes.contains("10.246.0.0/16") && !routes.contains("100.64.0.2/"),
                "{routes}"
            );
        },
    );
}

#[test]
fn a_node_reaches_pods_and_services_and_pods_reach_the_outside() {
    sandboxed(
        "gateway::tests::a_node_reaches_pods_and_services_and_pods_reach_the_outside",
        whole_node(),
    );
}

/// Chassis, gateway and VIPs as the daemon runs them.
pub(crate) struct Running {
    pub(crate) readiness: Readiness,
    rounds: Rounds,
    stop: CancellationToken,
}

pub(crate) fn run_node_half(ovn: &Ovn, place: Place, databases: Databases) -> Running {
    let readiness = Readiness::default();
    let stop = CancellationToken::new();
    let rounds = Rounds::register(&mut Registry::default());
    let pace = |name| Pace::new(name, &rounds, &readiness, stop.clone());
    let (mtu, port) = (watch::Sender::new(None), watch::Sender::new(None));
    let args = chassis::Args {
        encap_ip: "198.18.0.1".parse().unwrap(),
        bridge_mappings: None,
        datapath_type: "netdev".to_owned(),
        monitor_all: false,
        remote_probe_interval: 30_000,
        openflow_probe_interval: 60,
        hw_offload: None,
        tc_policy: None,
        system_id_conf: ovn.home().join("system-id.conf"),
    };
    let links = Links {
        mtu: mtu.subscribe(),
        port: port.clone(),
    };
    tokio::spawn(crate::vip::run(
        databases.southbound.clone(),
        port.subscribe(),
        pace("vip"),
    ));
    tokio::spawn(super::run(
        NODE.to_owned(),
        databases.clone(),
        links,
        pace("gateway"),
    ));
    tokio::spawn(chassis::run(place, args, databases, mtu, pace("chassis")));
    Running {
        readiness,
        rounds,
        stop,
    }
}

async fn whole_node() {
    uplink();
    let mut ovn = Ovn::start().await;
    let node = run_node_half(&ovn, ovn.place(), ovn.databases());
    let says = |word: &str| {
        node.readiness
            .complaints()
            .iter()
            .any(|(_, why)| why.contains(word))
    };
    eventually("the sentence about br-int", || {
        says("br-int does not exist")
    })
    .await;
    eventually("the sentence about the node's port", || {
        says("has no port of this node")
    })
    .await;

    northbound(&ovn);
    ovn.start_controller();
    if tokio::time::timeout(Duration::from_secs(60), node.readiness.ready())
        .await
        .is_err()
    {
        panic!(
            "not ready: {:?}\n{}",
            node.readiness.complaints(),
            ovn.vsctl("show")
        );
    }
    assert!(
        sh("ip -o link show ob0").contains("mtu 1442"),
        "{}",
        sh("ip -o link show ob0")
    );
    assert_eq!(
        std::fs::read_to_string(ovn.home().join("system-id.conf"))
            .unwrap()
            .trim(),
        NODE
    );
    pod(&ovn);
    eventually("ovn-controller binds both ports", || {
        ovn.sbctl("--bare --columns=up find Port_Binding type='\"\"'")
            .matches("true")
            .count()
            == 2
    })
    .await;

    serve("pod", "10.244.0.5:8080").await;
    serve("pod", "[fd00:10:244::5]:8080").await;
    serve("outside", "198.18.0.2:7000").await;
    serve("outside", "[fd12::2]:7000").await;
    serve("", "198.18.0.1:6443").await;
    let pod = |from: &str| Ok(format!("10.244.0.5:8080 {from}"));
    let outside = |from: &str| Ok(format!("198.18.0.2:7000 {from}"));
    let api = |from: &str| Ok(format!("198.18.0.1:6443 {from}"));
    for (from, to, answer) in [
        // Kubelet's probes.
        ("", "10.244.0.5:8080", pod("100.64.0.2")),
        (
            "",
            "[fd00:10:244::5]:8080",
            Ok("[fd00:10:244::5]:8080 fd98::2".to_owned()),
        ),
        // A pod leaves with the node's address.
        ("pod", "198.18.0.2:7000", outside("198.18.0.1")),
        (
            "pod",
            "[fd12::2]:7000",
            Ok("[fd12::2]:7000 fd12::1".to_owned()),
        ),
        // Services: OVN's own (pods behind them), and ours (a node behind them).
        ("", "10.96.0.2:80", pod("100.64.0.2")),
        ("", "10.96.0.1:443", api("100.64.0.2")),
        ("", "10.96.0.3:80", outside("198.18.0.1")),
        ("pod", "10.96.0.1:443", api("10.244.0.5")),
        ("pod", "10.96.0.3:80", outside("198.18.0.1")),
    ] {
        assert_eq!(ask(from, to).await, answer, "from {from:?} to {to}");
    }

    // What others change is put back.
    ovn.vsctl("remove Open_vSwitch . external_ids ovn-encap-ip -- set Open_vSwitch . external_ids:system-id=x");
    eventually("the chassis settings", || {
        let ids = ovn.vsctl("get Open_vSwitch . external_ids");
        ids.contains("ovn-encap-ip=\"198.18.0.1\"") && ids.contains("system-id=n1")
    })
    .await;
    ovn.vsctl("del-port ob0");
    eventually("ob0 again", || {
        sh("ip route show").contains("10.244.0.0/16 via 100.64.0.1 dev ob0")
    })
    .await;
    eventually("ob0 is installed", || {
        ovn.vsctl("get Interface ob0 external_ids:ovn-installed || true")
            .contains("true")
    })
    .await;
    assert_eq!(ask("", "10.244.0.5:8080").await, pod("100.64.0.2"));

    repaired_at_once(&node.rounds).await;
    assert_eq!(ask("", "10.244.0.5:8080").await, pod("100.64.0.2"));
    assert_eq!(ask("", "10.96.0.3:80").await, outside("198.18.0.1"));

    // A service that gets a pod behind it becomes OVN's again.
    ovn.nbctl(
        "lb-del mixed -- lb-add mixed 10.96.0.3:80 10.244.0.5:8080 tcp -- ls-lb-add join mixed",
    );
    eventually("the rule is gone", || {
        !sh("nft list table inet outboard-vip").contains("10.96.0.3")
    })
    .await;
    node.stop.cancel();
}

/// What others do to the kernel's state is undone by its own events: one after the other, each within a fraction of the timer's
/// period, so that the timer could have caught one of them at most. Each comes when the loops are at rest after the last repair:
/// they come to rest, and it is not found by the way.
async fn repaired_at_once(rounds: &Rounds) {
    let holds = || {
        let routes = sh("ip route show dev ob0; ip -6 route show dev ob0");
        let link = sh("ip -o link show ob0; ip addr show dev ob0");
        let rules = sh("nft list ruleset");
        let settings = sh("sysctl -n net.ipv4.ip_forward net.ipv4.conf.ob0.rp_filter");
        ["10.244.0.0/16 via 100.64.0.1", "fd01::/112 via fd98::1"]
            .iter()
            .all(|route| routes.contains(route))
            && ["UP", "100.64.0.2/16", "fd98::2/64"]
                .iter()
                .all(|word| link.contains(word))
            // Its end is an event, too.
            && !link.contains("tentative")
            && ["@nat4", "10.96.0.3"]
                .iter()
                .all(|word| rules.contains(word))
            && settings == "1\n2\n"
    };
    for harm in [
        "ip route del 10.244.0.0/16",
        "ip -6 route del fd01::/112",
        "ip route replace 10.244.0.0/16 via 198.18.0.2",
        "ip link set ob0 down",
        "ip addr del 100.64.0.2/16 dev ob0",
        "nft flush ruleset",
        "nft flush chain inet outboard postrouting",
        "sysctl -q net.ipv4.ip_forward=0",
        "sysctl -q net.ipv4.conf.ob0.rp_filter=0",
    ] {
        at_rest(rounds).await;
        eventually("what the last harm was done to", holds).await;
        at_rest(rounds).await;
        sh(harm);
        soon(harm, holds).await;
    }
}

/// Waits until there has been no round for longer than the pause before one.
async fn at_rest(rounds: &Rounds) {
    let rest = async {
        let mut before = None;
        loop {
            let now = Some(rounds.made(&["gateway", "vip"]));
            if std::mem::replace(&mut before, now) == now {
                return;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), rest)
        .await
        .expect("the loops come to rest");
}

/// What cni-controller writes for one node and one pod.
fn northbound(ovn: &Ovn) {
    ovn.nbctl(
        "lr-add default \
         -- lrp-add default default/join 0a:58:64:40:00:01 100.64.0.1/16 fd98::1/64 \
         -- lrp-add default default/default 0a:58:0a:f4:00:01 10.244.0.1/16 fd00:10:244::1/64 \
         -- ls-add join -- lsp-add join join/router -- lsp-set-type join/router router \
         -- lsp-set-addresses join/router router -- lsp-set-options join/router router-port=default/join \
         -- ls-add default -- lsp-add default default/router -- lsp-set-type default/router router \
         -- lsp-set-addresses default/router router \
         -- lsp-set-options default/router router-port=default/default \
         -- lsp-add join node/n1 -- lsp-set-addresses node/n1 '0a:58:64:40:00:02 100.64.0.2 fd98::2' \
         -- lsp-set-options node/n1 requested-chassis=n1 \
         -- lsp-add default d/p/default \
         -- lsp-set-addresses d/p/default '0a:58:0a:f4:00:05 10.244.0.5 fd00:10:244::5'",
    );
    ovn.nbctl(
        "lr-route-add default 0.0.0.0/0 100.64.255.254 -- lr-route-add default ::/0 fd98::ffff \
         -- lr-policy-add default 200 'ip4.dst == {10.244.0.0/16, 100.64.0.0/16}' allow \
         -- lr-policy-add default 200 'ip6.dst == {fd00:10:244::/64, fd98::/64}' allow \
         -- lr-policy-add default 100 'ip4.src == 10.244.0.0/16 && is_chassis_resident(\"node/n1\")' reroute 100.64.0.2 \
         -- lr-policy-add default 99 'ip6.src == fd00:10:244::/64 && is_chassis_resident(\"node/n1\")' reroute fd98::2 \
         -- lb-add api 10.96.0.1:443 198.18.0.1:6443 tcp -- ls-lb-add join api -- ls-lb-add default api \
         -- lb-add pods 10.96.0.2:80 10.244.0.5:8080 tcp -- ls-lb-add join pods \
         -- lb-add mixed 10.96.0.3:80 198.18.0.2:7000 tcp -- ls-lb-add join mixed -- ls-lb-add default mixed",
    );
    ovn.set_facts("node/n1", &node_facts());
}

/// A pod as cni-node plugs it, by hand.
fn pod(ovn: &Ovn) {
    sh("ip netns add pod
        ip link add obpod type veth peer name eth0 netns pod
        ip link set obpod up
        ip -n pod link set lo up
        ip -n pod link set eth0 address 0a:58:0a:f4:00:05 mtu 1442 up
        ip -n pod addr add 10.244.0.5/16 dev eth0
        ip -n pod addr add fd00:10:244::5/64 dev eth0 nodad
        ip -n pod route add default via 10.244.0.1
        ip -n pod -6 route add default via fd00:10:244::1
        ethtool -K obpod tx off >/dev/null
        ip netns exec pod ethtool -K eth0 tx off >/dev/null");
    ovn.vsctl("add-port br-int obpod -- set Interface obpod external_ids:iface-id=d/p/default");
}

fn any_observed() -> impl Strategy<Value = kernel::Observed> {
    let address = prop_oneof![
        r"100\.64\.0\.[1-4]/16",
        "fd98::[1-4]/64",
        Just("fe80::1/64".to_owned())
    ];
    let dst = prop_oneof![r"10\.24[3-6]\.0\.0/16", r"10\.96\.0\.0/16", "fd0[01]::/64"];
    let routes = proptest::collection::vec((dst, 1..4_u8), 0..5);
    (
        proptest::collection::btree_set(address, 0..4),
        routes,
        any::<bool>(),
    )
        .prop_map(|(addresses, routes, up)| {
            let route = |(dst, via): (String, u8)| {
                let dst: IpNet = dst.parse().unwrap();
                let via = if dst.addr().is_ipv4() {
                    format!("100.64.0.{via}")
                } else {
                    format!("fd98::{via}")
                };
                crate::netlink::Route {
                    dst,
                    via: Some(via.parse().unwrap()),
                    link: 7,
                    source: None,
                    onlink: false,
                }
            };
            let mut routes: Vec<_> = routes.into_iter().map(route).collect();
            routes.sort();
            routes.dedup_by_key(|route| route.dst);
            kernel::Observed {
                link: Link {
                    index: 7,
                    name: "ob0".to_owned(),
                    veth: false,
                    tap: false,
                    bridge: None,
                    alias: None,
                    mac: None,
                    mtu: 1442,
                    up,
                    carrier: up,
                    peer: None,
                    parent: None,
                },
                addresses: addresses
                    .iter()
                    .map(|address| address.parse().unwrap())
                    .collect(),
                routes,
                wrong_settings: Vec::new(),
            }
        })
}

proptest! {
    #[test]
    fn a_plan_made_after_an_apply_is_empty(mut observed in any_observed()) {
        let desired = kernel::desired(&node_port());
        for change in kernel::plan(&desired, &observed).changes {
            match change {
                Change::SetUp { .. } => observed.link.up = true,
                Change::AddAddress { address, .. } => prop_assert!(observed.addresses.insert(address)),
                Change::DeleteAddress { address, .. } => {
                    prop_assert!(observed.addresses.remove(&address));
                    observed.routes.clear();
                }
                Change::DeleteRoute(route) => observed.routes.retain(|held| *held != route),
                Change::ReplaceRoute(route) => {
                    observed.routes.retain(|held| held.dst != route.dst);
                    observed.routes.push(route);
                }
                other => prop_assert!(false, "{other}"),
            }
        }
        prop_assert_eq!(kernel::plan(&desired, &observed), kernel::Plan::default());
    }
}
