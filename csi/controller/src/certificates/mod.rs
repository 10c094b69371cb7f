//! The storage CA (`--ca`), and the two certificates that csi-controller makes for itself with it: as whom it calls
//! csi-node-dpu ([`client`]), and as whom the daemons of its backends serve volumes ([`target`]).

mod client;
mod target;

use std::path::{Path, PathBuf};

use ::identity::Authority;

pub(crate) use client::Credentials;
pub(crate) use target::{Target, keep};

/// Where the CA lies: `tls.crt` and `tls.key`, as a Secret of type kubernetes.io/tls has them.
#[derive(Debug, Clone)]
pub(crate) struct Ca(PathBuf);

impl Ca {
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// Its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.0.join("tls.crt")
    }

    /// Its private key.
    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("tls.key")
    }

    /// The CA as it is now: a rotated one counts at once. Blocks on the disk.
    fn load(&self) -> anyhow::Result<Authority> {
        Ok(Authority::load(&self.certificate(), &self.key())?)
    }
}
