//! The disaster path: what pods and Multus report of addresses. Read with `--rebuild` alone.

use crate::index::PodEntry;
use crate::ipam::Wish;
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

/// What an interface of a running pod is reported to have; none if nothing is reported.
pub(crate) fn wish(pod: &PodEntry, ifname: &str) -> Option<Wish> {
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
            vm: None,
            requests: None,
            reports: Reports {
                pod_ips: ["10.0.0.5".parse().unwrap()].into(),
                network_status: Some(status.into()),
            },
            created: 0,
        };
        assert_eq!(wish(&pod, "eth0").unwrap().ips[0].to_string(), "10.0.0.5");
        let second = wish(&pod, "net1").unwrap();
        assert_eq!(
            (second.ips.len(), second.mac.unwrap().to_string()),
            (2, "02:00:00:00:00:01".into())
        );
        assert_eq!(wish(&pod, "net2"), None);
    }
}
