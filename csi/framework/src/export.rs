//! Who may reach a volume, and how.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A host, as the storage side knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name, 1 to 128 bytes: the key of exports.
    pub name: String,
    /// The distinguished name of its client certificate as GnuTLS prints it: its parts in the certificate's own order, as
    /// `O=outboard,CN=node-1`. Needed where exports use TLS.
    pub dn: Option<String>,
    /// The id of the outboard-engine on that host (or its DPU), if there is one. For a volume that the host has alone the
    /// answer may then be [`Target::SameNode`].
    pub engine: Option<String>,
}

/// What a host may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    ReadWrite,
}

/// How a host reaches a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By the NBD protocol.
    Nbd {
        /// Where the server listens.
        address: NbdAddress,
        /// The export's name there, which is of this host alone.
        export: String,
        /// Whether the server demands TLS and a client certificate with the host's distinguished name.
        tls: bool,
    },
    /// The daemon that has the volume runs on the host's own engine: ask that one for a FUSE or vhost-user export.
    SameNode {
        /// The engine's id.
        engine: String,
        /// The daemon's id there.
        daemon: String,
        /// The block node to export.
        node: String,
        /// Whether it may be exported for writing.
        writable: bool,
    },
}

/// Where an NBD server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NbdAddress {
    /// TCP.
    Tcp {
        /// IP address or name.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket on the backend's machine.
    Unix {
        /// Its path.
        path: PathBuf,
    },
}

impl fmt::Display for NbdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix { path } => path.display().fmt(f),
        }
    }
}

/// A host that may reach a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub host: String,
    /// What it may do.
    pub access: Access,
    /// How it reaches the volume.
    pub target: Target,
    /// The network addresses that are connected to the volume's server now, of all hosts: NBD does not tell more.
    pub connected: Vec<String>,
}
