//! A VM asks for its address, and OVN answers with what was allocated. A pod is not answered.

use crate::ovn::Ovn;
use crate::world::World;
use api::Mac;
use cni_controller::index::PodEntry;
use cni_controller::ipam::{Assigned, Port};
use cni_controller::rows::DesiredRow;
use cni_controller::units::pod;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 0x77]);

/// The port of an interface `net1` in the default subnet, of a launcher's pod or of one that is like it but for its owner.
fn port(world: &World, name: &str, host: u8, vm: bool) -> DesiredRow {
    let owner = json!([{
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "name": name, "uid": "v", "controller": true,
    }]);
    let object = json!({
        "metadata": {
            "name": format!("virt-launcher-{name}"), "namespace": "a", "uid": name,
            "ownerReferences": if vm { owner } else { json!([]) },
        },
        "spec": {"nodeName": "n1", "containers": []},
    });
    let object: Pod = serde_json::from_value(object).unwrap();
    let entry = PodEntry::from_pod(&object, false).unwrap();
    assert_eq!(entry.vm.is_some(), vm);
    let port = Port {
        ifname: "net1".into(),
        lsp: format!("a/{name}/default/net1").into(),
        uid: name.into(),
        subnet: "default".into(),
        assigned: Assigned {
            mac: MAC,
            ips: vec![
                format!("10.244.0.{host}").parse().unwrap(),
                format!("fd00:10:244::{host}").parse().unwrap(),
            ],
        },
    };
    pod::row(&world.index, ("a", name), &entry, &port, None)
}

#[test]
fn a_vm_is_answered_by_dhcp_and_a_pod_is_not() {
    let world = World::new();
    let ovn = Ovn::start();
    let mut rows = world.rows();
    rows.push(port(&world, "vm", 77, true));
    rows.push(port(&world, "like", 78, false));
    ovn.write(&rows);
    ovn.sbctl(&["chassis-add", "n1", "geneve", "198.18.9.1"]);
    for name in ["vm", "like"] {
        ovn.sbctl(&["lsp-bind", &format!("a/{name}/default/net1"), "n1"]);
    }

    let discover = format!(
        "eth.src == {MAC} && eth.dst == ff:ff:ff:ff:ff:ff && ip4.src == 0.0.0.0 && ip4.dst == 255.255.255.255 \
         && udp.src == 68 && udp.dst == 67"
    );
    let solicit = format!(
        "eth.src == {MAC} && eth.dst == 33:33:00:01:00:02 && ip6.src == fe80::ff:fe00:77 && ip6.dst == ff02::1:2 \
         && ip.ttl == 1 && udp.src == 546 && udp.dst == 547"
    );
    for (flow, answered) in [(&discover, "put_dhcp_opts"), (&solicit, "put_dhcpv6_opts")] {
        let trace = ovn.trace("a/vm/default/net1", flow);
        assert!(trace.contains(answered), "{trace}");
        let trace = ovn.trace("a/like/default/net1", flow);
        assert!(!trace.contains(answered), "{trace}");
    }
    // What it is told is what was allocated, and the way out.
    let flows = ovn.sbctl(&["lflow-list"]);
    let offer = flows
        .lines()
        .find(|line| line.contains("put_dhcp_opts(offerip = 10.244.0.77"))
        .unwrap_or_else(|| panic!("no offer:\n{flows}"));
    for option in [
        "router = 10.244.0.1",
        "server_id = 10.244.0.1",
        "netmask = 255.255.0.0",
    ] {
        assert!(offer.contains(option), "{offer}");
    }
    assert!(
        flows.contains("put_dhcpv6_opts(ia_addr = fd00:10:244::77"),
        "{flows}"
    );
    // The router says that addresses come by DHCPv6, and that it is the way out.
    let advertised =
        |line: &str| line.contains("put_nd_ra_opts") && line.contains("dhcpv6_stateful");
    assert!(flows.lines().any(advertised), "{flows}");
}
