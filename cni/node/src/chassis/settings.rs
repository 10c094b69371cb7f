//! What this node tells ovn-controller through the local Open vSwitch database. `desired` and `plan` are pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ovsdb::{Condition, Mutation, Transaction, Uuid, Values};

ovsdb::table! {
    /// The root row of the local database.
    pub(crate) struct OpenVSwitch in "Open_vSwitch" {
        external_ids: BTreeMap<String, String>,
        other_config: BTreeMap<String, String>,
        ssl: Option<Uuid>,
    }
}

ovsdb::table! {
    /// Key, certificate and CA, by path, of OVS's and ovn-controller's TLS connections.
    pub(crate) struct Ssl in "SSL" {
        private_key: String,
        certificate: String,
        ca_cert: String,
    }
}

/// How the chassis is to be set up: the flags of `cni-node run` that OVN cares about.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Address that other nodes send Geneve packets to (downward API, status.hostIP). Required, but not with --mode host.
    #[arg(
        long,
        env = "OUTBOARD_ENCAP_IP",
        default_value = "0.0.0.0",
        hide_default_value = true
    )]
    pub(crate) encap_ip: IpAddr,
    /// Physical networks and the bridges that lead there, as OVN's ovn-bridge-mappings: "net1:br1,net2:br2". Left alone if not given.
    #[arg(long, env = "OUTBOARD_BRIDGE_MAPPINGS")]
    pub(crate) bridge_mappings: Option<String>,
    /// Datapath of br-int: "system" (kernel) or "netdev" (userspace).
    #[arg(long, env = "OUTBOARD_DATAPATH_TYPE", default_value = "system",
          value_parser = clap::builder::PossibleValuesParser::new(["system", "netdev"]))]
    pub(crate) datapath_type: String,
    /// Let ovn-controller monitor the whole southbound database: less work for its server, more memory and CPU on each node.
    #[arg(long, env = "OUTBOARD_MONITOR_ALL")]
    pub(crate) monitor_all: bool,
    /// ovn-controller probes the southbound database after so many idle milliseconds.
    #[arg(long, env = "OUTBOARD_REMOTE_PROBE_INTERVAL", default_value_t = 30_000)]
    pub(crate) remote_probe_interval: u32,
    /// ovn-controller probes ovs-vswitchd after so many idle seconds.
    #[arg(long, env = "OUTBOARD_OPENFLOW_PROBE_INTERVAL", default_value_t = 60)]
    pub(crate) openflow_probe_interval: u32,
    /// Let Open vSwitch hand flows to the card, or not. Left alone if not given; a change needs a restart of ovs-vswitchd.
    #[arg(long, env = "OUTBOARD_HW_OFFLOAD", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) hw_offload: Option<bool>,
    /// Where flows that are handed over live: "none" (card and kernel), "skip_sw" (card alone) or "skip_hw". Left alone if not given.
    #[arg(long, env = "OUTBOARD_TC_POLICY",
          value_parser = clap::builder::PossibleValuesParser::new(["none", "skip_sw", "skip_hw"]))]
    pub(crate) tc_policy: Option<String>,
    /// File in which Open vSwitch's start scripts find the system-id; skipped when its directory is not mounted.
    #[arg(
        long,
        env = "OUTBOARD_SYSTEM_ID_CONF",
        default_value = "/etc/openvswitch/system-id.conf"
    )]
    pub(crate) system_id_conf: PathBuf,
}

/// Who this node is and where its southbound database lies: common to all parts of cni-node.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Name of the Kubernetes node.
    pub(crate) node: String,
    /// Name of the chassis: system-id, CN of the certificate, part of the marker.
    pub(crate) chassis: String,
    /// The southbound database as ovn-controller is to be told ("ssl:198.18.0.1:6642,…").
    pub(crate) southbound: String,
    /// Directory of tls.key, tls.crt and ca.crt, as host processes see it.
    pub(crate) identity: PathBuf,
}

/// Paths of the three files of a TLS identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    pub(crate) private_key: String,
    pub(crate) certificate: String,
    pub(crate) ca_cert: String,
}

/// What the rows are to say. Keys that are not listed are somebody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    pub(crate) external_ids: BTreeMap<String, String>,
    pub(crate) other_config: BTreeMap<String, String>,
    pub(crate) tls: Option<TlsFiles>,
}

/// What they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Observed {
    pub(crate) root: Uuid,
    pub(crate) external_ids: BTreeMap<String, String>,
    pub(crate) other_config: BTreeMap<String, String>,
    pub(crate) ssl: Option<(Uuid, TlsFiles)>,
}

/// The difference.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Keys of external_ids to set, with their values.
    pub(crate) set: BTreeMap<String, String>,
    /// The same of other_config.
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) ssl: SslPlan,
}

