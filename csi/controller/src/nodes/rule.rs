//! What a CSINode and a Node say, and the set that follows from all of them. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use api::storage;
use k8s_openapi::api::core::v1::Node as NodeObject;
use k8s_openapi::api::storage::v1::CSINode;

use super::{Address, Node, Set};

/// Kubernetes' own: the node is dead or given up, and its volumes may be taken from under it.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is the same for all nodes.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    /// The driver's name in CSINodes.
    pub(crate) driver: String,
    /// Where every csi-node-dpu listens.
    pub(crate) port: u16,
    /// Where cards put their files; `{node}` is the node's name.
    pub(crate) exports: String,
}

/// What a CSINode says of our driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    /// As what csi-node-host registered.
    id: String,
    /// Volumes at most.
    limit: Option<usize>,
}

/// What a Node says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its first InternalIP, of whichever family.
    address: Option<IpAddr>,
    out_of_service: bool,
}

impl Registration {
    /// `None`: the driver is not registered there.
    pub(crate) fn of(object: &CSINode, rule: &Rule) -> Option<Self> {
        let mut drivers = object.spec.drivers.iter();
        let driver = drivers.find(|driver| driver.name == rule.driver)?;
        let count = driver.allocatable.as_ref().and_then(|most| most.count);
        Some(Self {
            id: driver.node_id.clone(),
            // As in NodeGetInfo, 0 is no limit.
            limit: count
                .and_then(|count| usize::try_from(count).ok())
                .filter(|count| *count > 0),
        })
    }
}

impl Machine {
    pub(crate) fn of(object: &NodeObject) -> Self {
        let addresses = object
            .status
            .as_ref()
            .and_then(|status| status.addresses.as_deref());
        let mut internal = addresses
            .unwrap_or_default()
            .iter()
            .filter(|address| address.type_ == "InternalIP");
        let taints = object.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        Self {
            address: internal.find_map(|address| address.address.parse().ok()),
            out_of_service: taints
                .unwrap_or_default()
                .iter()
                .any(|taint| taint.key == OUT_OF_SERVICE),
        }
    }
}

/// The nodes, each by its name. A Node that is gone has none: what it had is cut off at the target. One whose CSINode does
/// not list the driver is there all the same, for that is so for a moment whenever csi-node-host is replaced, and volumes
/// that are there then have to be taken away in good order.
pub(crate) fn set(
    registrations: &BTreeMap<String, Registration>,
    machines: &BTreeMap<String, Machine>,
    rule: &Rule,
) -> Set {
    let node = |(name, machine): (&String, &Machine)| {
        let registration = registrations.get(name);
        let node = Node {
            id: name.clone(),
            address: machine.address.map_or(Address::Unknown, |ip| Address::Tls {
                uri: format!("https://{}", SocketAddr::from((ip, rule.port))),
                name: Some(name.clone()),
            }),
            dn: Some(storage::distinguished_name(name)),
            engine: Some(name.clone()),
            exports: rule.exports.replace("{node}", name).into(),
            limit: registration.and_then(|one| one.limit),
            out_of_service: machine.out_of_service,
            refusal: refusal(name, registration, machine, rule),
        };
        (name.clone(), node)
    };
    machines.iter().map(node).collect()
}

