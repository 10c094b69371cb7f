//! Which nodes a lab has, and what each of them is.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What nodes are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Topology {
    /// Nodes like any other, `n1`, `n2`, …: pods and Open vSwitch on one machine.
    #[default]
    Plain,
    /// A plain node `m`, the master, and hosts without Open vSwitch, each with its DPU: `h1` and `d1`, `h2` and `d2`, …
    Dpu {
        /// How many hosts.
        pairs: u8,
    },
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pods and Open vSwitch on one machine.
    Plain,
    /// Has no Open vSwitch: its pods are plugged in on this DPU.
    Host {
        /// Its name.
        dpu: String,
    },
    /// Has Open vSwitch for itself and for this host.
    Dpu {
        /// Its name.
        host: String,
    },
}

impl Role {
    /// `plain`, `host` or `dpu`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Host { .. } => "host",
            Self::Dpu { .. } => "dpu",
        }
    }

    /// Whether Open vSwitch and ovn-controller run on the node.
    pub fn has_switch(&self) -> bool {
        !matches!(self, Self::Host { .. })
    }
}

/// A node before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// 1, 2, …: the last part of its addresses.
    pub(crate) index: u8,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Its Open vSwitch is the build with DPDK (see [`crate::dpdk`]).
    #[serde(default)]
    pub(crate) dpdk: bool,
}

/// All nodes, the master first; those called `dpdk` with that build of Open vSwitch.
///
/// # Errors
/// One called so is not there, or has no Open vSwitch.
pub(crate) fn places(topology: Topology, nodes: u8, dpdk: &[String]) -> Result<Vec<Place>> {
    let named: Vec<(String, Role)> = match topology {
        Topology::Plain => (1..=nodes)
            .map(|i| (format!("n{i}"), Role::Plain))
            .collect(),
        Topology::Dpu { pairs } => {
            let pair = |i: u8| {
                let (host, dpu) = (format!("h{i}"), format!("d{i}"));
                [
                    (host.clone(), Role::Host { dpu: dpu.clone() }),
                    (dpu, Role::Dpu { host }),
                ]
            };
            std::iter::once(("m".to_owned(), Role::Plain))
                .chain((1..=pairs).flat_map(pair))
                .collect()
        }
    };
    for name in dpdk {
        let role = named.iter().find(|(known, _)| known == name);
        ensure!(
            role.is_some_and(|(_, role)| role.has_switch()),
            "DPDK is asked for on {name}, which is no node with Open vSwitch: {}",
            named
                .iter()
                .filter(|(_, role)| role.has_switch())
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let place = |(index, (name, role)): (u8, (String, Role))| Place {
        index,
        dpdk: dpdk.contains(&name),
        name,
        role,
    };
    Ok((1..).zip(named).map(place).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_dpus_know_each_other() {
        let places = places(Topology::Dpu { pairs: 2 }, 9, &["d1".to_owned()]).unwrap();
        let text: Vec<String> = places
            .iter()
            .map(|place| format!("{} {} {}", place.index, place.name, place.role.word()))
            .collect();
        assert_eq!(
            text,
            [
                "1 m plain",
                "2 h1 host",
                "3 d1 dpu",
                "4 h2 host",
                "5 d2 dpu"
            ]
        );
        assert_eq!(places[2].role, Role::Dpu { host: "h1".into() });
        assert_eq!(places[3].role, Role::Host { dpu: "d2".into() });
        let written = serde_json::to_string(&places[1]).unwrap();
        assert_eq!(
            written,
            r#"{"index":2,"name":"h1","role":{"host":{"dpu":"d1"}},"dpdk":false}"#
        );
        let dpdk: Vec<bool> = places.iter().map(|place| place.dpdk).collect();
        assert_eq!(dpdk, [false, false, true, false, false]);
    }

    #[test]
    fn dpdk_is_for_nodes_with_a_switch() {
        let of = |topology, name: &str| places(topology, 2, &[name.to_owned()]);
        assert!(of(Topology::Plain, "n2").is_ok());
        assert!(of(Topology::Plain, "n3").is_err());
        let said = of(Topology::Dpu { pairs: 1 }, "h1").unwrap_err();
        assert_eq!(
            said.to_string(),
            "DPDK is asked for on h1, which is no node with Open vSwitch: m, d1"
        );
    }
}
