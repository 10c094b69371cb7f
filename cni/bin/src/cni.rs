//! The CNI specification's documents: what is decoded from a configuration and rendered into a result.
//!
//! Versions 0.3.0, 0.3.1, 0.4.0, 1.0.0 and 1.1.0. The older `ip4`/`ip6` results (0.1.0, 0.2.0) are refused.

use serde_json::value::RawValue;

pub use rscni_types::ipnet;
pub use rscni_types::types::{
    CNI_ARGS, CNI_COMMAND, CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS, CNI_PATH, CNIResult,
    ContainerId, Dns, GcAttachment, Interface, InterfaceName, IpConfig, Ipam, NetConf, NetConfList,
    Route, RuntimeConf,
};
pub use rscni_types::version::{PluginInfo, SpecVersion};

/// The versions that `outboard` speaks, oldest first.
pub const SUPPORTED: [SpecVersion; 5] = [
    SpecVersion::new(0, 3, 0),
    SpecVersion::new(0, 3, 1),
    SpecVersion::new(0, 4, 0),
    SpecVersion::new(1, 0, 0),
    SpecVersion::new(1, 1, 0),
];

/// The document that a successful ADD prints, in the layout of `version`.
///
/// Up to 0.4.0 every address says its family and interfaces have neither `mtu`, `socketPath` nor `pciID`; before 1.1.0
/// routes carry no `mtu`, `advmss`, `priority`, `table` or `scope`. What a layout does not know is dropped, as the
/// reference library does, because a strict runtime of that age would refuse it.
///
/// # Errors
///
/// Only if the result can't be written as JSON, which the types exclude.
pub fn render(version: SpecVersion, result: &CNIResult) -> serde_json::Result<Box<RawValue>> {
    let mut result = result.clone();
    if version < SpecVersion::new(1, 1, 0) {
        for interface in &mut result.interfaces {
            interface.mtu = None;
            interface.socket_path = None;
            interface.pci_id = None;
        }
        for route in &mut result.routes {
            (route.mtu, route.advmss, route.priority) = (None, None, None);
            (route.table, route.scope) = (None, None);
        }
    }
    if version.is_legacy() {
        serde_json::value::to_raw_value(&rscni_types::legacy::CNIResult::new(version, result))
    } else {
        serde_json::value::to_raw_value(&rscni_types::types::CNIResultWithVersion::new(
            version, result,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn full() -> CNIResult {
        serde_json::from_value(json!({
            "interfaces": [{"name": "eth0", "mac": "0a:58:0a:f4:00:05", "mtu": 1400, "sandbox": "/run/netns/a",
                            "socketPath": "/run/v.sock", "pciID": "0000:00:1f.6"}],
            "ips": [{"interface": 0, "address": "10.244.0.5/16", "gateway": "10.244.0.1"},
                    {"interface": 0, "address": "fd00:10:244::5/64"}],
            "routes": [{"dst": "0.0.0.0/0", "gw": "10.244.0.1", "mtu": 1400, "priority": 5, "table": 7, "scope": 1, "advmss": 1360}],
        }))
        .unwrap()
    }

    #[rstest]
    #[case("0.3.0", true, false)]
    #[case("0.3.1", true, false)]
    #[case("0.4.0", true, false)]
    #[case("1.0.0", false, false)]
    #[case("1.1.0", false, true)]
    fn a_result_has_the_fields_of_its_version(
        #[case] version: &str,
        #[case] family: bool,
        #[case] news: bool,
    ) {
        let raw = render(version.parse().unwrap(), &full()).unwrap();
        let doc: Value = serde_json::from_str(raw.get()).unwrap();
        assert_eq!(doc["cniVersion"], version);
        let expected = if family { json!("4") } else { Value::Null };
        assert_eq!(doc["ips"][0]["version"], expected);
        for field in ["mtu", "socketPath", "pciID"] {
            assert_eq!(doc["interfaces"][0].get(field).is_some(), news, "{field}");
        }
        for field in ["mtu", "advmss", "priority", "table", "scope"] {
            assert_eq!(doc["routes"][0].get(field).is_some(), news, "{field}");
        }
        assert_eq!(doc["interfaces"][0]["sandbox"], "/run/netns/a");
        assert_eq!(doc["ips"][1]["address"], "fd00:10:244::5/64");
    }
}
