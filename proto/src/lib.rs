//! The wire: gRPC services of CSI, OPI, kubelet's plugin registration, KubeVirt's hooks, and our own.
//!
//! The .proto files lie in `proto/`. Those of others are written by us from the published interfaces: the same packages, names,
//! numbers and types (`tests/wire.rs` compares them with `tests/published/`), our own comments. `build.rs` compiles them.
//!
//! | feature | modules | package |
//! |---|---|---|
//! | `csi` | [`csi::v1`] | `csi.v1` 1.13 |
//! | `opi` | [`opi::storage::v1`] | `opi_api.storage.v1` |
//! | `kubelet` | [`kubelet::pluginregistration::v1`] | `pluginregistration` |
//! | `kubevirt` | [`kubevirt::hooks::info`], [`kubevirt::hooks::v1alpha1`] to [`kubevirt::hooks::v1alpha3`] | `kubevirt.hooks.*` |
//! | `outboard` | [`volume::v1`], [`attacher::v1`], [`node::v1`], [`card::v1`], [`dpu::v1`] | `outboard.*.v1` |
//!
//! **Secrets.** A message that holds one (`csi_secret`, keys of OPI, mount flags, cloud-init's data) prints it as `[redacted, N keys]`, whoever prints it
//! or what it is part of. There is no other way from a message to text: nothing here knows serde. Our own messages carry no secrets,
//! only names of files on the machine that uses them.
//!
//! **Maps** are `BTreeMap`s, so that equal messages have equal bytes and print alike.
//!
//! [`uds`] has what servers and clients need for a unix socket, [`deadline`] says by when a caller is answered. Rules of repetition and of codes stand in the comments of each call.

// Intra-doc links of features that are off.
#![cfg_attr(
    not(all(
        feature = "csi",
        feature = "kubelet",
        feature = "kubevirt",
        feature = "opi",
        feature = "outboard"
    )),
    allow(rustdoc::broken_intra_doc_links)
)]

pub mod deadline;
#[cfg(any(feature = "csi", feature = "kubevirt", feature = "opi"))]
mod redact;
pub mod uds;

/// What was compiled, as an encoded `google.protobuf.FileDescriptorSet` with options and without comments: for gRPC reflection and
/// for tests.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A module for a package, with what is generated contained in it: lints of ours are not for generated code, and its docs are
/// what the .proto files say.
#[allow(unused_macros, reason = "with no feature nobody uses it")]
macro_rules! package {
    ($name:literal, $doc:literal) => {
        package!($name, v1, $doc);
    };
    ($name:literal, $module:ident, $doc:literal) => {
        #[doc = $doc]
        #[allow(
            missing_docs,
            unreachable_pub,
            clippy::all,
            clippy::pedantic,
            clippy::restriction
        )]
        #[allow(
            rustdoc::invalid_html_tags,
            rustdoc::broken_intra_doc_links,
            rustdoc::bare_urls
        )]
        pub mod $module {
            include!(concat!(env!("OUT_DIR"), "/", $name, ".rs"));
            include!(concat!(env!("OUT_DIR"), "/", $name, ".debug.rs"));
        }
    };
}

/// The Container Storage Interface.
#[cfg(feature = "csi")]
pub mod csi {
    package!(
        "csi.v1",
        "Version 1.13: Identity, Controller, GroupController, SnapshotMetadata, Node."
    );
}

/// What kubelet asks of plugins.
#[cfg(feature = "kubelet")]
pub mod kubelet {
    /// How a plugin announces itself.
    pub mod pluginregistration {
        package!("pluginregistration", "The service Registration.");
    }
}

/// What KubeVirt asks of sidecars.
#[cfg(feature = "kubevirt")]
pub mod kubevirt {
    /// Hook sidecars of virt-launcher.
    pub mod hooks {
        package!("kubevirt.hooks.info", info, "The service Info.");
        package!(
            "kubevirt.hooks.v1alpha1",
            v1alpha1,
            "The service Callbacks: the domain."
        );
        package!(
            "kubevirt.hooks.v1alpha2",
            v1alpha2,
            "The service Callbacks: the domain and cloud-init's data."
        );
        package!(
            "kubevirt.hooks.v1alpha3",
            v1alpha3,
            "The service Callbacks: the domain, cloud-init's data, the end."
        );
    }
}

/// The Open Programmable Infrastructure project's interfaces.
#[cfg(feature = "opi")]
pub mod opi {
    /// Storage of a card.
    pub mod storage {
        package!(
            "opi_api.storage.v1",
            "Front ends, back ends and what lies between them."
        );
    }
}

/// What our services share.
#[cfg(feature = "outboard")]
pub mod volume {
    package!(
        "outboard.volume.v1",
        "Sources, exposures, devices, limits, epochs."
    );
}

/// volume-attacher.
#[cfg(feature = "outboard")]
pub mod attacher {
    package!("outboard.attacher.v1", "The service VolumeAttacher.");
}

/// csi-node-dpu.
#[cfg(feature = "outboard")]
pub mod node {
    package!(
        "outboard.node.v1",
        "The services HostVolumes (for csi-controller) and HostAgent (for csi-node-host)."
    );
}

/// The complement of OPI in opi-bridge.
#[cfg(feature = "outboard")]
pub mod card {
    package!("outboard.card.v1", "The service Card.");
}

/// Between a host and its DPU.
#[cfg(feature = "outboard")]
pub mod dpu {
    package!("outboard.dpu.v1", "The service Channel, for networks.");
}
