//! The mTLS listener's certificate, and whom it believes: read again for each connection, so that a renewed certificate or another CA
//! counts without a restart. Connections that are there stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use daemon::readiness::Check;
use futures::stream::{self, Stream, StreamExt};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::TcpIncoming;

/// Who has not shaken hands by then is sent away.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many may be at it at once; further ones wait in the kernel's queue.
const AT_ONCE: usize = 256;
/// How often the directory is looked into while there is nothing usable yet: the container that asks for it may still be waiting.
const RETRY: Duration = Duration::from_secs(1);

/// Whom we believe, who we are, and the proof.
const FILES: [&str; 3] = ["ca-cert.pem", "server-cert.pem", "server-key.pem"];

/// The files of `--tls`, as they were read last.
pub(crate) struct Credentials {
    directory: PathBuf,
    check: Check,
    contents: Option<[Vec<u8>; 3]>,
    acceptor: Option<TlsAcceptor>,
    complaint: Option<String>,
}

impl Credentials {
    /// The check is content from the first moment on at which somebody could connect.
    pub(crate) fn new(directory: &Path, check: Check) -> Self {
        Self {
            directory: directory.to_owned(),
            check,
            contents: None,
            acceptor: None,
            complaint: None,
        }
    }

    /// As the files are now; as they were, if they can't be used.
    async fn current(&mut self) -> TlsAcceptor {
        loop {
            self.complaint = match self.refresh() {
                Ok(()) => None,
                Err(why) => {
                    self.complain(&why);
                    Some(why)
                }
            };
            match &self.acceptor {
                Some(acceptor) => return acceptor.clone(),
                None => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn refresh(&mut self) -> Result<(), String> {
        let mut contents = [const { Vec::new() }; 3];
        for (name, content) in FILES.iter().zip(&mut contents) {
            let path = self.directory.join(name);
            *content = std::fs::read(&path)
                .map_err(|why| format!("--tls: can't read {}: {why}", path.display()))?;
        }
        if self.contents.as_ref() == Some(&contents) {
            return Ok(());
        }
        let acceptor = acceptor(&contents)
            .map_err(|why| format!("--tls: {}: {why}", self.directory.display()))?;
        tracing::info!(directory = %self.directory.display(), "certificate loaded");
        self.contents = Some(contents);
        self.acceptor = Some(acceptor);
        self.check.ready();
        Ok(())
    }

    fn complain(&self, why: &str) {
        if self.acceptor.is_none() {
            self.check.not_ready(why);
        } else if self.complaint.as_deref() != Some(why) {
            tracing::warn!("{why}; the former certificate is shown");
        }
    }
}

fn acceptor([ca, certificate, key]: &[Vec<u8>; 3]) -> Result<TlsAcceptor, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(ca) {
        let authority = authority.map_err(|e| format!("{}: {e}", FILES[0]))?;
        roots
            .add(authority)
            .map_err(|e| format!("{}: {e}", FILES[0]))?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(|e| format!("{}: {e}", FILES[1]))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| format!("{}: {e}", FILES[2]))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let callers =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|e| format!("{}: {e}", FILES[0]))?;
    // It refuses a key that is not the certificate's: what was read while the files were exchanged is not used.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(callers)
        .with_single_cert(chain, key)
        .map_err(|e| format!("{} and {}: {e}", FILES[1], FILES[2]))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Callers that have shown a certificate we believe.
pub(crate) fn incoming(
    listener: TcpIncoming,
    credentials: Credentials,
) -> impl Stream<Item = std::io::Result<TlsStream<TcpStream>>> {
    let handshakes = stream::unfold(
        (listener, credentials),
        |(mut listener, mut credentials)| async move {
            // Before the first caller comes, so that the check says whether one could.
            credentials.current().await;
            let accepted = listener.next().await?;
            let acceptor = credentials.current().await;
            Some((shake(acceptor, accepted), (listener, credentials)))
        },
    );
    handshakes
        .buffer_unordered(AT_ONCE)
        .filter_map(|shaken| std::future::ready(shaken.transpose()))
}

/// `None`: the caller went, or was sent away.
async fn shake(
    acceptor: TlsAcceptor,
    accepted: std::io::Result<TcpStream>,
) -> std::io::Result<Option<TlsStream<TcpStream>>> {
    let stream = accepted?;
    let peer = stream.peer_addr().ok();
    match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Ok(Some(stream)),
        Ok(Err(why)) => {
            tracing::debug!(?peer, "TLS handshake: {why}");
            Ok(None)
        }
        Err(_) => {
            tracing::debug!(?peer, "no TLS handshake within {PATIENCE:?}");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests;
