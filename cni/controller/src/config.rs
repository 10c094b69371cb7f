//! The command line.

use crate::index::Settings;
use clap::Parser;
use daemon::args::Common;
use identity::sign::SignerConfig;
use identity::{CHANNEL, CHASSIS, Profile};
use ipnet::IpNet;
use ovsdb::{Remote, Tls};
use std::path::PathBuf;
use std::time::Duration;

/// Kubernetes objects to OVN northbound rows.
#[derive(Clone, Debug, Parser)]
#[command(name = "cni-controller", version)]
pub struct Config {
    #[command(flatten)]
    pub(crate) common: Common,

    /// Servers of the northbound database, as ssl:10.0.0.1:6641, separated by commas.
    #[arg(long, env = "OUTBOARD_NB", value_delimiter = ',', required = true)]
    pub(crate) nb: Vec<Remote>,
    /// Key (PEM) of the client certificate for the northbound database.
    #[arg(long, env = "OUTBOARD_NB_KEY", requires_all = ["nb_cert", "nb_ca"])]
    pub(crate) nb_key: Option<PathBuf>,
    /// Client certificate (PEM) for the northbound database.
    #[arg(long, env = "OUTBOARD_NB_CERT", requires = "nb_key")]
    pub(crate) nb_cert: Option<PathBuf>,
    /// CA certificates (PEM) that northbound servers are verified against.
    #[arg(long, env = "OUTBOARD_NB_CA", requires = "nb_key")]
    pub(crate) nb_ca: Option<PathBuf>,
    /// The southbound database's listener that has no role, as unix:/run/ovn/ovnsb_db.sock. Without
    /// it the chassis of removed nodes stay, and --rebuild does not hear the nodes.
    #[arg(long, env = "OUTBOARD_SB", value_delimiter = ',')]
    pub(crate) sb: Vec<Remote>,

    /// CA certificate (PEM) that signs chassis certificates. Without it none are signed.
    #[arg(long, env = "OUTBOARD_CHASSIS_CA_CERT", requires = "chassis_ca_key")]
    pub(crate) chassis_ca_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, env = "OUTBOARD_CHASSIS_CA_KEY", requires = "chassis_ca_cert")]
    pub(crate) chassis_ca_key: Option<PathBuf>,
    /// How many hours a chassis certificate lasts; it is renewed after two thirds of that.
    #[arg(long, env = "OUTBOARD_CHASSIS_CERT_HOURS", default_value_t = 24,
          value_parser = clap::value_parser!(u64).range(1..=8784))]
    pub(crate) chassis_cert_hours: u64,

    /// CA certificate (PEM) that signs the certificates with which hosts and their DPUs speak. Without
    /// it none are signed.
    #[arg(long, env = "OUTBOARD_CHANNEL_CA_CERT", requires = "channel_ca_key")]
    pub(crate) channel_ca_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, env = "OUTBOARD_CHANNEL_CA_KEY", requires = "channel_ca_cert")]
    pub(crate) channel_ca_key: Option<PathBuf>,
    /// How many hours such a certificate lasts; it is renewed after two thirds of that.
    #[arg(long, env = "OUTBOARD_CHANNEL_CERT_HOURS", default_value_t = 24,
          value_parser = clap::value_parser!(u64).range(1..=8784))]
    pub(crate) channel_cert_hours: u64,

    /// CIDRs of the Subnet "default", which is made at the first start: one IPv4 and/or one IPv6.
    #[arg(
        long,
        env = "OUTBOARD_POD_CIDR",
        value_delimiter = ',',
        default_value = "10.244.0.0/16"
    )]
    pub(crate) pod_cidr: Vec<IpNet>,
    /// CIDRs of the Subnet "join" of the nodes' own ports, which is made at the first start. The
    /// families must be those of --pod-cidr at least.
    #[arg(
        long,
        env = "OUTBOARD_JOIN_CIDR",
        value_delimiter = ',',
        default_value = "100.64.0.0/16,fd00:100:64::/64"
    )]
    pub(crate) join_cidr: Vec<IpNet>,
    /// The API server's --service-cluster-ip-range.
    #[arg(
        long,
        env = "OUTBOARD_SERVICE_CIDR",
        value_delimiter = ',',
        default_value = "10.96.0.0/12"
    )]
    pub(crate) service_cidr: Vec<IpNet>,

    /// A cni-controller that has not renewed its Lease for so many seconds is replaced by another
    /// one; it stops by itself after two thirds of that.
    #[arg(long, env = "OUTBOARD_LEASE_SECONDS", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(3..=600))]
    pub(crate) lease_seconds: u64,

    /// Take the addresses of running pods from what they and, by --sb, their nodes report, because
    /// the northbound database has lost them. For one start after a disaster; conflicts are reported
    /// as Events.
    #[arg(long, env = "OUTBOARD_REBUILD")]
    pub(crate) rebuild: bool,
    /// Name of this pod, in the Lease and in Events. A Lease that a former process of the same name
    /// holds is taken over at once: no two live processes may have one name.
    #[arg(long, env = "POD_NAME")]
    pub(crate) identity: Option<String>,
}