/// What is to be done about the SSL row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum SslPlan {
    #[default]
    Keep,
    Insert(TlsFiles),
    Update(Uuid, TlsFiles),
}

/// The rows that `place` and `args` ask for.
pub(crate) fn desired(place: &Place, args: &Args) -> Desired {
    let mut external_ids = BTreeMap::from([
        ("system-id", place.chassis.clone()),
        ("hostname", place.node.clone()),
        ("ovn-remote", place.southbound.clone()),
        ("ovn-bridge", "br-int".to_owned()),
        ("ovn-encap-type", "geneve".to_owned()),
        ("ovn-encap-ip", args.encap_ip.to_string()),
        ("ovn-monitor-all", args.monitor_all.to_string()),
        (
            "ovn-remote-probe-interval",
            args.remote_probe_interval.to_string(),
        ),
        (
            "ovn-openflow-probe-interval",
            args.openflow_probe_interval.to_string(),
        ),
        ("ovn-bridge-datapath-type", args.datapath_type.clone()),
    ]);
    if let Some(mappings) = &args.bridge_mappings {
        external_ids.insert("ovn-bridge-mappings", mappings.clone());
    }
    let path = |file: &str| place.identity.join(file).to_string_lossy().into_owned();
    let tls = place
        .southbound
        .split(',')
        .any(|remote| remote.trim().starts_with("ssl:"))
        .then(|| TlsFiles {
            private_key: path("tls.key"),
            certificate: path("tls.crt"),
            ca_cert: path("ca.crt"),
        });
    let offload = args.hw_offload.map(|on| ("hw-offload", on.to_string()));
    let policy = args.tc_policy.clone().map(|policy| ("tc-policy", policy));
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    Desired {
        external_ids: external_ids.into_iter().map(owned).collect(),
        other_config: offload.into_iter().chain(policy).map(owned).collect(),
        tls,
    }
}

/// What differs.
pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Plan {
    let differing = |desired: &BTreeMap<String, String>, observed: &BTreeMap<String, String>| {
        let differs = |(key, value): &(&String, &String)| observed.get(*key) != Some(*value);
        let differing = desired.iter().filter(differs);
        differing
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    };
    let ssl = match (&desired.tls, &observed.ssl) {
        (None, _) => SslPlan::Keep,
        (Some(wanted), None) => SslPlan::Insert(wanted.clone()),
        (Some(wanted), Some((_, held))) if wanted == held => SslPlan::Keep,
        (Some(wanted), Some((row, _))) => SslPlan::Update(*row, wanted.clone()),
    };
    Plan {
        set: differing(&desired.external_ids, &observed.external_ids),
        config: differing(&desired.other_config, &observed.other_config),
        ssl,
    }
}

impl Plan {
    /// Whether all is as it should be.
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.config.is_empty() && self.ssl == SslPlan::Keep
    }

    /// The one transaction that performs it on the root row.
    pub(crate) fn transaction(&self, root: Uuid) -> Transaction {
        let mut transaction = Transaction::new();
        let this = || [Condition::uuid(root)];
        for (column, set) in [("external_ids", &self.set), ("other_config", &self.config)] {
            if set.is_empty() {
                continue;
            }
            // A map insert keeps an old value silently, so the keys go first.
            let keys: Vec<String> = set.keys().cloned().collect();
            transaction.mutate(
                "Open_vSwitch",
                this(),
                [
                    Mutation::delete(column, keys),
                    Mutation::insert(column, set),
                ],
            );
        }
        match &self.ssl {
            SslPlan::Keep => {}
            SslPlan::Insert(files) => {
                let row = transaction.insert("SSL", files.columns());
                transaction.update("Open_vSwitch", this(), Values::new().set("ssl", &row));
            }
            SslPlan::Update(row, files) => {
                transaction.update("SSL", [Condition::uuid(*row)], files.columns());
            }
        }
        transaction.comment("outboard cni-node: chassis");
        transaction
    }
}

impl TlsFiles {
    fn columns(&self) -> Values {
        Values::new()
            .set("private_key", self.private_key.as_str())
            .set("certificate", self.certificate.as_str())
            .set("ca_cert", self.ca_cert.as_str())
            // Trusting whatever the first server shows would defeat the verification.
            .set("bootstrap_ca_cert", false)
    }
}

/// Makes `path` hold the system-id, so that a restart of Open vSwitch does not bring a random one back. Whether it was written.
pub(crate) fn keep_system_id(path: &Path, chassis: &str) -> std::io::Result<bool> {
    if !path.parent().is_some_and(Path::is_dir) {
        return Ok(false);
    }
    if std::fs::read_to_string(path).is_ok_and(|text| text.trim() == chassis) {
        return Ok(false);
    }
    let fresh = path.with_extension("conf.outboard");
    std::fs::write(&fresh, format!("{chassis}\n"))?;
    std::fs::rename(&fresh, path)?;
    Ok(true)
}
