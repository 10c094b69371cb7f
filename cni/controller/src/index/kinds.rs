//! Which kinds of objects the index takes, one implementation for each watcher.

use super::{
    Dirty, DpuEntry, Index, MigrationEntry, NadEntry, NodeEntry, ObjectKey, PodEntry, ServiceEntry,
    SliceEntry,
};
use super::{SubnetEntry, VpcEntry};
use api::{Dpu, NetworkAttachmentDefinition, Subnet, VirtualMachineInstanceMigration, Vpc};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt as _};

/// A kind that the index holds.
pub trait Indexed: Resource + Sized {
    /// The object is there, perhaps in a form that the index does not keep.
    fn put(&self, index: &mut Index, dirty: &mut Dirty);
    /// The object is gone.
    fn remove(key: ObjectKey, index: &mut Index, dirty: &mut Dirty);
    /// What the index holds of this kind, to find after a new list what is no longer there.
    fn keys(index: &Index) -> Vec<ObjectKey>;

    /// Namespace (empty for cluster-wide kinds) and name.
    fn key(&self) -> ObjectKey {
        (self.namespace().unwrap_or_default(), self.name_any())
    }
}

fn clusterwide<'a>(names: impl Iterator<Item = &'a String>) -> Vec<ObjectKey> {
    names.map(|name| (String::new(), name.clone())).collect()
}

impl Indexed for Vpc {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_vpc(self.name_any(), Some(VpcEntry::from(self)), dirty);
    }
    fn remove((_, name): ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_vpc(name, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        clusterwide(index.vpcs.keys())
    }
}

impl Indexed for Subnet {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_subnet(self.name_any(), Some(SubnetEntry::from(self)), dirty);
    }
    fn remove((_, name): ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_subnet(name, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        clusterwide(index.subnets.keys())
    }
}

impl Indexed for Node {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_node(self.name_any(), Some(NodeEntry::from(self)), dirty);
    }
    fn remove((_, name): ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_node(name, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        clusterwide(index.nodes.keys())
    }
}

impl Indexed for Dpu {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_dpu(self.name_any(), Some(DpuEntry::from(self)), dirty);
    }
    fn remove((_, name): ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_dpu(name, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        clusterwide(index.dpus.keys())
    }
}

impl Indexed for NetworkAttachmentDefinition {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_nad(self.key(), Some(NadEntry::from(self)), dirty);
    }
    fn remove(key: ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_nad(key, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        index.nads.keys().cloned().collect()
    }
}

impl Indexed for VirtualMachineInstanceMigration {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_migration(self.key(), Some(MigrationEntry::from(self)), dirty);
    }
    fn remove(key: ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_migration(key, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        index.migrations.keys().cloned().collect()
    }
}

impl Indexed for Service {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_service(self.key(), ServiceEntry::from_service(self), dirty);
    }
    fn remove(key: ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_service(key, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        index.services.keys().cloned().collect()
    }
}

impl Indexed for EndpointSlice {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        index.put_slice(self.key(), SliceEntry::from_slice(self), dirty);
    }
    fn remove(key: ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_slice(key, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        index.slice_owner.keys().cloned().collect()
    }
}

impl Indexed for Pod {
    fn put(&self, index: &mut Index, dirty: &mut Dirty) {
        let keep_reports = index.settings.keep_reports;
        index.put_pod(self.key(), PodEntry::from_pod(self, keep_reports), dirty);
    }
    fn remove(key: ObjectKey, index: &mut Index, dirty: &mut Dirty) {
        index.put_pod(key, None, dirty);
    }
    fn keys(index: &Index) -> Vec<ObjectKey> {
        index.pods.keys().cloned().collect()
    }
}
