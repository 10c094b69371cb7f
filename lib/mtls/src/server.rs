//! The side that is connected to: who may come in at all.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::readiness::Check;
use futures::stream::{self, Stream, StreamExt};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{CertificateError, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::files::{Cached, Files, Material};
use crate::{Connection, Error};

/// Who has not shaken hands by then is sent away.
const PATIENCE: Duration = Duration::from_secs(10);
/// So many may be at it at once; further ones wait in the kernel's queue.
const AT_ONCE: usize = 256;
/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate is not valid any more.
    Expired,
    /// Its certificate is not valid yet.
    NotYetValid,
    /// Its certificate is of another CA.
    OtherAuthority,
    /// Its certificate is not good for a client, or broken.
    BadCertificate,
    /// It refused us.
    RefusedUs,
    /// It did not shake hands in time.
    Silent,
    /// It went, or speaks something else.
    Gone,
}

impl Cause {
    /// For metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Expired => "certificate_expired",
            Self::NotYetValid => "certificate_not_yet_valid",
            Self::OtherAuthority => "certificate_of_another_authority",
            Self::BadCertificate => "bad_certificate",
            Self::RefusedUs => "refused_us",
            Self::Silent => "silent",
            Self::Gone => "gone",
        }
    }

    fn of(why: &io::Error) -> Self {
        let inner = why.get_ref();
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(rustls::Error::InvalidCertificate(why)) => match why {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotYetValid
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Self::OtherAuthority
                }
                _ => Self::BadCertificate,
            },
            Some(rustls::Error::AlertReceived(_)) => Self::RefusedUs,
            _ => Self::Gone,
        }
    }
}

/// Somebody who was not let in.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Where it came from.
    pub address: Option<SocketAddr>,
    /// Why not.
    pub cause: Cause,
    /// The same in words.
    pub sentence: String,
}

type Tell = Arc<dyn Fn(Refused) + Send + Sync>;

/// Shakes hands with who comes.
pub struct Acceptor {
    cached: Cached<TlsAcceptor>,
    check: Check,
    complaint: Option<String>,
    patience: Duration,
    tell: Tell,
}

impl Acceptor {
    /// The check is content from the first moment on at which somebody could connect.
    #[must_use]
    pub fn new(files: Files, check: Check) -> Self {
        Self {
            cached: Cached::new(files, make),
            check,
            complaint: None,
            patience: PATIENCE,
            tell: Arc::new(|_| {}),
        }
    }

    /// Who has not shaken hands by then is sent away; 10 s unless this says otherwise.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Is told of everybody who was not let in.
    #[must_use]
    pub fn tell(self, tell: impl Fn(Refused) + Send + Sync + 'static) -> Self {
        Self {
            tell: Arc::new(tell),
            ..self
        }
    }

    /// Callers that have shown a certificate we believe.
    pub fn incoming<L>(self, listener: L) -> impl Stream<Item = io::Result<Connection>>
    where
        L: Stream<Item = io::Result<TcpStream>> + Unpin,
    {
        let handshakes = stream::unfold(
            (listener, self),
            |(mut listener, mut acceptor)| async move {
                // Before the first caller comes, so that the check says whether one could.
                acceptor.current().await;
                let accepted = listener.next().await?;
                let current = acceptor.current().await;
                let shaking = shake(
                    current,
                    accepted,
                    acceptor.patience,
                    Arc::clone(&acceptor.tell),
                );
                Some((shaking, (listener, acceptor)))
            },
        );
        handshakes
            .buffer_unordered(AT_ONCE)
            .filter_map(|shaken| std::future::ready(shaken.transpose()))
    }

    /// As the files are now; as they were, if they can't be used.
    async fn current(&mut self) -> TlsAcceptor {
        loop {
            // While there is nothing usable: who asks for a certificate may still be waiting for it.
            let changes = self.cached.made().is_none().then(|| self.cached.changes());
            let looked = self.cached.refresh();
            self.judge(looked);
            if let Some(acceptor) = self.cached.made() {
                return acceptor;
            }
            if let Some(changes) = changes {
                changes.come().await;
            }
        }
    }

    fn judge(&mut self, looked: Result<(), Error>) {
        let complaint = looked.err().map(|why| why.to_string());
        match &complaint {
            None => self.check.ready(),
            Some(why) if self.cached.made().is_none() => self.check.not_ready(why),
            Some(why) if self.complaint != complaint => {
                tracing::warn!("{why}; the former certificate is shown");
            }
            Some(_) => {}
        }
        self.complaint = complaint;
    }
}

fn make(material: Material) -> Result<TlsAcceptor, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(material.roots);
    let callers = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
        .build()
        .map_err(|why| rustls::Error::General(why.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(callers)
        .with_single_cert(material.chain, material.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not look at the certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// `None`: the caller went, or was sent away.
async fn shake(
    acceptor: TlsAcceptor,
    accepted: io::Result<TcpStream>,
    patience: Duration,
    tell: Tell,
) -> io::Result<Option<Connection>> {
    let stream = accepted?;
    let address = stream.peer_addr().ok();
    // Whatever it can't set is a matter of speed.
    let _ = stream.set_nodelay(true);
    let (cause, why) = match tokio::time::timeout(patience, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => match Connection::new(stream.into()) {
            Some(connection) => return Ok(Some(connection)),
            None => (
                Cause::BadCertificate,
                "its certificate can't be read".to_owned(),
            ),
        },
        Ok(Err(why)) => (Cause::of(&why), format!("TLS handshake: {why}")),
        Err(_) => (
            Cause::Silent,
            format!("no TLS handshake within {patience:?}"),
        ),
    };
    tracing::debug!(?address, cause = cause.as_str(), "{why}");
    let place = address.map_or_else(|| "somebody".to_owned(), |address| address.to_string());
    tell(Refused {
        address,
        cause,
        sentence: format!("{place} was not let in: {why}"),
    });
    Ok(None)
}
