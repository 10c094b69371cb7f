//! What an attachment is for: packets, both families, both nodes, up to the MTU.

use std::time::Duration;

use e2e::{PodSpec, until};
use serde_json::json;

use crate::world::{Pod, fresh, world};

#[test]
fn pods_on_two_nodes_talk_up_to_the_mtu() {
    let lab = world();
    let (n1, n2) = (lab.node("n1"), lab.node("n2"));
    let (a, b) = (Pod::new(&lab, n1, "talk"), Pod::new(&lab, n2, "talk"));
    let c = Pod::new(&lab, n1, "talk");
    for pod in [&a, &b, &c] {
        pod.add("1.1.0");
    }
    for (from, to) in [(&a, &b), (&b, &a), (&a, &c)] {
        from.reaches(&to.row.v4());
        from.reaches(&to.row.v6());
    }
    // 1442 bytes: 28 of IPv4 and ICMP, 48 of IPv6 and ICMPv6.
    let ping = |size: &str, to: &str| {
        a.sandbox
            .exec(&["ping", "-n", "-c1", "-W2", "-M", "do", "-s", size, to])
    };
    ping("1414", &b.row.v4()).unwrap();
    ping("1394", &b.row.v6()).unwrap();
    let too_long = format!("{:#}", ping("1415", &b.row.v4()).unwrap_err());
    assert!(too_long.contains("mtu=1442"), "{too_long}");

    // TCP needs right checksums, which nobody computes for a veth unless told.
    let server = [
        "nsenter",
        &format!("--net={}", b.sandbox.path()),
        "busybox",
        "httpd",
        "-f",
        "-p",
        "[::]:80",
        "-h",
        "/etc/openvswitch",
    ];
    let server = n2.start(&fresh("httpd"), &server).unwrap();
    for url in [
        format!("http://{}/conf.db", b.row.v4()),
        format!("http://[{}]/conf.db", b.row.v6()),
    ] {
        let fetch = || {
            let bytes = a
                .sandbox
                .exec(&["sh", "-c", &format!("curl -sSf -m5 {url} | wc -c")])?;
            Ok((bytes.parse::<u64>()? > 10_000).then_some(()))
        };
        until(
            &format!("{url} from the other node"),
            Duration::from_secs(15),
            fetch,
        )
        .unwrap();
    }
    server.kill9().unwrap();
    for pod in [&a, &b, &c] {
        pod.del("1.1.0");
        pod.left_nothing();
    }
}

#[test]
fn the_smallest_mtu_wins() {
    let lab = world();
    let node = lab.node("n2");
    // What the subnet says, what the network's configuration says, what comes out (the underlay leaves 1442).
    for (subnet, conf, mtu) in [
        (Some(1300), None, 1300),
        (None, Some(1350), 1350),
        (Some(1300), Some(1350), 1300),
        (Some(9000), Some(8000), 1442),
        (None, Some(0), 1442),
    ] {
        let spec = PodSpec {
            mtu: subnet,
            ..PodSpec::new(&fresh("mtu"), "n2")
        };
        let pod = Pod::of(&lab, node, &spec);
        let result = pod
            .run("ADD", "1.1.0", &json!({"mtu": conf}))
            .result()
            .unwrap();
        assert_eq!(result["interfaces"][1]["mtu"], mtu, "{subnet:?} {conf:?}");
        assert_eq!(
            pod.sandbox.ip(&["link", "show", "dev", "eth0"]).unwrap()[0]["mtu"],
            mtu
        );
        pod.del("1.1.0");
    }
}

#[test]
fn one_family_is_enough() {
    let lab = world();
    let node = lab.node("n1");
    for v4 in [true, false] {
        let mut pod = Pod::unwritten(&lab, node, &PodSpec::new(&fresh("family"), "n1"));
        let facts = &mut pod.row.facts;
        facts.ips.retain(|ip| ip.addr().is_ipv4() == v4);
        facts.gateways.retain(|gateway| gateway.is_ipv4() == v4);
        facts.routes.retain(|route| route.via.is_ipv4() == v4);
        lab.network.write(std::slice::from_ref(&pod.row)).unwrap();
        let result = pod.add("1.1.0");
        assert_eq!(result["ips"].as_array().unwrap().len(), 1, "{result}");
        pod.reaches(if v4 { "10.244.0.1" } else { "fd00:10:244::1" });
        pod.check("1.1.0", &result).result().unwrap();
        pod.del("1.1.0");
        pod.left_nothing();
    }
}
