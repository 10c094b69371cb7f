//! The rows of vpcs, subnets, nodes and services, given to the real ovn-northd: what does the
//! network then do with a packet? `ovn-trace` answers.

#![allow(clippy::unwrap_used, reason = "a test")]

mod dhcp;
mod ovn;
mod world;

use ovn::Ovn;
use world::{World, packet};

/// A network with everything in it, bound on n1 and n2.
fn network(world: &World) -> Ovn {
    let ovn = Ovn::start();
    ovn.write(&world.rows());
    for (chassis, encap) in [("n1", "198.18.9.1"), ("n2", "198.18.9.2")] {
        ovn.sbctl(&["chassis-add", chassis, "geneve", encap]);
    }
    world.plug_pods(&ovn);
    ovn
}

#[test]
fn packets_go_where_the_objects_say() {
    let world = World::new();
    let ovn = network(&world);

    let check = |what: &str, from: &str, flow: String, expected: &[&str]| {
        let trace = ovn.trace(from, &flow);
        assert_eq!(ovn::outputs(&trace), expected, "{what}:\n{trace}");
        trace
    };
    // Inside.
    check(
        "pod to pod",
        "a/p1/default",
        packet("p1", "10.244.0.12").tcp(80),
        &["a/p2/default"],
    );
    check(
        "pod to pod, IPv6",
        "a/p1/default",
        packet("p1", "fd00:10:244::12").tcp(80),
        &["a/p2/default"],
    );
    check(
        "pod to another subnet",
        "a/p1/default",
        packet("p1", "10.245.0.13").tcp(80),
        &["a/p3/plain"],
    );
    check(
        "pod to a node",
        "a/p1/default",
        packet("p1", "100.64.0.12").tcp(80),
        &["node/n2"],
    );
    check(
        "node to pod",
        "node/n1",
        packet("n1", "10.244.0.12").tcp(80),
        &["a/p2/default"],
    );
    check(
        "pod to a host behind a DPU",
        "a/p1/default",
        packet("p1", "100.64.0.21").tcp(80),
        &["node/h1"],
    );
    check(
        "host to pod",
        "node/h1",
        packet("h1", "10.244.0.12").tcp(80),
        &["a/p2/default"],
    );
    check(
        "host to VIP",
        "node/h1",
        packet("h1", "10.96.0.10").tcp(80),
        &["a/p2/default"],
    );
    // Services.
    check(
        "pod to VIP",
        "a/p1/default",
        packet("p1", "10.96.0.10").tcp(80),
        &["a/p2/default"],
    );
    check(
        "pod to VIP, IPv6",
        "a/p1/default",
        packet("p1", "fd00:10:96::a").tcp(80),
        &["a/p2/default"],
    );
    check(
        "node to VIP",
        "node/n1",
        packet("n1", "10.96.0.10").tcp(80),
        &["a/p2/default"],
    );
    let trace = check(
        "no endpoints",
        "a/p1/default",
        packet("p1", "10.96.0.11").udp(53),
        &["a/p1/default"],
    );
    assert!(trace.contains("icmp4"), "{trace}");
    let trace = check(
        "no endpoints, IPv6",
        "a/p1/default",
        packet("p1", "fd00:10:96::b").udp(53),
        &["a/p1/default"],
    );
    assert!(trace.contains("icmp6"), "{trace}");
    // Outside, by a node's ob0. (ovn-trace takes every port as resident; by which node, see below.)
    for outside in ["203.0.113.9", "2001:db8::9"] {
        let trace = ovn.trace("a/p1/default", &packet("p1", outside).tcp(443));
        let by = ovn::outputs(&trace);
        assert!(
            by == ["node/n1"] || by == ["node/n2"],
            "pod to {outside}:\n{trace}"
        );
    }
    // A host's own process asks a Service whose endpoints are no pods: out by a node's ob0.
    for vip in ["10.96.0.13", "fd00:10:96::d"] {
        let trace = ovn.trace("node/h1", &packet("h1", vip).tcp(443));
        let by = ovn::outputs(&trace);
        assert!(by == ["node/n1"] || by == ["node/n2"], "{vip}:\n{trace}");
    }
    // It speaks under its own address. A plain node hands on what comes from outside.
    let forged = |from: &str| packet(from, "10.244.0.12").from("10.245.0.13").tcp(80);
    check("a host as a pod", "node/h1", forged("h1"), &[]);
    check("the outside", "node/n2", forged("n2"), &["a/p2/default"]);
    // A VPC of its own reaches its own pods and nothing else.
    check(
        "inside blue",
        "a/b1/blue",
        packet("b1", "10.250.0.12").tcp(80),
        &["a/b2/blue"],
    );
    for elsewhere in ["10.244.0.11", "10.96.0.10", "203.0.113.9", "100.64.0.11"] {
        check(
            "blue to elsewhere",
            "a/b1/blue",
            packet("b1", elsewhere).tcp(80),
            &[],
        );
    }
    let trace = ovn.trace("a/p1/default", &packet("p1", "10.250.0.11").tcp(80));
    assert!(
        ovn::outputs(&trace).concat().starts_with("node/n"),
        "default to blue:\n{trace}"
    );
}