fn refusal(
    name: &str,
    registration: Option<&Registration>,
    machine: &Machine,
    rule: &Rule,
) -> Option<String> {
    match registration {
        None => Some(format!(
            "its CSINode does not list {}: see whether csi-node-host runs there and has registered with kubelet",
            rule.driver
        )),
        // A node says by itself as what it registers: it must not be taken for another one.
        Some(there) if there.id != name => Some(format!(
            "csi-node-host registered there as {:?}; start it with the Node's name as --node-name",
            there.id
        )),
        Some(_) if machine.address.is_none() => Some(
            "its Node has no address of type InternalIP, where csi-node-dpu is reached; see kubelet's --node-ip"
                .to_owned(),
        ),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    const DRIVER: &str = "csi.iaas.yusur.io";

    fn csi_node(drivers: &Value) -> CSINode {
        serde_json::from_value(json!({"metadata": {"name": "n1"}, "spec": {"drivers": drivers}}))
            .unwrap()
    }

    fn node(addresses: &[(&str, &str)], taints: &[&str]) -> NodeObject {
        let addresses: Vec<_> = addresses
            .iter()
            .map(|(kind, address)| json!({"type": kind, "address": address}))
            .collect();
        let taints: Vec<_> = taints
            .iter()
            .map(|key| json!({"key": key, "effect": "NoExecute"}))
            .collect();
        serde_json::from_value(json!({
            "metadata": {"name": "n1"}, "spec": {"taints": taints}, "status": {"addresses": addresses},
        }))
        .unwrap()
    }

    fn of(csi_node: Option<CSINode>, node: Option<NodeObject>) -> Set {
        let rule = Rule {
            driver: DRIVER.into(),
            port: 9483,
            exports: "/exports/lab-{node}".into(),
        };
        let name = || "n1".to_owned();
        let registrations = csi_node
            .and_then(|object| Some((name(), Registration::of(&object, &rule)?)))
            .into_iter()
            .collect();
        let machines = node
            .map(|object| (name(), Machine::of(&object)))
            .into_iter()
            .collect();
        set(&registrations, &machines, &rule)
    }

    fn registered() -> Option<CSINode> {
        Some(csi_node(&json!([
            {"name": "other.example", "nodeID": "x", "topologyKeys": null},
            {"name": DRIVER, "nodeID": "n1", "topologyKeys": [], "allocatable": {"count": 7}},
        ])))
    }

    #[test]
    fn a_node_is_what_its_two_objects_say() {
        let addresses = [
            ("Hostname", "n1"),
            ("InternalIP", "198.18.0.1"),
            ("InternalIP", "fd00::1"),
        ];
        let set = of(registered(), Some(node(&addresses, &["other"])));
        let expected = Node {
            id: "n1".into(),
            address: Address::Tls {
                uri: "https://198.18.0.1:9483".into(),
                name: Some("n1".into()),
            },
            dn: Some("O=storage.iaas.yusur.io,CN=n1".into()),
            engine: Some("n1".into()),
            exports: "/exports/lab-n1".into(),
            limit: Some(7),
            out_of_service: false,
            refusal: None,
        };
        assert_eq!(set["n1"], expected);
    }

    #[rstest]
    #[case::ipv6(&[("InternalIP", "fd00::1")], "https://[fd00::1]:9483")]
    #[case::not_the_external_one(&[("ExternalIP", "203.0.113.1"), ("InternalIP", "10.0.0.1")], "https://10.0.0.1:9483")]
    fn it_is_called_at_its_internal_address(
        #[case] addresses: &[(&str, &str)],
        #[case] expected: &str,
    ) {
        let set = of(registered(), Some(node(addresses, &[])));
        let Address::Tls { uri, .. } = &set["n1"].address else {
            panic!("{set:?}")
        };
        assert_eq!(uri, expected);
    }

    #[rstest]
    #[case::no_driver(Some(csi_node(&json!([]))), "does not list csi.iaas.yusur.io")]
    #[case::no_csi_node(None, "does not list csi.iaas.yusur.io")]
    #[case::as_another(
        Some(csi_node(&json!([{"name": DRIVER, "nodeID": "n2", "topologyKeys": []}]))),
        "registered there as \"n2\""
    )]
    fn without_a_registration_nothing_new_is_published(
        #[case] csi_node: Option<CSINode>,
        #[case] sentence: &str,
    ) {
        let set = of(csi_node, Some(node(&[("InternalIP", "198.18.0.1")], &[])));
        let refusal = set["n1"].refusal.as_deref().unwrap();
        assert!(refusal.contains(sentence), "{refusal}");
        assert!(
            matches!(set["n1"].address, Address::Tls { .. }),
            "volumes can be taken away"
        );
    }

    #[test]
    fn a_node_without_address_taint_or_at_all() {
        let set = of(registered(), Some(node(&[("Hostname", "n1")], &[])));
        assert_eq!(set["n1"].address, Address::Unknown);
        assert!(set["n1"].refusal.as_deref().unwrap().contains("InternalIP"));
        let taints = ["node.kubernetes.io/out-of-service"];
        let set = of(registered(), Some(node(&[], &taints)));
        assert!(set["n1"].out_of_service);
        assert!(of(registered(), None).is_empty(), "the Node is gone");
    }
}
