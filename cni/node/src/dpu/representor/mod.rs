//! Representors: how a function of the host is seen, and plugged, on this DPU. One module per kind of card.
//!
//! Which functions are the host's is the card's word, never the host's: a function that the card does not count under the
//! host's controller does not exist for it.

mod switchdev;
mod veth;
mod yusur;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sriov::Sysfs;

/// A function of a card, as the card counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CardFunction {
    /// The physical function.
    pub(crate) physical: u32,
    /// The virtual function; none = the physical one itself.
    #[serde(rename = "virtual")]
    pub(crate) vf: Option<u32>,
}

impl From<channel::proto::Function> for CardFunction {
    fn from(function: channel::proto::Function) -> Self {
        Self {
            physical: function.physical,
            vf: function.r#virtual,
        }
    }
}

/// `pf0vf3`, `pf0`.
impl fmt::Display for CardFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pf{}", self.physical)?;
        self.vf.map_or(Ok(()), |vf| write!(f, "vf{vf}"))
    }
}

/// What Open vSwitch is told of a representor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plug {
    /// It is a link of the kernel.
    #[default]
    System,
    /// DPDK drives it: `type=dpdk` with these `dpdk-devargs`.
    Dpdk {
        /// `0000:01:00.0,representor=[3]`.
        devargs: String,
    },
}

/// The DPU's end of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Representor {
    /// Name of the OVS port; of [`Plug::System`] also the link's.
    pub(crate) link: String,
    /// How it is plugged.
    pub(crate) plug: Plug,
}

/// What a kind of card knows. The calls may block: they look at the kernel each time, for a card may lose its functions and get
/// them back.
pub(crate) trait Provider: Send + Sync + 'static {
    /// The representor of a function of the host whose controller has that number (devlink; none = the card has one host).
    /// `None`: the card has no such function for that host, or not now.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn find(
        &self,
        function: CardFunction,
        controller: Option<u32>,
    ) -> io::Result<Option<Representor>>;

    /// The same of many, of whom one look at the card may tell.
    fn find_all(
        &self,
        functions: &[CardFunction],
        controller: Option<u32>,
    ) -> Vec<io::Result<Option<Representor>>> {
        let each = functions.iter();
        each.map(|function| self.find(*function, controller))
            .collect()
    }

    /// How many functions the host has, for the Dpu's status.
    ///
    /// # Errors
    /// The kernel could not be asked.
    fn count(&self, controller: Option<u32>) -> io::Result<u32>;
}

/// Flag `--representors`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The kernel knows the card's switch: each function of the host has a link here.
    Switchdev,
    /// Yusur's cards: DPDK drives them.
    Yusur,
    /// The emulated card (--card veth of the host): a veth pair per function.
    Veth,
}

/// The provider of a kind. `sysfs` is where the kernel's sysfs is mounted, `uplinks` are those of the card where there are several.
pub(crate) fn provider(kind: Kind, sysfs: &Path, uplinks: &[String]) -> Arc<dyn Provider> {
    match kind {
        Kind::Veth => Arc::new(veth::Veth),
        Kind::Switchdev => Arc::new(switchdev::Switchdev {
            sysfs: Sysfs::new(sysfs),
            uplinks: uplinks.to_vec(),
        }),
        Kind::Yusur => Arc::new(yusur::Yusur {
            sysfs: Sysfs::new(sysfs),
            cards: uplinks.to_vec(),
        }),
    }
}
