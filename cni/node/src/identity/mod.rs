//! The node's certificate: `cni-node identity`, the only part of this crate that talks to Kubernetes.
//!
//! It runs in an init container (a native sidecar with `--keep`) under a projected, node-bound token, so that the long-running
//! daemon mounts no token at all (design §2.11). It makes a key, posts a CertificateSigningRequest to signer
//! `iaas.yusur.io/node`, awaits the certificate, and keeps `tls.key`, `tls.crt` and `ca.crt` in a directory where ovn-controller
//! and cni-node read them by path. What a certificate must look like is [`validity`]'s, how files are swapped is [`store`]'s, what
//! is said to the API server is [`request`]'s.
//!
//! Old requests are left to kube-controller-manager's CSR cleaner (one hour after issue): deleting them would need a permission
//! that lets a stolen node token delete everybody's.

mod request;
mod store;
mod validity;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::names::{IDENTITY_DIR, SIGNER};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::request::Request;
use self::store::{Identity, Store};
use self::validity::Verdict;

/// How often a kept identity is looked at again: the ConfigMap behind `--ca` changes without an event, and a clock may jump.
const RECHECK: Duration = Duration::from_secs(60);

/// What `cni-node identity` is told.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Name of the Kubernetes node this runs on (downward API, spec.nodeName).
    #[arg(long, visible_alias = "node-name", env = "OUTBOARD_NODE")]
    pub(crate) node: String,
    /// Directory of tls.key, tls.crt and ca.crt; made with mode 0700.
    #[arg(long, env = "OUTBOARD_IDENTITY_DIR", default_value = IDENTITY_DIR)]
    pub(crate) directory: PathBuf,
    /// CA bundle (PEM) that signs the southbound database's server certificate; copied to ca.crt and followed when it changes.
    #[arg(long, env = "OUTBOARD_CA", default_value = "/etc/outboard/ca/ca.crt")]
    pub(crate) ca: PathBuf,
    /// Lifetime to ask for, in seconds; the signer may shorten it.
    #[arg(long, env = "OUTBOARD_IDENTITY_LIFETIME", default_value_t = 2_592_000,
          value_parser = clap::value_parser!(i32).range(600..))]
    pub(crate) lifetime_seconds: i32,
    /// Give up after so many seconds without a certificate (only with --once; --keep tries for ever).
    #[arg(long, env = "OUTBOARD_IDENTITY_TIMEOUT", default_value_t = 300)]
    pub(crate) timeout_seconds: u64,
    /// Leave as soon as the directory holds a certificate that is good for now (the default).
    #[arg(long, conflicts_with = "keep")]
    pub(crate) once: bool,
    /// Stay, and renew at two thirds of each certificate's life.
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Why there is no certificate. Every sentence names the object and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The signer, or an administrator, said no: asking again with the same request is useless.
    #[error(
        "certificate request {name} for node {chassis} was denied ({reason}): {message}; the request must come from a token bound to that node: see `kubectl describe csr {name}` and cni-controller's log"
    )]
    Denied {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// CN that was asked for.
        chassis: String,
        /// Condition's reason.
        reason: String,
        /// Condition's message.
        message: String,
    },
    /// The signer approved the request and then could not sign it.
    #[error(
        "certificate request {name} was approved but not signed ({reason}): {message}; see cni-controller's log"
    )]
    Failed {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// Condition's reason.
        reason: String,
        /// Condition's message.
        message: String,
    },
    /// Nobody decided in time.
    #[error(
        "certificate request {name} was neither signed nor denied within {seconds} s: is cni-controller running (it signs for {SIGNER})? See `kubectl get csr {name}`"
    )]
    Undecided {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// How long it was awaited.
        seconds: u64,
    },
    /// The request vanished while it was awaited; another one may be posted.
    #[error(
        "certificate request {name} was deleted before it was decided; a new one is posted at the next try"
    )]
    Deleted {
        /// Name of the CertificateSigningRequest.
        name: String,
    },
    /// The API server refused or could not be reached.
    #[error("cannot {action} certificate request {name} at the API server")]
    Api {
        /// `post` or `watch`.
        action: &'static str,
        /// Name of the CertificateSigningRequest.
        name: String,
        /// What kube said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// What came back is not a certificate for our key and name.
    #[error(
        "the certificate issued for request {name} cannot be used: {problem}; see the signer's log (cni-controller)"
    )]
    Unusable {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A key could not be made or read.
    #[error("cannot make a key pair for node {chassis}")]
    Key {
        /// CN that was to be asked for.
        chassis: String,
        /// What rcgen said.
        #[source]
        source: rcgen::Error,
    },
    /// The directory, or the CA bundle, cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Files {
        /// `read`, `write`, …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Runs `cni-node identity` until the pair is good (`--once`) or until `stop` (`--keep`).
///
/// # Errors
/// With `--once`, the last [`Error`] when no certificate was there in time, or at once when the request was denied. With `--keep`
/// only what cannot heal by waiting: a missing Kubernetes configuration.
pub(crate) async fn main(args: Args, stop: CancellationToken) -> anyhow::Result<()> {
    let config = kube::Config::infer().await.map_err(|error| {
        anyhow::anyhow!(
            "no Kubernetes API to ask for a certificate ({error}): run this in a pod with a service account token, or set KUBECONFIG"
        )
    })?;
    let client = kube::Client::try_from(config)?;
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = run(&args, client) => outcome.map_err(anyhow::Error::from),
    }
}

async fn run(args: &Args, client: kube::Client) -> Result<(), Error> {
    let Args {
        node,
        directory,
        ca,
        lifetime_seconds,
        timeout_seconds,
        once: _,
        keep,
    } = args;
    let chassis = api::names::chassis(node);
    let store = Store::open(directory)?;
    let deadline = Instant::now() + Duration::from_secs(*timeout_seconds);
    let mut backoff = Duration::from_secs(1);
    loop {
        let request = Request {
            chassis: &chassis,
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
                error!(chassis, retry_in_s = backoff.as_secs(), "{}", chain(&error));
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
    match validity::judge(held.as_ref(), request.chassis, now()) {
        Verdict::Use { renew_at } => {
            if let Some(held) = held.filter(|held| held.ca_pem != ca_pem) {
                info!(directory = %store.directory().display(), "the CA bundle changed");
                store.write(&Identity { ca_pem, ..held })?;
            }
            Ok(renew_at)
        }
        Verdict::Renew { why } => {
            info!(chassis = request.chassis, why, "asking for a certificate");
            let (key_pem, cert_pem) = request.obtain(store, client).await?;
            let identity = Identity {
                key_pem,
                cert_pem,
                ca_pem,
            };
            let renew_at = match validity::judge(Some(&identity), request.chassis, now()) {
                Verdict::Use { renew_at } => renew_at,
                Verdict::Renew { why } => {
                    warn!(
                        chassis = request.chassis,
                        why, "the new certificate is due at once"
                    );
                    now()
                }
            };
            store.write(&identity)?;
            store.forget_pending();
            info!(chassis = request.chassis, renew_at, directory = %store.directory().display(), "certificate in place");
            Ok(renew_at)
        }
    }
}

/// The error with its sources, on one line.
fn chain(error: &Error) -> String {
    let mut line = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}

fn now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
