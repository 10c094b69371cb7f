//! The parts of a KubeVirt VirtualMachineInstance (`kubevirt.io/v1`) that the shim looks at.
//!
//! Everything is optional and unknown fields are passed over: the object comes from any version of KubeVirt. Absent and `null` are the
//! same, as Go writes both.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use sha2::{Digest, Sha256};

/// Most queues of an interface (KubeVirt's own limit for taps).
const MOST_QUEUES: u32 = 256;

/// The object is not one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the VirtualMachineInstance that virt-launcher sent can't be read; it is of another kind of object, or of a KubeVirt that this shim does not know"
)]
pub struct NotAVmi(#[source] pub serde_json::Error);

/// A VirtualMachineInstance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Vmi {
    pub metadata: Metadata,
    pub spec: Spec,
    pub status: Status,
}

/// `metadata`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "Kubernetes' API documents its fields")]
pub struct Metadata {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Spec {
    pub architecture: String,
    #[serde(deserialize_with = "nullable")]
    pub domain: Domain,
    #[serde(deserialize_with = "nullable")]
    pub networks: Vec<Network>,
    #[serde(deserialize_with = "nullable")]
    pub volumes: Vec<Volume>,
    #[serde(deserialize_with = "nullable")]
    pub resource_claims: Vec<ResourceClaim>,
}

/// `spec.domain`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Domain {
    #[serde(deserialize_with = "nullable")]
    pub devices: Devices,
    pub cpu: Option<Cpu>,
    #[serde(deserialize_with = "nullable")]
    pub resources: Resources,
    pub launch_security: Option<serde::de::IgnoredAny>,
}

/// `spec.domain.cpu`.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Cpu {
    pub cores: u32,
    pub sockets: u32,
    pub threads: u32,
}

/// `spec.domain.resources`: quantities as text or numbers.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Resources {
    #[serde(deserialize_with = "nullable")]
    pub limits: BTreeMap<String, serde_json::Value>,
    #[serde(deserialize_with = "nullable")]
    pub requests: BTreeMap<String, serde_json::Value>,
}

/// `spec.domain.devices`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Devices {
    #[serde(deserialize_with = "nullable")]
    pub interfaces: Vec<Interface>,
    #[serde(deserialize_with = "nullable")]
    pub disks: Vec<Disk>,
    pub use_virtio_transitional: Option<bool>,
    pub network_interface_multiqueue: Option<bool>,
    pub block_multi_queue: Option<bool>,
}

/// One of `spec.domain.devices.interfaces`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Interface {
    pub name: String,
    pub model: String,
    pub mac_address: String,
    pub boot_order: Option<u32>,
    pub pci_address: String,
    pub acpi_index: Option<u32>,
    pub state: String,
    pub binding: Option<Binding>,
}

/// `interfaces[].binding`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Binding {
    pub name: String,
}

/// One of `spec.domain.devices.disks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Disk {
    pub name: String,
    pub boot_order: Option<u32>,
}

/// One of `spec.volumes`: where it comes from is in one of many fields.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Volume {
    pub name: String,
    pub persistent_volume_claim: Option<ClaimSource>,
    pub data_volume: Option<DataVolumeSource>,
}

/// `volumes[].persistentVolumeClaim`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct ClaimSource {
    pub claim_name: String,
    pub hotpluggable: bool,
}

/// `volumes[].dataVolume`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct DataVolumeSource {
    pub name: String,
    pub hotpluggable: bool,
}

/// One of `spec.networks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Network {
    pub name: String,
    pub multus: Option<Multus>,
    pub resource_claim: Option<ClaimRequest>,
}

/// `networks[].multus`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Multus {
    pub network_name: String,
    pub default: bool,
}

/// `networks[].resourceClaim`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct ClaimRequest {
    pub claim_name: String,
    pub request_name: String,
}

/// One of `spec.resourceClaims`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct ResourceClaim {
    pub name: String,
    pub resource_claim_name: Option<String>,
}

/// `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct Status {
    #[serde(deserialize_with = "nullable")]
    pub interfaces: Vec<InterfaceStatus>,
    pub migration_state: Option<MigrationState>,
}

/// One of `status.interfaces`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct InterfaceStatus {
    pub name: String,
    pub mac: String,
    pub pod_interface_name: String,
}

/// `status.migrationState`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[allow(missing_docs, reason = "KubeVirt's API documents its fields")]
pub struct MigrationState {
    pub completed: bool,
    pub failed: bool,
    pub source_node: String,
    pub target_node: String,
}

fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Vmi {
    /// From its JSON.
    ///
    /// # Errors
    ///
    /// [`NotAVmi`].
    pub fn from_json(json: &[u8]) -> Result<Self, NotAVmi> {
        // Fields may be absent, but it is an object: a list would be read as one, too.
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(json).map_err(NotAVmi)?;
        serde_json::from_value(serde_json::Value::Object(object)).map_err(NotAVmi)
    }

    /// `namespace/name`, for sentences and log lines.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// The value of an annotation of the VM.
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.get(name).map(String::as_str)
    }

    /// The interfaces of a binding that are to be there, in the VM's order.
    pub fn bound<'a>(&'a self, binding: &'a str) -> impl Iterator<Item = &'a Interface> {
        self.spec.domain.devices.interfaces.iter().filter(move |i| {
            i.binding.as_ref().is_some_and(|b| b.name == binding) && i.state != "absent"
        })
    }

    /// The network of an interface: they share their name.
    #[must_use]
    pub fn network(&self, interface: &str) -> Option<&Network> {
        self.spec.networks.iter().find(|n| n.name == interface)
    }

    /// The name of a network's interface in the pod, as KubeVirt asks Multus for it: the same on every node.
    #[must_use]
    pub fn pod_interface(&self, network: &Network) -> String {
        if network.is_secondary() {
            return hashed("pod", &network.name);
        }
        let known = self
            .status
            .interfaces
            .iter()
            .find(|i| i.name == network.name && !i.pod_interface_name.is_empty());
        known.map_or_else(|| "eth0".into(), |i| i.pod_interface_name.clone())
    }

    /// Virtual processors, as KubeVirt counts them.
    #[must_use]
    pub fn vcpus(&self) -> u32 {
        let one_at_least = |n: u32| n.max(1);
        let topology = self
            .spec
            .domain
            .cpu
            .filter(|c| (c.cores, c.sockets, c.threads) != (0, 0, 0));
        if let Some(cpu) = topology {
            return one_at_least(cpu.cores)
                .saturating_mul(one_at_least(cpu.sockets))
                .saturating_mul(one_at_least(cpu.threads));
        }
        let resources = &self.spec.domain.resources;
        let quantity = resources
            .limits
            .get("cpu")
            .or_else(|| resources.requests.get("cpu"));
        one_at_least(quantity.and_then(whole).unwrap_or(1))
    }

    /// Queues of each interface; none: the VM does not ask for several.
    #[must_use]
    pub fn nic_queues(&self) -> Option<u32> {
        let asked = self.spec.domain.devices.network_interface_multiqueue == Some(true);
        asked.then(|| self.vcpus().min(MOST_QUEUES))
    }

    /// libvirt's model for virtio devices of this VM.
    #[must_use]
    pub fn virtio_model(&self) -> &'static str {
        let transitional = self.spec.domain.devices.use_virtio_transitional == Some(true);
        match (self.spec.architecture.as_str(), transitional) {
            // No PCI there by default: KubeVirt gives no generation either.
            ("s390x", _) => "virtio",
            (_, true) => "virtio-transitional",
            (_, false) => "virtio-non-transitional",
        }
    }

    /// The migration that is under way; virt-launcher asks for a domain during one on its target alone.
    #[must_use]
    pub fn migration(&self) -> Option<&MigrationState> {
        let state = self.status.migration_state.as_ref()?;
        (!state.completed && !state.failed).then_some(state)
    }
}

impl Network {
    /// Brought by Multus, beside the pod's own.
    #[must_use]
    pub fn is_secondary(&self) -> bool {
        self.multus.as_ref().is_some_and(|m| !m.default)
    }
}

/// The name of a network's tap in the pod, as KubeVirt's hot-unplug looks for it.
#[must_use]
pub fn tap(network: &str) -> String {
    hashed("tap", network)
}

/// A prefix and the first eleven digits of the name's SHA-256: KubeVirt's names of pod interfaces and taps.
fn hashed(prefix: &str, network: &str) -> String {
    let digits: String = Sha256::digest(network)
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{prefix}{}", &digits[..11])
}

/// A Kubernetes quantity of processors, rounded up.
fn whole(quantity: &serde_json::Value) -> Option<u32> {
    let text = match quantity {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let (digits, per) = text
        .strip_suffix('m')
        .map_or((text.as_str(), 1.0), |milli| (milli, 1000.0));
    let number = digits.parse::<f64>().ok()? / per;
    // A quantity beyond what fits is cut, as queues are.
    (number.is_finite() && number >= 0.0).then(|| number.ceil().min(4096.0) as u32)
}