impl Config {
    /// The flags that every daemon has.
    pub fn common(&self) -> &Common {
        &self.common
    }

    /// What the pure functions need of it.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            pod_cidrs: self.pod_cidr.clone(),
            join_cidrs: self.join_cidr.clone(),
            service_cidrs: self.service_cidr.clone(),
            keep_reports: self.rebuild,
        }
    }

    /// What is signed, and with which CA.
    pub(crate) fn signers(&self) -> impl Iterator<Item = SignerConfig> + use<> {
        let chassis = signer(
            CHASSIS,
            (self.chassis_ca_cert.as_ref(), self.chassis_ca_key.as_ref()),
            self.chassis_cert_hours,
        );
        let channel = signer(
            CHANNEL,
            (self.channel_ca_cert.as_ref(), self.channel_ca_key.as_ref()),
            self.channel_cert_hours,
        );
        chassis.into_iter().chain(channel)
    }

    /// The files for the northbound database, if it is reached by TLS.
    pub(crate) fn nb_tls(&self) -> Option<Tls> {
        Some(Tls {
            key: self.nb_key.clone()?,
            cert: self.nb_cert.clone()?,
            ca: self.nb_ca.clone()?,
        })
    }

    /// What clap cannot see.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let ssl = |remotes: &[Remote]| remotes.iter().any(|r| matches!(r, Remote::Ssl { .. }));
        anyhow::ensure!(
            !ssl(&self.nb) || self.nb_key.is_some(),
            "--nb has ssl: servers: give --nb-key, --nb-cert and --nb-ca too"
        );
        anyhow::ensure!(
            !ssl(&self.sb),
            "--sb must be the listener that has no role, as unix:/run/ovn/ovnsb_db.sock"
        );
        let joined = |pods: &IpNet| {
            let mut joins = self.join_cidr.iter();
            joins.any(|join| join.addr().is_ipv4() == pods.addr().is_ipv4())
        };
        anyhow::ensure!(
            self.pod_cidr.iter().all(joined),
            "--join-cidr lacks a family that --pod-cidr has: give one CIDR for each"
        );
        for subnet in crate::defaults::subnets(&self.settings()) {
            let name = subnet.metadata.name.unwrap_or_default();
            let flag = if name == api::names::JOIN_SUBNET {
                "--join-cidr"
            } else {
                "--pod-cidr"
            };
            subnet
                .spec
                .layout()
                .map_err(|error| anyhow::anyhow!("{flag}: {error}"))?;
        }
        Ok(())
    }
}

fn signer(
    profile: Profile,
    (certificate, key): (Option<&PathBuf>, Option<&PathBuf>),
    hours: u64,
) -> Option<SignerConfig> {
    Some(SignerConfig {
        certificate: certificate?.clone(),
        key: key?.clone(),
        lifetime: Duration::from_secs(hours * 3600),
        profile,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, String> {
        let args = ["cni-controller"].iter().chain(args);
        let config = Config::try_parse_from(args).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn the_least_and_the_usual() {
        let config = parse(&["--nb", "unix:/run/ovn/ovnnb_db.sock"]).unwrap();
        assert_eq!(config.pod_cidr.len(), 1);
        let config = parse(&[
            "--nb=ssl:10.0.0.1:6641,ssl:10.0.0.2:6641",
            "--nb-key=k",
            "--nb-cert=c",
            "--nb-ca=a",
            "--pod-cidr=10.244.0.0/16,fd00:10:244::/64",
        ]);
        let config = config.unwrap();
        assert_eq!((config.nb.len(), config.pod_cidr.len()), (2, 2));
    }

    #[test]
    fn each_ca_signs_its_own_kind() {
        let args = [
            "--nb=unix:/x",
            "--channel-ca-cert=c",
            "--channel-ca-key=k",
            "--channel-cert-hours=2",
        ];
        let signers: Vec<SignerConfig> = parse(&args).unwrap().signers().collect();
        let [channel] = signers.as_slice() else {
            panic!("{signers:?}");
        };
        assert_eq!(channel.profile, CHANNEL);
        assert_eq!(channel.lifetime, Duration::from_secs(7200));
    }

    #[test]
    fn wrong_flags_say_what_is_wanted() {
        assert!(parse(&[]).unwrap_err().contains("--nb"));
        assert!(
            parse(&["--nb=ssl:10.0.0.1:6641"])
                .unwrap_err()
                .contains("--nb-key")
        );
        assert!(
            parse(&["--nb=unix:/x", "--sb=ssl:10.0.0.1:1"])
                .unwrap_err()
                .contains("no role")
        );
        let args = [
            "--nb=unix:/x",
            "--pod-cidr=fd00::/64",
            "--join-cidr=100.64.0.0/16",
        ];
        assert!(parse(&args).unwrap_err().contains("--join-cidr"));
        let two = parse(&["--nb=unix:/x", "--pod-cidr=10.0.0.0/16,10.1.0.0/16"]);
        assert!(two.unwrap_err().contains("--pod-cidr"));
    }
}
