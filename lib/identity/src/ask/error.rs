//! Why there is no certificate.

use std::path::PathBuf;

/// Why there is no certificate. Every sentence names the object and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The signer, or an administrator, said no: asking again with the same request is useless.
    #[error(
        "certificate request {name} for node {common_name} was denied ({reason}): {message}; the request must come from a token bound to that node: see `kubectl describe csr {name}` and {controller}'s log"
    )]
    Denied {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// CN that was asked for.
        common_name: String,
        /// Condition's reason.
        reason: String,
        /// Condition's message.
        message: String,
        /// The program that signs.
        controller: &'static str,
    },
    /// The signer approved the request and then could not sign it.
    #[error(
        "certificate request {name} was approved but not signed ({reason}): {message}; see {controller}'s log"
    )]
    Failed {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// Condition's reason.
        reason: String,
        /// Condition's message.
        message: String,
        /// The program that signs.
        controller: &'static str,
    },
    /// Nobody decided in time.
    #[error(
        "certificate request {name} was neither signed nor denied within {seconds} s: is {controller} running (it signs for {signer})? See `kubectl get csr {name}`"
    )]
    Undecided {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// How long it was awaited.
        seconds: u64,
        /// The program that signs.
        controller: &'static str,
        /// For whom it signs.
        signer: &'static str,
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
    /// Which pair the node is in is not known.
    #[error("the API server does not list the Dpus: may this service account do that?")]
    Dpus(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What came back is not a certificate for our key and name.
    #[error(
        "the certificate issued for request {name} cannot be used: {problem}; see the signer's log ({controller})"
    )]
    Unusable {
        /// Name of the CertificateSigningRequest.
        name: String,
        /// What is wrong with it.
        problem: String,
        /// The program that signs.
        controller: &'static str,
    },
    /// A key could not be made or read.
    #[error("cannot make a key pair for node {common_name}")]
    Key {
        /// CN that was to be asked for.
        common_name: String,
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
