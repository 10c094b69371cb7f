//! What a node knows of its pair without asking Kubernetes: the file that its container `identity` keeps beside the certificate
//! of the channel.

use crate::dpu::{Claim, Dpu, Standing, standings};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Name of the file, in the directory of the channel's certificate. It is not there while no Dpu names the node.
pub const PAIRING_FILE: &str = "pairing.json";

/// The pair that a node is in. Prints as the text of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Pairing {
    /// Name of the Node that is the DPU.
    pub dpu: String,
    /// Name of the Node that is the host.
    pub host: String,
    /// Address of the DPU's channel.
    pub address: IpAddr,
    /// TCP port of the DPU's channel.
    pub port: u16,
    /// `spec.controller` of the Dpu.
    #[serde(default)]
    pub controller: Option<u32>,
    /// UID of the Dpu: another object is another pair.
    pub uid: String,
}

/// Which side of its pair a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The host.
    Host,
    /// The DPU.
    Dpu,
}

/// A text that is no pairing.
#[derive(Debug, thiserror::Error)]
#[error("it says of no pair: {0}")]
pub struct PairingError(#[from] serde_json::Error);

impl Pairing {
    /// The pair that `node` is in by all Dpus that name it.
    ///
    /// None if there is none, or if the one that counts has an address that cannot be. Whether the other side is in the same pair by
    /// the Dpus that name *it* is for that side to say: a DPU serves the host of its own pairing and no other.
    pub fn of<'a>(node: &str, all: impl IntoIterator<Item = &'a Dpu>) -> Option<Self> {
        let all: Vec<&Dpu> = all.into_iter().collect();
        let standings = standings(all.iter().map(|dpu| Claim::of(dpu)));
        let counts = |dpu: &&&Dpu| {
            let name = dpu.metadata.name.as_deref().unwrap_or_default();
            standings.get(name) == Some(&Standing::Counts)
        };
        let names = |dpu: &&&Dpu| dpu.spec.dpu_node == node || dpu.spec.host_node == node;
        let dpu = all.iter().filter(counts).find(names)?;
        Some(Self {
            dpu: dpu.spec.dpu_node.clone(),
            host: dpu.spec.host_node.clone(),
            address: dpu.spec.address.parse().ok()?,
            port: dpu.spec.port,
            controller: dpu.spec.controller,
            uid: dpu.metadata.uid.clone().unwrap_or_default(),
        })
    }

    /// Where the DPU's channel is.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Which side `node` is.
    pub fn side(&self, node: &str) -> Option<Side> {
        if node == self.dpu {
            Some(Side::Dpu)
        } else if node == self.host {
            Some(Side::Host)
        } else {
            None
        }
    }
}

impl fmt::Display for Pairing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

impl FromStr for Pairing {
    type Err = PairingError;

    fn from_str(text: &str) -> Result<Self, PairingError> {
        Ok(serde_json::from_str(text)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dpu::DpuSpec;
    use serde_json::json;

    fn dpu(name: &str, created: &str, dpu: &str, host: &str) -> Dpu {
        let spec = DpuSpec::new(dpu, host, "198.18.0.12".parse().unwrap());
        serde_json::from_value(json!({
            "apiVersion": "iaas.yusur.io/v1", "kind": "Dpu",
            "metadata": {"name": name, "uid": name, "creationTimestamp": created},
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn the_file_is_the_contract() {
        let one = dpu("p1", "2026-01-01T00:00:00Z", "d1", "h1");
        let pairing = Pairing::of("h1", [&one]).unwrap();
        let text = r#"{"dpu":"d1","host":"h1","address":"198.18.0.12","port":9478,"controller":null,"uid":"p1"}"#;
        assert_eq!(pairing.to_string(), text);
        assert_eq!(text.parse::<Pairing>().unwrap(), pairing);
        assert_eq!(pairing.side("h1"), Some(Side::Host));
        assert_eq!(pairing.side("d1"), Some(Side::Dpu));
        assert_eq!(pairing.side("m"), None);
        assert_eq!(pairing.socket_address().to_string(), "198.18.0.12:9478");
        for text in ["", "{}", "null", &text.replace("198.18.0.12", "d1")] {
            assert!(text.parse::<Pairing>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_node_is_in_the_pair_of_the_older_dpu() {
        let older = dpu("z", "2026-01-01T00:00:00Z", "d1", "h1");
        let younger = dpu("a", "2026-01-02T00:00:00Z", "d2", "h1");
        let uid = |node: &str| Pairing::of(node, [&younger, &older]).map(|pairing| pairing.uid);
        assert_eq!(uid("h1").as_deref(), Some("z"));
        assert_eq!(uid("d1").as_deref(), Some("z"));
        assert_eq!(uid("d2"), None);
        assert_eq!(uid("m"), None);
        assert_eq!(
            Pairing::of("d2", [&younger]).map(|pairing| pairing.uid),
            Some("a".into())
        );
    }
}
