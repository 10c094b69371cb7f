//! `vhostuser-shim`: the KubeVirt hook sidecar that gives a VM its vhost-user NICs and disks.
//!
//! virt-launcher calls it with a domain XML and the VirtualMachineInstance; it answers with the XML in which every interface that is
//! bound by its binding (`binding: {name: …}`) is a vhost-user one, and every volume that asks for it a vhost-user-blk disk.
//!
//! * [`vmi`]: the parts of a VirtualMachineInstance that are looked at.
//! * [`resolver`]: which socket, mode, MAC and MTU has each interface? Pure, over the contents of files.
//! * [`domain`]: the rewriting, one pure function ([`domain::rewrite`]) over text: what it does not know stays byte for byte.
//! * [`cloud_init`]: static addresses in what cloud-init is told, if asked for. Pure.
//! * [`files`]: reads what the resolver looks at. [`server`]: the callbacks. [`run`]: socket, signals, the end, also that of a launcher which
//!   does not say so (`launcher`).
//!
//! Nothing here knows Kubernetes' API, OVS or libvirt's library: the shim is small, since one runs beside every VM.

pub mod cloud_init;
pub mod config;
pub mod domain;
pub mod files;
mod launcher;
pub mod resolver;
pub mod run;
pub mod server;
pub mod vmi;

/// What asks for things that KubeVirt has no field for: annotations of the VM's template.
pub mod annotation {
    /// Volumes that shall be vhost-user-blk disks: [`crate::domain::Block::asked`].
    pub const BLOCK: &str = "iaas.yusur.io/vhost-user-blk";
    /// Static addresses for cloud-init: [`crate::cloud_init::Asked`] as JSON, by the interface's name.
    pub const CLOUD_INIT: &str = "iaas.yusur.io/cloud-init-network";
    /// What the VM's interfaces are where it runs now, `vhost-user` (the default) or `tap`: a migration to the other kind is refused.
    pub const KIND: &str = "iaas.yusur.io/interface-kind";
}
