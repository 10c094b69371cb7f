//! The hosts that volumes can be published to: who they are, and which csi-node-dpu serves them. A node that is not here
//! does not exist (NOT_FOUND).

mod file;
pub(crate) mod kubernetes;
mod rule;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use framework::Host;
use tonic::Status;

pub(crate) use file::Source;
pub(crate) use rule::Rule;

use crate::status::Answer;

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// What NodeGetInfo answers; the key of exports.
    pub(crate) id: String,
    /// Of its csi-node-dpu.
    pub(crate) address: Address,
    /// The distinguished name in the certificate with which its card connects to targets.
    pub(crate) dn: Option<String>,
    /// The outboard-engine beside its card.
    pub(crate) engine: Option<String>,
    /// Where its card puts a file for each volume that it exposes as a local block device, as the card sees it.
    pub(crate) exports: PathBuf,
    /// Volumes at most; `None`: what the card says.
    pub(crate) limit: Option<usize>,
    /// Dead or given up: volumes are taken away though it may still use them.
    pub(crate) out_of_service: bool,
    /// Why nothing can be published there now. What is there can be taken away all the same.
    pub(crate) refusal: Option<String>,
}

/// Where a csi-node-dpu listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// TLS with certificates on both sides.
    Tls {
        /// `https://…`.
        uri: String,
        /// The name in its certificate; `None`: that of the URI.
        name: Option<String>,
    },
    /// A unix socket of this machine.
    Unix(PathBuf),
    /// Nobody knows.
    Unknown,
}

/// The nodes at one moment, by id.
pub(crate) type Set = BTreeMap<String, Node>;

impl Address {
    /// `https://HOST:PORT` or `unix:/PATH`.
    fn parse(text: &str, name: Option<String>) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            if path.is_absolute() {
                return Ok(Self::Unix(path));
            }
        } else if let Some(authority) = text.strip_prefix("https://")
            && authority
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
        {
            return Ok(Self::Tls {
                uri: text.to_owned(),
                name,
            });
        }
        bail!("address {text:?}: allowed are https://HOST:PORT and unix:/PATH")
    }
}

impl Node {
    /// As the storage side knows it.
    pub(crate) fn host(&self) -> Host {
        Host {
            name: self.id.clone(),
            dn: self.dn.clone(),
            engine: self.engine.clone(),
        }
    }
}

/// Where nodes are looked up.
#[derive(Debug)]
pub(crate) enum Nodes {
    /// In a file: for bare metal, and for tests.
    File(Source),
    /// In the cluster.
    Kubernetes(kubernetes::Cache),
}

impl Nodes {
    /// All nodes as they are now.
    ///
    /// # Errors
    /// UNAVAILABLE: they are not known.
    pub(crate) async fn all(&self) -> Answer<Arc<Set>> {
        match self {
            Self::File(source) => source.read().await,
            Self::Kubernetes(cache) => cache.read(),
        }
    }

    /// The node of an id.
    ///
    /// # Errors
    /// NOT_FOUND; UNAVAILABLE as of [`all`](Self::all).
    pub(crate) async fn get(&self, id: &str) -> Answer<Node> {
        let all = self.all().await?;
        all.get(id).cloned().ok_or_else(|| {
            let remedy = match self {
                Self::File(_) => "see whether --nodes has it",
                Self::Kubernetes(_) => "see whether there is a Node of that name",
            };
            Status::not_found(format!(
                "node {id:?} is not known to csi-controller; {remedy}"
            ))
        })
    }
}
