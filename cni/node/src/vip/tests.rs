//! The rules in a real kernel, with real connections.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::path::Path;

use super::*;
use crate::gateway::tests::node_port;
use crate::gateway::tests::sandbox::{ask, sandboxed, serve, sh, uplink};
use crate::netns::Netns;

/// `ob0` leads to namespace `pods`, where the join gateway and a pod are.
fn ob0() {
    sh("ip netns add pods
        ip link add ob0 type veth peer name eth0 netns pods
        ip addr add 100.64.0.2/16 dev ob0
        ip addr add fd98::2/64 dev ob0 nodad
        ip link set ob0 up
        ip route add 10.96.0.0/16 via 100.64.0.1
        ip route add 10.244.0.0/16 via 100.64.0.1
        ip -6 route add fd01::/112 via fd98::1
        ip -n pods link set lo up
        ip -n pods link set eth0 up
        ip -n pods addr add 100.64.0.1/16 dev eth0
        ip -n pods addr add fd98::1/64 dev eth0 nodad
        ip -n pods addr add 10.244.0.5/32 dev eth0");
}

async fn apply(table: &mut Table, vips: &[(&str, &str)], options: &[(&str, &str)]) -> bool {
    let text = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let port = node_port();
    let inside = inside(&port);
    let (vips, options) = (text(vips), text(options));
    let row = LoadBalancer {
        protocol: None,
        vips: &vips,
        options: &options,
    };
    let addresses: Vec<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
    let services = service::served([row].into_iter(), &inside);
    table
        .converge(&ruleset::ruleset(&services, &addresses))
        .await
        .unwrap()
}

#[test]
fn host_processes_reach_endpoints_on_nodes() {
    sandboxed(
        "vip::tests::host_processes_reach_endpoints_on_nodes",
        async {
            uplink();
            ob0();
            serve("outside", "198.18.0.2:6443").await;
            serve("outside", "[fd12::2]:6443").await;
            serve("", "198.18.0.1:6443").await;
            serve("pods", "10.244.0.5:6443").await;
            let mut table = Table::new(TABLE);
            let vips = [
                ("10.96.0.1:443", "198.18.0.2:6443"),
                ("10.96.0.2:443", "198.18.0.1:6443"),
                (
                    "10.96.0.3:443",
                    "198.18.0.1:6443,198.18.0.2:6443,10.244.0.5:6443",
                ),
                ("[fd01::1]:443", "[fd12::2]:6443"),
                ("10.96.0.4:443", "10.244.0.5:6443"),
            ];
            assert!(apply(&mut table, &vips, &[]).await);
            assert!(
                !apply(&mut table, &vips, &[]).await,
                "equal rules are not written again"
            );

            let said = |text: &str| Ok(text.to_owned());
            assert_eq!(
                ask("", "10.96.0.1:443").await,
                said("198.18.0.2:6443 198.18.0.1")
            );
            assert_eq!(
                ask("", "10.96.0.2:443").await,
                said("198.18.0.1:6443 100.64.0.2")
            );
            assert_eq!(
                ask("", "[fd01::1]:443").await,
                said("[fd12::2]:6443 fd12::1")
            );
            let mut seen = BTreeSet::new();
            for _ in 0..60 {
                seen.insert(ask("", "10.96.0.3:443").await.unwrap());
            }
            let all = [
                "10.244.0.5:6443 100.64.0.2",
                "198.18.0.1:6443 100.64.0.2",
                "198.18.0.2:6443 198.18.0.1",
            ];
            assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
            let refused = ask("", "10.96.0.4:443").await;
            assert!(
                refused.is_err(),
                "a VIP of pods alone is left to OVN: {refused:?}"
            );

            assert!(apply(&mut table, &vips, &[("affinity_timeout", "10800")]).await);
            let first = ask("", "10.96.0.3:443").await.unwrap();
            for _ in 0..10 {
                assert_eq!(ask("", "10.96.0.3:443").await.unwrap(), first);
            }

            table.verify().await;
            assert!(!apply(&mut table, &vips, &[("affinity_timeout", "10800")]).await);
            sh("nft flush chain inet outboard-vip output");
            table.verify().await;
            assert!(
                apply(&mut table, &vips, &[("affinity_timeout", "10800")]).await,
                "put back"
            );
            assert_eq!(
                ask("", "10.96.0.1:443").await,
                said("198.18.0.2:6443 198.18.0.1")
            );

            assert!(apply(&mut table, &[], &[]).await);
            assert!(!sh("nft list table inet outboard-vip").contains("10.96"));
        },
    );
}

#[test]
fn udp_and_sctp_rules_are_accepted_in_both_families() {
    sandboxed(
        "vip::tests::udp_and_sctp_rules_are_accepted_in_both_families",
        async {
            let mut table = Table::new(TABLE);
            for protocol in ["udp", "sctp"] {
                let vips = BTreeMap::from([
                    (
                        "10.96.0.9:53".to_owned(),
                        "198.18.0.2:53,198.18.0.3:53".to_owned(),
                    ),
                    (
                        "[fd01::9]:53".to_owned(),
                        "[fd12::2]:53,[fd12::3]:53".to_owned(),
                    ),
                ]);
                let options = BTreeMap::from([("affinity_timeout".to_owned(), "1".to_owned())]);
                for options in [&BTreeMap::new(), &options] {
                    let row = LoadBalancer {
                        protocol: Some(protocol),
                        vips: &vips,
                        options,
                    };
                    let services = service::served([row].into_iter(), &[]);
                    assert_eq!(services.len(), 2);
                    table
                        .converge(&ruleset::ruleset(&services, &[]))
                        .await
                        .unwrap();
                }
            }
        },
    );
}

/// A UDP server in namespace `outside` that answers everything with its own address.
async fn serve_udp(address: &'static str) {
    let socket = Netns::of_pod(Path::new("/run/netns/outside"))
        .unwrap()
        .run(move || UdpSocket::bind(address).unwrap())
        .await
        .unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        loop {
            let (_, client) = socket.recv_from(&mut buffer).unwrap();
            // A client that has gone has its answer in the assertion.
            let _ = socket.send_to(address.as_bytes(), client);
        }
    });
}

