//! KubeVirt's VirtualMachineInstanceMigration: that a virtual machine is to go to another node while it runs.
//!
//! The definition belongs to KubeVirt; here is only the part that is read. Its CRD may be absent from a cluster.

use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// Spec of a VirtualMachineInstanceMigration.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize)]
#[kube(
    group = "kubevirt.io",
    version = "v1",
    kind = "VirtualMachineInstanceMigration",
    plural = "virtualmachineinstancemigrations",
    shortname = "vmim",
    namespaced,
    schema = "disabled",
    status = "VirtualMachineInstanceMigrationStatus"
)]
#[serde(rename_all = "camelCase")]
pub struct VirtualMachineInstanceMigrationSpec {
    /// Name of the VirtualMachineInstance, in the same namespace.
    #[serde(default)]
    pub vmi_name: String,
}

/// Status of a VirtualMachineInstanceMigration. virt-controller alone writes it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct VirtualMachineInstanceMigrationStatus {
    /// `Pending`, `Scheduling`, … `Running`, and in the end `Succeeded` or `Failed`.
    #[serde(default)]
    pub phase: String,
}

/// What a migration is to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationStage {
    /// Not decided: the machine runs where it was, and may come up at the target at any moment.
    UnderWay,
    /// The machine runs at the target.
    Succeeded,
    /// The machine runs where it was, and will not come to the target.
    Failed,
}

impl VirtualMachineInstanceMigration {
    /// How far it is. A phase that is not known is one on the way: KubeVirt has added some over the years.
    pub fn stage(&self) -> MigrationStage {
        match self.status.as_ref().map(|status| status.phase.as_str()) {
            Some("Succeeded") => MigrationStage::Succeeded,
            Some("Failed") => MigrationStage::Failed,
            _ => MigrationStage::UnderWay,
        }
    }
}
