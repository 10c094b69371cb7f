//! The flags of a host's card.

use std::path::PathBuf;

/// How this host's card is reached (mode `host`).
#[derive(Debug, Clone, clap::Args)]
#[group(id = "card-flags")]
pub(crate) struct Args {
    /// Kind of the host's card. The DPU's --representors must be of the same kind.
    #[arg(long, value_enum, default_value_t = Kind::Sriov, env = "OUTBOARD_CARD")]
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
    /// Virtual functions of the PCI device.
    Sriov,
    /// Emulated, where host and DPU are network namespaces of one machine: pairs of virtual links into the DPU's.
    Veth,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::Kind;
    use crate::config::{Command, Config, Run};
    use crate::dpu::representor;

    fn run(words: &[&str]) -> Run {
        let program = ["cni-node", "run", "--node-name=n1"];
        let config = Config::try_parse_from([&program, words].concat()).unwrap();
        match config.command {
            Command::Run(run) => *run,
            Command::Identity(_) => panic!("not this one"),
        }
    }

    #[test]
    fn a_pair_has_a_real_card_unless_it_is_told_otherwise() {
        let real = run(&[]);
        assert_eq!(real.card.card, Kind::Sriov);
        assert_eq!(real.dpu.representors, representor::Kind::Switchdev);
        let emulated = run(&["--card=veth", "--representors=veth"]);
        assert_eq!(emulated.card.card, Kind::Veth);
        assert_eq!(emulated.dpu.representors, representor::Kind::Veth);
    }
}