#[test]
fn northd_makes_the_flows_of_every_protocol() {
    let world = World::new();
    let ovn = network(&world);
    let flows = ovn.sbctl(&["lflow-list"]);
    let has = |parts: &[&str]| {
        let found = flows
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(found, "no flow with {parts:?}");
    };
    has(&[
        "ls_in_lb ",
        "ip4.dst == 10.96.0.12 && sctp.dst == 36412",
        "backends=10.244.0.11:36412,10.244.0.12:36412",
    ]);
    has(&[
        "ls_in_lb_aff_learn",
        "10.96.0.12:36412",
        "proto = sctp",
        "timeout = 65535",
    ]);
    has(&[
        "ls_in_lb ",
        "ip6.dst == fd00:10:96::a && tcp.dst == 80",
        "[fd00:10:244::12]:8080",
    ]);
    for (node, v4, v6) in [
        ("n1", "100.64.0.11", "fd00:100:64::11"),
        ("n2", "100.64.0.12", "fd00:100:64::12"),
    ] {
        let here = format!("is_chassis_resident(\"node/{node}\")");
        has(&[
            "lr_in_policy ",
            "priority=100",
            "ip4.src == {10.244.0.0/16, 10.245.0.0/16, 100.64.0.0/16}",
            &here,
            &format!("reg0 = {v4};"),
        ]);
        has(&[
            "lr_in_policy ",
            "priority=100",
            "ip6.src == {fd00:10:244::/64, fd00:100:64::/64}",
            &here,
            &format!("xxreg0 = {v6};"),
        ]);
    }
    // A host's packets leave with those of its DPU: one chassis, one way.
    assert!(
        !flows.contains("is_chassis_resident(\"node/h1\")"),
        "{flows}"
    );
    has(&[
        "lr_in_policy ",
        "priority=200",
        "ip4.dst == {10.244.0.0/16, 10.245.0.0/16, 100.64.0.0/16}",
    ]);
    let balancers = ovn.sbctl(&["--columns=options", "list", "Load_Balancer"]);
    assert!(
        balancers.contains("hairpin_snat_ip=\"10.96.0.10 fd00:10:96::a\""),
        "{balancers}"
    );

    // Without services, a subnet's traffic stays out of connection tracking.
    let plain = ovn.trace("a/p3/plain", &packet("p3", "10.245.0.14").tcp(80));
    assert_eq!(ovn::outputs(&plain), ["a/p4/plain"], "{plain}");
    assert!(!plain.contains("ct_"), "{plain}");
    let tracked = ovn.trace("a/p1/default", &packet("p1", "10.244.0.12").tcp(80));
    assert!(tracked.contains("ct_"), "{tracked}");
}
