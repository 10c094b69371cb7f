//! The storage backends: the file that names them, and which one an id or a parameter means.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use framework::local::{Aio, Config, Listen, Local};
use framework::{Backend, Capabilities};
use serde::Deserialize;

use crate::request::invalid;
use crate::request::topology::Segments;
use crate::status::Answer;

/// The file. See examples/backends.yaml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    backends: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", tag = "kind")]
enum Entry {
    /// Images in a directory of this machine.
    Local(LocalEntry),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct LocalEntry {
    directory: PathBuf,
    engine_socket: Option<PathBuf>,
    engine_id: Option<String>,
    /// Not given: a unix socket for each volume, for hosts of this machine.
    tcp: Option<Tcp>,
    /// 4: four times the file system's size may be promised.
    over_provisioning: Option<f64>,
    reserve_bytes: Option<u64>,
    default_bytes: Option<u64>,
    /// Where the kernel refuses io_uring.
    #[serde(default)]
    threads: bool,
    max_chain: Option<usize>,
    /// From where its volumes are reachable; empty: from everywhere.
    #[serde(default)]
    topology: Segments,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Tcp {
    address: IpAddr,
    advertise: Option<IpAddr>,
    first_port: u16,
    last_port: u16,
    /// What the server has.
    tls_directory: Option<PathBuf>,
    /// What the cards have: the name of a directory below the card's directory of credentials.
    card_credentials: Option<String>,
    /// The name in the server's certificate, where it isn't the address.
    #[serde(default)]
    server_name: String,
}

/// A backend, and what the attachments of its volumes need.
pub(crate) struct Served {
    pub(crate) backend: Arc<dyn Backend>,
    /// From where its volumes are reachable; empty: from everywhere.
    pub(crate) topology: Segments,
    /// For targets with TLS.
    pub(crate) credentials: String,
    /// As the target's certificate has it; empty: its address.
    pub(crate) server_name: String,
}

/// All of them; the first one is the default.
pub(crate) struct Backends(Vec<Served>);

impl Backends {
    /// Opens what the file names.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Self> {
        let text = tokio::fs::read_to_string(path)
            .await
            .with_context(|| format!("--backends {}", path.display()))?;
        let file: File = serde_saphyr::from_str(&text)
            .with_context(|| format!("--backends {}", path.display()))?;
        let mut all: BTreeMap<String, ()> = BTreeMap::new();
        let mut served = Vec::new();
        for entry in file.backends {
            let one = entry.open().await?;
            if all.insert(one.backend.name().to_owned(), ()).is_some() {
                bail!(
                    "--backends {}: two are called {}",
                    path.display(),
                    one.backend.name()
                );
            }
            served.push(one);
        }
        if served.is_empty() {
            bail!("--backends {}: there is none", path.display());
        }
        Ok(Self(served))
    }

    /// In order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Served> {
        self.0.iter()
    }

    /// The one that an id names.
    pub(crate) fn of_id(&self, name: &str) -> Option<&Served> {
        self.0.iter().find(|served| served.backend.name() == name)
    }

    /// The one that a parameter names, or the first.
    pub(crate) fn of_parameter(&self, name: Option<&str>) -> Answer<&Served> {
        let Some(name) = name else {
            return Ok(&self.0[0]);
        };
        self.of_id(name).ok_or_else(|| {
            let names: Vec<_> = self.0.iter().map(|served| served.backend.name()).collect();
            let name: String = name.chars().take(64).collect();
            invalid(format!(
                "parameters.backend = {name:?} is not allowed; allowed: {}",
                names.join(", ")
            ))
        })
    }

    /// What at least one can do: the driver announces it, the others refuse it by name.
    pub(crate) fn any(&self) -> Capabilities {
        let mut any = Capabilities::default();
        for one in self.0.iter().map(|served| served.backend.capabilities()) {
            any.expand |= one.expand;
            any.expand_online |= one.expand_online;
            any.snapshots |= one.snapshots;
            any.clones |= one.clones;
            any.groups |= one.groups;
            any.qos |= one.qos;
            any.multi |= one.multi;
        }
        any
    }

    /// Whether every one that grows volumes does it while they are used.
    pub(crate) fn all_expand_online(&self) -> bool {
        let mut all = self.0.iter().map(|served| served.backend.capabilities());
        all.all(|one| one.expand_online || !one.expand)
    }

    /// Whether some volumes are reachable from some nodes only.
    pub(crate) fn have_places(&self) -> bool {
        self.0.iter().any(|served| !served.topology.is_empty())
    }
}

impl Entry {
    async fn open(self) -> anyhow::Result<Served> {
        let Self::Local(entry) = self;
        let (mut credentials, mut server_name) = (String::new(), String::new());
        if let Some(tcp) = &entry.tcp {
            if tcp.tls_directory.is_some() && tcp.card_credentials.is_none() {
                bail!(
                    "backend local: tcp.tlsDirectory needs tcp.cardCredentials: as whom the cards connect"
                );
            }
            if tcp.first_port == 0 || tcp.first_port > tcp.last_port {
                bail!("backend local: tcp.firstPort to tcp.lastPort is no range of ports");
            }
            credentials = tcp.card_credentials.clone().unwrap_or_default();
            server_name.clone_from(&tcp.server_name);
        }
        let topology = entry.topology.clone();
        let local = Local::open(entry.config()?).await?;
        Ok(Served {
            backend: Arc::new(local),
            topology,
            credentials,
            server_name,
        })
    }
}

impl LocalEntry {
    fn config(self) -> anyhow::Result<Config> {
        let engine = PathBuf::from("/run/outboard/engine/engine.sock");
        let mut config = Config::new(self.directory, self.engine_socket.unwrap_or(engine));
        if let Some(id) = self.engine_id {
            config.engine_id = id;
        }
        if let Some(tcp) = self.tcp {
            config.listen = Listen::Tcp {
                address: tcp.address,
                advertise: tcp.advertise.map(|address| address.to_string()),
                ports: tcp.first_port..=tcp.last_port,
                tls: tcp.tls_directory,
            };
        }
        if let Some(ratio) = self.over_provisioning {
            if !(0.1..=1000.0).contains(&ratio) {
                bail!("backend local: overProvisioning = {ratio}: allowed are 0.1 to 1000");
            }
            // Within u32 by the check above.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let percent = (ratio * 100.0).round() as u32;
            config.percent = percent;
        }
        config.reserve = self.reserve_bytes.unwrap_or(config.reserve);
        config.default_size = self.default_bytes.unwrap_or(config.default_size);
        config.max_chain = self.max_chain.unwrap_or(config.max_chain);
        if self.threads {
            config.aio = Aio::Threads;
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_right_and_typos_are_refused() {
        let text = include_str!("../examples/backends.yaml");
        let file: File = serde_saphyr::from_str(text).unwrap();
        let Some(Entry::Local(local)) = file.backends.into_iter().next() else {
            panic!("{text}")
        };
        assert_eq!(local.topology.len(), 1);
        let config = local.config().unwrap();
        assert_eq!(
            (config.percent, config.engine_id.as_str()),
            (400, "storage-1")
        );
        assert!(matches!(config.listen, Listen::Tcp { tls: Some(_), .. }));
        let typo = "backends: [{kind: local, directory: /d, reserveBites: 1}]";
        assert!(serde_saphyr::from_str::<File>(typo).is_err());
        assert!(serde_saphyr::from_str::<File>("backends: [{kind: elsewhere}]").is_err());
    }
}
