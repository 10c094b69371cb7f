//! The asking half: a node's certificate, and the only part of a node's programs that talks to Kubernetes.
//!
//! It runs in an init container (a native sidecar with `--keep`) under a projected, node-bound token, so that the long-running
//! daemons mount no token at all (design §2.11). It makes a key, posts a CertificateSigningRequest to the profile's signer,
//! awaits the certificate, and keeps `tls.key`, `tls.crt` and `ca.crt` in a directory where others
//! read them by path. What a certificate must look like is [`validity`]'s, how files are swapped is [`store`]'s, what
//! is said to the API server is [`request`]'s.
//!
//! Old requests are left to kube-controller-manager's CSR cleaner (one hour after issue): deleting them would need a permission
//! that lets a stolen node token delete everybody's.

mod error;
mod network;
pub mod pairing;
mod request;
mod store;
mod validity;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::error::Error;
pub use self::network::{Kind, Network};
use self::request::Request;
use self::store::{Identity, Store};
use self::validity::{Holder, Verdict};
use crate::Profile;

/// How often a kept identity is looked at again: the ConfigMap behind `--ca` changes without an event, and a clock may jump.
const RECHECK: Duration = Duration::from_secs(60);

/// What the subcommand `identity` is told. Defaults are those of [`CHASSIS`](crate::CHASSIS); a program with another profile changes
/// them by `mut_arg`.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the Kubernetes node this runs on (downward API, spec.nodeName).
    #[arg(long, visible_alias = "node-name", env = "OUTBOARD_NODE")]
    pub node: String,
    /// Directory of tls.key, tls.crt and ca.crt; made with mode 0700.
    #[arg(long, env = "OUTBOARD_IDENTITY_DIR", default_value = api::names::IDENTITY_DIR)]
    pub directory: PathBuf,
    /// CA bundle (PEM) that signs the southbound database's server certificate; copied to ca.crt and followed when it changes.
    #[arg(long, env = "OUTBOARD_CA", default_value = "/etc/outboard/ca/ca.crt")]
    pub ca: PathBuf,
    /// Lifetime to ask for, in seconds; the signer may shorten it.
    #[arg(long, env = "OUTBOARD_IDENTITY_LIFETIME", default_value_t = 2_592_000,
          value_parser = clap::value_parser!(i32).range(600..))]
    pub lifetime_seconds: i32,
    /// Give up after so many seconds without a certificate (only with --once; --keep tries for ever).
    #[arg(long, env = "OUTBOARD_IDENTITY_TIMEOUT", default_value_t = 300)]
    pub timeout_seconds: u64,
    /// Leave as soon as the directory holds a certificate that is good for now (the default).
    #[arg(long, conflicts_with = "keep")]
    pub once: bool,
    /// Stay, and renew at two thirds of each certificate's life.
    #[arg(long)]
    pub keep: bool,
}

/// The subcommand `identity`: runs until the pair is good (`--once`) or until `stop` (`--keep`).
///
/// # Errors
/// With `--once`, the last [`Error`] when no certificate was there in time, or at once when the request was denied. With `--keep`
/// only what cannot heal by waiting: a missing Kubernetes configuration.
pub async fn run(profile: Profile, args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let client = kube::Client::try_from(kubernetes().await?)?;
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = obtain(&profile, &args, client) => outcome.map_err(anyhow::Error::from),
    }
}

async fn kubernetes() -> anyhow::Result<kube::Config> {
    kube::Config::infer().await.map_err(|error| {
        anyhow::anyhow!(
            "no Kubernetes API to ask for a certificate ({error}): run this in a pod with a service account token, or set KUBECONFIG"
        )
    })
}

/// [`run`] with a connection to the API server that is there.
///
/// # Errors
/// As [`run`]; a missing configuration apart.
pub async fn obtain(profile: &Profile, args: &Args, client: kube::Client) -> Result<(), Error> {
    let Args {
        node,
        directory,
        ca,
        lifetime_seconds,
        timeout_seconds,
        once: _,
        keep,
    } = args;
    let common_name = profile.common_name(node);
    let store = Store::open(directory, profile.for_qemu)?;
    let deadline = Instant::now() + Duration::from_secs(*timeout_seconds);
    let mut backoff = Duration::from_secs(1);
    loop {
        let request = Request {
            profile,
            holder: Holder {
                common_name: &common_name,
                dns_name: profile.dns_name(node),
            },
            lifetime_seconds: *lifetime_seconds,
            patience: if *keep {
                Duration::from_secs(600)
            } else {
                deadline - Instant::now()
            },
        };
        match converge(&store, ca, &request, &client).await {
            Ok(renew_at) if *keep => {
                backoff = Duration::from_secs(1);
                let left =
                    Duration::from_secs(renew_at.saturating_sub(now()).max(1).unsigned_abs());
                tokio::time::sleep(left.min(RECHECK)).await;
            }
            Ok(_) => return Ok(()),
            // A refusal is the signer's word, not a hiccup: the init container ends, its restart is the next try.
            Err(refusal @ (Error::Denied { .. } | Error::Failed { .. })) if !keep => {
                return Err(refusal);
            }
            Err(error) if !keep && Instant::now() + backoff >= deadline => return Err(error),
            Err(error) => {
                let (chassis, node) = profile.fields(&common_name);
                error!(
                    chassis,
                    node,
                    retry_in_s = backoff.as_secs(),
                    "{}",
                    crate::chain(&error)
                );
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(RECHECK);
            }
        }
    }
}

/// One round: observe the directory, judge it, and make it right. Returns the time of the next renewal (Unix seconds).
async fn converge(
    store: &Store,
    ca: &std::path::Path,
    request: &Request<'_>,
    client: &kube::Client,
) -> Result<i64, Error> {
    let ca_pem = std::fs::read_to_string(ca).map_err(|source| Error::Files {
        action: "read the CA bundle",
        path: ca.to_owned(),
        source,
    })?;
    let held = store.read()?;
    let (chassis, node) = request.profile.fields(request.holder.common_name);
    match validity::judge(held.as_ref(), request.holder, now()) {
        Verdict::Use { renew_at } => {
            if let Some(held) = held.filter(|held| held.ca_pem != ca_pem) {
                info!(directory = %store.directory().display(), "the CA bundle changed");
                store.write(&Identity { ca_pem, ..held })?;
            }
            Ok(renew_at)
        }
        Verdict::Renew { why } => {
            info!(chassis, node, why, "asking for a certificate");
            let (key_pem, cert_pem) = request.obtain(store, client).await?;
            let identity = Identity {
                key_pem,
                cert_pem,
                ca_pem,
            };
            let renew_at = match validity::judge(Some(&identity), request.holder, now()) {
                Verdict::Use { renew_at } => renew_at,
                Verdict::Renew { why } => {
                    warn!(chassis, node, why, "the new certificate is due at once");
                    now()
                }
            };
            store.write(&identity)?;
            store.forget_pending();
            info!(chassis, node, renew_at, directory = %store.directory().display(), "certificate in place");
            Ok(renew_at)
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
