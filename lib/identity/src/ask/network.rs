//! What `cni-node identity` does: which of the network's certificates it keeps, and beside the channel's the node's pairing.

use tokio_util::sync::CancellationToken;

use super::{Args, kubernetes, obtain, pairing};
use crate::{CHANNEL, CHASSIS, Profile};

/// Which certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Of an OVN chassis.
    Chassis,
    /// Of a host or a DPU, for the channel between the two.
    Channel,
}

/// Flags of `cni-node identity`.
#[derive(Debug, Clone, clap::Args)]
#[command(mut_arg("directory", |arg| arg
    .default_value_if("profile", "channel", CHANNEL.directory)
    .help("Directory of tls.key, tls.crt and ca.crt, and with --profile channel of pairing.json; made with mode 0700 [default of the channel: /var/lib/outboard/channel]")))]
pub struct Network {
    /// Which certificate. With `channel`, pairing.json beside it says which pair the node is in, for as long as a Dpu names it.
    #[arg(long, value_enum, env = "OUTBOARD_PROFILE", default_value_t = Kind::Chassis)]
    pub profile: Kind,
    /// How it is got.
    #[command(flatten)]
    pub args: Args,
}

impl Kind {
    fn profile(self) -> Profile {
        match self {
            Self::Chassis => CHASSIS,
            Self::Channel => CHANNEL,
        }
    }
}

impl Network {
    /// Runs until the certificate is good (`--once`; and the pairing is written) or until `stop` (`--keep`).
    ///
    /// # Errors
    /// As [`super::run`].
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { profile, args } = self;
        if profile == Kind::Chassis {
            return super::run(profile.profile(), args, stop).await;
        }
        let config = kubernetes().await?;
        let client = kube::Client::try_from(config.clone())?;
        let watching = informer::client(config)?;
        let profile = profile.profile();
        let work = async {
            if args.keep {
                tokio::select! {
                    outcome = obtain(&profile, &args, client) => outcome,
                    () = pairing::follow(watching, &args.node, &args.directory) => Ok(()),
                }
            } else {
                obtain(&profile, &args, client).await?;
                pairing::once(watching, &args.node, &args.directory).await
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            outcome = work => outcome.map_err(anyhow::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        network: Network,
    }

    fn parse(args: &[&str]) -> Network {
        let args = ["p", "--node", "n1"].iter().chain(args);
        Program::try_parse_from(args).unwrap().network
    }

    #[test]
    fn the_directory_is_that_of_the_profile() {
        let directory = |args: &[&str]| parse(args).args.directory.display().to_string();
        assert_eq!(parse(&[]).profile, Kind::Chassis);
        assert_eq!(directory(&[]), "/var/lib/outboard/identity");
        assert_eq!(
            directory(&["--profile=chassis"]),
            "/var/lib/outboard/identity"
        );
        assert_eq!(
            directory(&["--profile", "channel"]),
            "/var/lib/outboard/channel"
        );
        assert_eq!(directory(&["--profile=channel", "--directory=/d"]), "/d");
        assert_eq!(parse(&["--profile=channel"]).profile.profile(), CHANNEL);
    }
}