/// A client that keeps its socket, as a resolver does.
struct Client(UdpSocket);

impl Client {
    fn of(address: &str) -> Self {
        let any = if address.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(address).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        Self(socket)
    }

    /// Who answers now.
    fn ask(&self) -> String {
        self.0.send(b"?").unwrap();
        let mut buffer = [0; 64];
        let length = self.0.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }
}

fn udp(vips: &[(&str, &str)]) -> Served {
    let vips: BTreeMap<String, String> = vips
        .iter()
        .map(|(vip, to)| ((*vip).to_owned(), (*to).to_owned()))
        .collect();
    let row = LoadBalancer {
        protocol: Some("udp"),
        vips: &vips,
        options: &BTreeMap::new(),
    };
    Served::new([row].into_iter(), &["10.244.0.0/16".parse().unwrap()])
}

#[test]
fn a_udp_client_leaves_an_endpoint_that_went_away() {
    sandboxed(
        "vip::tests::a_udp_client_leaves_an_endpoint_that_went_away",
        async {
            uplink();
            ob0();
            sh("ip -n outside addr add 198.18.0.3/24 dev eth0
                ip -n outside addr add fd12::3/64 dev eth0 nodad");
            for server in [
                "198.18.0.2:53",
                "198.18.0.3:53",
                "[fd12::2]:53",
                "[fd12::3]:53",
            ] {
                serve_udp(server).await;
            }
            let addresses: Vec<IpAddr> = node_port().addresses.iter().map(IpNet::addr).collect();
            let mut vips = Vips::new();
            let before = udp(&[
                ("10.96.0.8:53", "198.18.0.2:53"),
                ("10.96.0.9:53", "198.18.0.2:53"),
                ("[fd01::9]:53", "[fd12::2]:53"),
            ]);
            assert_eq!(vips.serve(&before, &addresses).await.unwrap(), 0);
            let [other, v4, v6, direct] = [
                "10.96.0.8:53",
                "10.96.0.9:53",
                "[fd01::9]:53",
                "198.18.0.2:53",
            ]
            .map(Client::of);
            let answers = || [&other, &v4, &v6, &direct].map(Client::ask);
            let first = [
                "198.18.0.2:53",
                "198.18.0.2:53",
                "[fd12::2]:53",
                "198.18.0.2:53",
            ];
            assert_eq!(answers(), first);

            // Endpoints change: two flows are astray, the others are left alone.
            let after = udp(&[
                ("10.96.0.8:53", "198.18.0.2:53"),
                ("10.96.0.9:53", "198.18.0.3:53"),
                ("[fd01::9]:53", "[fd12::3]:53"),
            ]);
            let rules = ruleset::ruleset(&after.here, &addresses);
            assert!(vips.table.converge(&rules).await.unwrap());
            assert_eq!(answers(), first, "rules alone do not reach known flows");
            assert_eq!(vips.serve(&after, &addresses).await.unwrap(), 2);
            let second = [
                "198.18.0.2:53",
                "198.18.0.3:53",
                "[fd12::3]:53",
                "198.18.0.2:53",
            ];
            assert_eq!(answers(), second);
            assert_eq!(vips.serve(&after, &addresses).await.unwrap(), 0);

            // After a restart nothing is known of before; what is in the kernel says enough.
            let mut vips = Vips::new();
            let meanwhile = udp(&[
                ("10.96.0.8:53", "198.18.0.3:53"),
                ("10.96.0.9:53", "198.18.0.3:53,198.18.0.2:53"),
                ("[fd01::9]:53", "[fd12::3]:53"),
            ]);
            assert_eq!(vips.serve(&meanwhile, &addresses).await.unwrap(), 1);
            assert_eq!(other.ask(), "198.18.0.3:53");
            assert_eq!(v4.ask(), "198.18.0.3:53", "still an endpoint");

            // One is OVN's now, one is deleted: nobody is sent to their former endpoints.
            let rest = udp(&[
                ("10.96.0.8:53", "10.244.0.5:53"),
                ("[fd01::9]:53", "[fd12::3]:53"),
            ]);
            assert_eq!(vips.serve(&rest, &addresses).await.unwrap(), 2);
            assert_eq!(v6.ask(), "[fd12::3]:53");
        },
    );
}
