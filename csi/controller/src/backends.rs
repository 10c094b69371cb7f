//! The storage backends: the file that names them, and which one an id or a parameter means.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use framework::local::{Aio, Config, Listen, Local};
use framework::{Backend, Capabilities};
use serde::Deserialize;

use crate::certificates::{Ca, Target};
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
    /// Not given: the node that this program runs on.
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
    /// Not given: that node's address, else `address`.
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
    /// For which certificates can be made.
    pub(crate) target: Option<Target>,
}

/// Where this program runs: what the file may leave out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Here {
    /// The node's name.
    pub(crate) node: Option<String>,
    /// The node's address.
    pub(crate) address: Option<IpAddr>,
    /// With which the targets' certificates are made.
    pub(crate) ca: Option<Ca>,
}

/// All of them; the first one is the default.
pub(crate) struct Backends(Vec<Served>);

impl Backends {
    /// Opens what the file names.
    pub(crate) async fn open(path: &Path, here: &Here) -> anyhow::Result<Self> {
        let text = tokio::fs::read_to_string(path)
            .await
            .with_context(|| format!("--backends {}", path.display()))?;
        let file: File = serde_saphyr::from_str(&text)
            .with_context(|| format!("--backends {}", path.display()))?;
        let mut all: BTreeMap<String, ()> = BTreeMap::new();
        let mut served = Vec::new();
        for entry in file.backends {
            let one = entry.open(here).await?;
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
    async fn open(self, here: &Here) -> anyhow::Result<Served> {
        let Self::Local(entry) = self;
        let tcp = entry.tcp.as_ref();
        if let Some(tcp) = tcp {
            tcp.check(here)?;
        }
        let target = tcp.and_then(|tcp| tcp.target(here));
        if let (Some(target), Some(ca)) = (&target, &here.ca) {
            target.clone().ensure(ca.clone()).await?;
        }
        let credentials = tcp.and_then(|tcp| tcp.card_credentials.clone());
        let server_name = tcp.map(|tcp| tcp.server_name.clone());
        let topology = entry.topology.clone();
        let local = Local::open(entry.config(here)?).await?;
        Ok(Served {
            backend: Arc::new(local),
            topology,
            credentials: credentials.unwrap_or_default(),
            server_name: server_name.unwrap_or_default(),
            target,
        })
    }
}

impl Tcp {
    fn check(&self, here: &Here) -> anyhow::Result<()> {
        if self.tls_directory.is_some() && self.card_credentials.is_none() {
            bail!(
                "backend local: tcp.tlsDirectory needs tcp.cardCredentials: as whom the cards connect"
            );
        }
        if self.first_port == 0 || self.first_port > self.last_port {
            bail!("backend local: tcp.firstPort to tcp.lastPort is no range of ports");
        }
        if self.advertised(here).is_unspecified() {
            bail!(
                "backend local: no host reaches a volume at {}; give tcp.advertise, or --node-address",
                self.advertised(here)
            );
        }
        Ok(())
    }

    /// What hosts are told.
    fn advertised(&self, here: &Here) -> IpAddr {
        self.advertise.or(here.address).unwrap_or(self.address)
    }

    /// With TLS: what its certificate has to say.
    fn target(&self, here: &Here) -> Option<Target> {
        let mut addresses = vec![self.advertised(here)];
        let mut dns_names = Vec::new();
        match self.server_name.parse::<IpAddr>() {
            _ if self.server_name.is_empty() => {}
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_) => dns_names.push(self.server_name.clone()),
        }
        Some(Target {
            directory: self.tls_directory.clone()?,
            dns_names,
            addresses,
        })
    }
}

impl LocalEntry {
    fn config(self, here: &Here) -> anyhow::Result<Config> {
        let engine = PathBuf::from("/run/outboard/engine/engine.sock");
        let mut config = Config::new(self.directory, self.engine_socket.unwrap_or(engine));
        if let Some(id) = self.engine_id.or_else(|| here.node.clone()) {
            config.engine_id = id;
        }
        if let Some(tcp) = self.tcp {
            config.listen = Listen::Tcp {
                address: tcp.address,
                advertise: Some(tcp.advertised(here).to_string()),
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

    fn parse(text: &str) -> anyhow::Result<LocalEntry> {
        let file: File = serde_saphyr::from_str(text)?;
        let Some(Entry::Local(local)) = file.backends.into_iter().next() else {
            bail!("{text}")
        };
        Ok(local)
    }

    #[test]
    fn the_example_is_right_and_typos_are_refused() {
        let local = parse(include_str!("../examples/backends.yaml")).unwrap();
        assert_eq!(local.topology.len(), 1);
        let config = local.config(&Here::default()).unwrap();
        assert_eq!(
            (config.percent, config.engine_id.as_str()),
            (400, "storage-1")
        );
        assert!(matches!(config.listen, Listen::Tcp { tls: Some(_), .. }));
        let typo = "backends: [{kind: local, directory: /d, reserveBites: 1}]";
        assert!(parse(typo).is_err());
        assert!(parse("backends: [{kind: elsewhere}]").is_err());
    }

    #[test]
    fn what_is_left_out_is_the_node_that_the_program_runs_on() {
        let text = |more: &str| {
            format!(
                "backends: [{{kind: local, directory: /d, tcp: {{address: '::', firstPort: 1, lastPort: 2, \
                 tlsDirectory: /t, cardCredentials: c{more}}}}}]"
            )
        };
        let here = Here {
            node: Some("n1".into()),
            address: Some("fd00::1".parse().unwrap()),
            ca: None,
        };
        let local = parse(&text("")).unwrap();
        let tcp = local.tcp.as_ref().unwrap();
        assert!(tcp.check(&here).is_ok());
        let nowhere = tcp.check(&Here::default()).unwrap_err().to_string();
        assert!(nowhere.contains("--node-address"), "{nowhere}");
        let target = tcp.target(&here).unwrap();
        assert_eq!(
            (target.dns_names, target.addresses),
            (vec![], vec!["fd00::1".parse().unwrap()])
        );
        let config = local.config(&here).unwrap();
        assert_eq!(config.engine_id, "n1");
        let Listen::Tcp { advertise, .. } = config.listen else {
            panic!("not TCP")
        };
        assert_eq!(advertise.as_deref(), Some("fd00::1"));

        let local = parse(&text(", advertise: 198.18.0.1, serverName: s")).unwrap();
        let target = local.tcp.as_ref().unwrap().target(&here).unwrap();
        assert_eq!(
            (target.dns_names, target.addresses),
            (vec!["s".to_owned()], vec!["198.18.0.1".parse().unwrap()])
        );
    }
}
