//! How does a node come to a certificate?
//!
//! A container on the node, the only one with a token, asks ([`ask`]): it makes a key, posts a CertificateSigningRequest and keeps
//! key, certificate and CA bundle in a directory. A controller that holds the CA signs ([`sign`]): what a certificate says is decided
//! by who posted the request and on which node that token lives, which are facts of the API server, and never by the request.
//!
//! Which signer, for whom, and what the certificate is good for is a [`Profile`]. [`Authority`] is a CA; whoever holds one may
//! also [`issue`](Authority::issue) certificates to itself.
//!
//! Features: `ask` and `sign`, so that nobody carries the other half.

#[cfg(feature = "ask")]
pub mod ask;
#[cfg(feature = "sign")]
mod authority;
mod profile;
#[cfg(feature = "sign")]
pub mod sign;

#[cfg(feature = "sign")]
pub use authority::{Authority, AuthorityError, Issued, Leaf};
pub use profile::{CHANNEL, CHASSIS, Profile, STORAGE_NODE};

/// The error with its sources, on one line.
#[cfg(any(feature = "ask", feature = "sign"))]
fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    line
}
