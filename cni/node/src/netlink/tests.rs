use std::os::fd::AsRawFd;

use api::Mac;
use ipnet::IpNet;

use super::*;
use crate::testing::TestNetns;

const MAC: Mac = Mac([0x0a, 0x58, 0x0a, 0xf4, 0, 5]);

fn pair(pod: &crate::netns::Netns) -> Change {
    Change::AddVeth(Veth {
        name: "ob0123456789abc".into(),
        mtu: 1342,
        queue: 1000,
        peer: "eth0".into(),
        up: true,
        peer_mac: Some(MAC),
        peer_netns: pod.fd().as_raw_fd(),
    })
}

#[tokio::test]
async fn a_pair_is_made_across_namespaces_and_configured_in_two_calls() {
    let (pod, host) = (TestNetns::new(), TestNetns::new());
    let far = pod.open();
    let outside = host.open().run(Netlink::open).await.unwrap().unwrap();
    let v4: IpNet = "10.244.0.5/16".parse().unwrap();
    let v6: IpNet = "fd00:10:244::5/64".parse().unwrap();
    let (link, addresses, routes) = pod
        .open()
        .run(move || {
            let (mut outside, mut netlink) = (outside, Netlink::open().unwrap());
            outside.apply(&[pair(&far)]).unwrap();
            let near = outside.link("ob0123456789abc").unwrap().unwrap();
            assert!(near.up && near.veth, "{near:?}");
            let link = netlink.link("eth0").unwrap().unwrap().index;
            let route = |dst: &str, via: &str| Route {
                dst: dst.parse().unwrap(),
                via: Some(via.parse().unwrap()),
                link,
                source: None,
                onlink: false,
            };
            let changes = [
                Change::AddAddress { link, address: v4 },
                Change::AddAddress { link, address: v6 },
                Change::SetUp { link },
                Change::AddRoute(route("0.0.0.0/0", "10.244.0.1")),
                Change::AddRoute(route("::/0", "fd00:10:244::1")),
                Change::AddRoute(route("10.96.0.0/16", "10.244.0.1")),
            ];
            netlink.apply(&changes).unwrap();
            // What is there already is fine where the wanted state holds.
            netlink
                .apply(&[Change::AddAddress { link, address: v4 }])
                .unwrap();
            netlink
                .apply(&[Change::DeleteLink {
                    name: "absent".into(),
                }])
                .unwrap();
            let link = netlink.link("eth0").unwrap().unwrap();
            let routes = netlink.routes(link.index).unwrap();
            (link.clone(), netlink.addresses(link.index).unwrap(), routes)
        })
        .await
        .unwrap();
    assert_eq!(
        (link.mac, link.mtu, link.up, link.veth),
        (Some(MAC), 1342, true, true)
    );
    assert!(
        addresses.contains(&v4) && addresses.contains(&v6),
        "{addresses:?}"
    );
    let shown = pod.run(&["ip", "-6", "address"]);
    let ours = shown.lines().find(|line| line.contains("fd00:10:244::5"));
    assert!(
        ours.is_some_and(|line| !line.contains("tentative")),
        "no duplicate address detection: {shown}"
    );
    for (dst, via) in [
        ("0.0.0.0/0", "10.244.0.1"),
        ("::/0", "fd00:10:244::1"),
        ("10.96.0.0/16", "10.244.0.1"),
    ] {
        let found = routes
            .iter()
            .find(|route| route.dst.to_string() == dst)
            .unwrap();
        assert_eq!(found.via.unwrap().to_string(), via);
    }
    let far = host.run(&["ip", "link", "show", "ob0123456789abc"]);
    assert!(
        far.contains("mtu 1342") && far.contains("qlen 1000"),
        "{far}"
    );
}

#[tokio::test]
async fn what_the_kernel_refuses_is_named_and_the_first_counts() {
    let (pod, host) = (TestNetns::new(), TestNetns::new());
    let far = pod.open();
    let (again, bad) = host
        .open()
        .run(move || {
            let mut netlink = Netlink::open().unwrap();
            netlink.apply(&[pair(&far)]).unwrap();
            let again = netlink.apply(&[pair(&far)]).unwrap_err();
            let address = |link| Change::AddAddress {
                link,
                address: "10.0.0.1/24".parse().unwrap(),
            };
            let bad = netlink
                .apply(&[address(4000), Change::SetUp { link: 4001 }])
                .unwrap_err();
            (again, bad)
        })
        .await
        .unwrap();
    assert_eq!(again.source.kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(again.change, "create veth pair ob0123456789abc/eth0");
    assert_eq!(bad.change, "add address 10.0.0.1/24 to link 4000");
}

#[tokio::test]
async fn checksum_offload_is_turned_off() {
    let (pod, host) = (TestNetns::new(), TestNetns::new());
    let far = pod.open();
    let outside = host.open().run(Netlink::open).await.unwrap().unwrap();
    let absent = pod
        .open()
        .run(move || {
            let mut outside = outside;
            outside.apply(&[pair(&far)]).unwrap();
            transmit_checksum_off("eth0").unwrap();
            transmit_checksum_off("eth0").unwrap();
            transmit_checksum_off("absent").unwrap_err()
        })
        .await
        .unwrap();
    let features = pod.run(&["ethtool", "-k", "eth0"]);
    assert!(features.contains("tx-checksumming: off"), "{features}");
    assert_eq!(absent.raw_os_error(), Some(nix::libc::ENODEV));
    assert!(
        host.run(&["ethtool", "-k", "ob0123456789abc"])
            .contains("tx-checksumming: on")
    );
}
