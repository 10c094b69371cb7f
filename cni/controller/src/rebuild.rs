//! The disaster path: who says what of the addresses that a running pod has. Read with `--rebuild` alone.

use crate::index::PodEntry;
use crate::ipam::Wish;
use crate::published::Published;
use crate::units::pod::Interface;
use api::Mac;
use api::names::PRIMARY_IFNAME;
use serde::Deserialize;
use std::net::IpAddr;

/// An element of the annotation network-status (Network Plumbing Working Group, section 5).
#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    interface: Option<String>,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
}

/// Whose word it is. Who comes first wins, where two say that they have the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// kubelet's and Multus's, in the API server.
    Api,
    /// The pod's node's, for what the API server does not know.
    Node,
    /// The pod's own request, if it makes one. Made at creation, it was granted or refused; but annotations can be
    /// changed later.
    Request,
}

/// What an interface has, or wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) source: Source,
    pub(crate) wish: Wish,
}

/// The claim of an interface of a running pod.
pub(crate) fn claim(pod: &PodEntry, interface: &Interface, published: &Published) -> Claim {
    let asked = &interface.wish;
    if let Some(reported) = reported(pod, &interface.ifname) {
        // kubelet reports no MAC address.
        let mac = reported.mac.or(asked.mac);
        return Claim {
            source: Source::Api,
            wish: Wish { mac, ..reported },
        };
    }
    if let Some(port) = published.port(&pod.uid, &interface.ifname) {
        return Claim {
            source: Source::Node,
            wish: Wish {
                ips: port.ips.clone(),
                mac: Some(port.mac),
            },
        };
    }
    Claim {
        source: Source::Request,
        wish: asked.clone(),
    }
}

impl Claim {
    /// Who says so, for the sentence that says that it cannot be; none: nobody but the pod's request.
    pub(crate) fn says(&self, pod: &PodEntry, ifname: &str) -> Option<String> {
        let who = match self.source {
            Source::Api => "the pod's status".to_owned(),
            Source::Node => format!("node {}", pod.node),
            Source::Request => return None,
        };
        let ips: Vec<String> = self.wish.ips.iter().map(ToString::to_string).collect();
        Some(format!(
            "--rebuild: {who} says that {ifname} has {}, which it cannot be given",
            ips.join(" and ")
        ))
    }
}

/// What an interface of a running pod is reported to have; none if nothing is reported.
pub(crate) fn reported(pod: &PodEntry, ifname: &str) -> Option<Wish> {
    let status = pod.reports.network_status.as_deref();
    let statuses: Vec<Status> = status
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let status = statuses
        .iter()
        .find(|status| status.interface.as_deref() == Some(ifname));
    let mut ips: Vec<IpAddr> = if ifname == PRIMARY_IFNAME {
        pod.reports.pod_ips.to_vec()
    } else {
        let reported = status.iter().flat_map(|status| &status.ips);
        reported.filter_map(|ip| ip.parse().ok()).collect()
    };
    ips.sort();
    ips.dedup_by_key(|ip| ip.is_ipv6());
    let mac = status.and_then(|status| status.mac.as_ref());
    let mac = mac
        .and_then(|mac| mac.parse::<Mac>().ok())
        .filter(|mac| mac.is_unicast());
    (!ips.is_empty()).then_some(Wish { ips, mac })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Reports;

    #[test]
    fn addresses_come_from_the_pod_and_from_multus() {
        let status = r#"[{"name":"outboard","interface":"eth0","ips":["10.0.0.5"],"mac":"0a:58:0a:00:00:05","default":true},
            {"name":"ns/storage","interface":"net1","ips":["10.1.0.9","fd00::9"],"mac":"02:00:00:00:00:01"}]"#;
        let pod = PodEntry {
            uid: "u".into(),
            mirror_uid: None,
            node: "n".into(),
            migration: None,
            vm: None,
            requests: None,
            reports: Reports {
                pod_ips: ["10.0.0.5".parse().unwrap()].into(),
                network_status: Some(status.into()),
            },
            created: 0,
        };
        assert_eq!(
            reported(&pod, "eth0").unwrap().ips[0].to_string(),
            "10.0.0.5"
        );
        let second = reported(&pod, "net1").unwrap();
        assert_eq!(
            (second.ips.len(), second.mac.unwrap().to_string()),
            (2, "02:00:00:00:00:01".into())
        );
        assert_eq!(reported(&pod, "net2"), None);
    }

    #[test]
    fn the_api_server_speaks_before_the_node_and_the_node_before_the_request() {
        let interface = |ifname: &str| Interface {
            ifname: ifname.into(),
            subnet: "storage".into(),
            vhost_user: false,
            wish: Wish {
                ips: vec!["10.1.0.7".parse().unwrap()],
                mac: Some(Mac([2, 0, 0, 0, 0, 7])),
            },
        };
        let pod = PodEntry {
            uid: "u".into(),
            mirror_uid: None,
            node: "n".into(),
            migration: None,
            vm: None,
            requests: None,
            reports: Reports {
                pod_ips: ["10.0.0.5".parse().unwrap()].into(),
                network_status: Some(r#"[{"interface":"net1","ips":["10.1.0.9"]}]"#.into()),
            },
            created: 0,
        };
        let port = |text: &str| text.parse().unwrap();
        let published = Published::from([
            ("u", "net1", port("p 02:00:00:00:00:08 10.1.0.8")),
            ("u", "net2", port("p 02:00:00:00:00:08 10.1.0.8")),
        ]);
        let claimed = |ifname: &str| {
            let claim = claim(&pod, &interface(ifname), &published);
            let mac = claim.wish.mac.unwrap().to_string();
            (claim.source, claim.wish.ips[0].to_string(), mac)
        };
        let is =
            |source, ip: &str, last: u8| (source, ip.to_owned(), format!("02:00:00:00:00:0{last}"));
        assert_eq!(claimed("eth0"), is(Source::Api, "10.0.0.5", 7));
        assert_eq!(claimed("net1"), is(Source::Api, "10.1.0.9", 7));
        assert_eq!(claimed("net2"), is(Source::Node, "10.1.0.8", 8));
        assert_eq!(claimed("net3"), is(Source::Request, "10.1.0.7", 7));
    }
}
