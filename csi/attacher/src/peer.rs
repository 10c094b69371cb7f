//! Who calls: over mTLS whoever the certificate says, over the unix socket root.

use tonic::{Request, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Who may call over the network.
#[derive(Debug, Clone)]
pub(crate) struct Peers {
    allowed: Vec<String>,
}

impl Peers {
    /// Callers whose certificate has one of these common names.
    pub(crate) fn new(allowed: Vec<String>) -> Self {
        Self { allowed }
    }

    /// Lets `request` pass, if its caller may call.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    #[allow(clippy::result_large_err, reason = "the type of tonic's interceptors")]
    pub(crate) fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let name = request
            .peer_certs()
            .and_then(|chain| common_name(chain.first()?.as_ref()));
        match name {
            Some(name) if self.allowed.contains(&name) => Ok(request),
            Some(name) => Err(Status::permission_denied(format!(
                "{name} may not call volume-attacher here; give its name to --allow"
            ))),
            None => Err(Status::permission_denied(
                "a client certificate with a common name is needed",
            )),
        }
    }
}

/// The one common name of a certificate that TLS has verified.
fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    names.next().is_none().then_some(name)
}
