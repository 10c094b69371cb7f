//! A virtual machine's secondary networks, as KubeVirt brings them to its pods.
//!
//! KubeVirt writes the annotation `k8s.v1.cni.cncf.io/networks` of a launcher's pod itself, with a MAC address where the
//! machine has one and never with addresses. What a VM wants is in an annotation of its own, which KubeVirt copies to the pod.

use crate::selection::{Selection, SelectionError};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Characters of the hash in an interface's name.
const HASH_DIGITS: usize = 11;

/// The name in the pod of the interface of a machine's secondary network.
pub fn machine_ifname(network: &str) -> String {
    let mut digits = String::new();
    for byte in Sha256::digest(network.as_bytes()) {
        digits.push_str(&format!("{byte:02x}"));
    }
    digits.truncate(HASH_DIGITS);
    format!("pod{digits}")
}

/// Takes the requests of the annotation `iaas.yusur.io/network-ips` over into the elements that they are about.
///
/// A JSON object: by the name of a network in the machine's specification the addresses wanted in it, at most one a family.
pub fn request_network_ips(list: &mut [Selection], annotation: &str) -> Result<(), SelectionError> {
    let asked: BTreeMap<String, Vec<String>> =
        serde_json::from_str(annotation).map_err(|error| {
            SelectionError::Machine(format!(
                "it is no JSON object of lists ({error}): write {{\"net1\": [\"10.1.2.3\"]}}, with the name that the network has in the virtual machine's spec.networks"
            ))
        })?;
    for (network, ips) in asked {
        let ifname = machine_ifname(&network);
        let Some(selection) = list.iter_mut().find(|one| one.ifname == ifname) else {
            return Err(SelectionError::Machine(format!(
                "{network:?} is no network with multus in the virtual machine's spec.networks: write the name of one; addresses in the pod's own network are asked for with iaas.yusur.io/ips"
            )));
        };
        if !selection.ips.is_empty() {
            return Err(SelectionError::Machine(format!(
                "k8s.v1.cni.cncf.io/networks asks for addresses in {network:?} too: remove one of the two"
            )));
        }
        selection.ips = ips;
        selection.by_machine = true;
    }
    Ok(())
}
