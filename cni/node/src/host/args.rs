//! The flags of a host's card.

use std::path::PathBuf;

/// How this host's card is reached (mode `host`).
#[derive(Debug, Clone, clap::Args)]
#[group(id = "card-flags")]
pub(crate) struct Args {
    /// Kind of the host's card.
    #[arg(long, value_enum, default_value_t = Kind::Veth, env = "OUTBOARD_CARD")]
    pub(crate) card: Kind,
    /// Number of functions of the emulated card.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096),
          env = "OUTBOARD_CARD_FUNCTIONS")]
    pub(crate) card_functions: u32,
    /// Network namespace of the DPU, for the emulated card: the far ends of its functions are there.
    #[arg(
        long,
        default_value = "/run/outboard/card/dpu",
        env = "OUTBOARD_CARD_NETNS"
    )]
    pub(crate) card_netns: PathBuf,
    /// Physical function of a real card whose virtual functions pods may have, by link or PCI address (repeatable). None: all
    /// that have virtual functions.
    #[arg(long, env = "OUTBOARD_PF", value_delimiter = ',')]
    pub(crate) pf: Vec<String>,
}

/// A kind of card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Emulated: pairs of virtual links into the DPU's network namespace.
    Veth,
    /// Virtual functions of the PCI device.
    Sriov,
}
