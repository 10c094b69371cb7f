//! Who is at the other end: what its certificate says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The other end of one connection. Cheap to clone; all clones speak of the same connection.
#[derive(Debug, Clone)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: u64,
    address: Option<SocketAddr>,
    common: Vec<String>,
    dns: Vec<String>,
    expires: SystemTime,
    cut: CancellationToken,
    broken: Mutex<Option<String>>,
}

impl Peer {
    /// Of a certificate that TLS has verified.
    pub(crate) fn new(certificate: &[u8], address: Option<SocketAddr>) -> Option<Self> {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(1);
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let common = certificate.subject().iter_common_name();
        let common = common.filter_map(|name| name.as_str().ok().map(str::to_owned));
        let mut dns = Vec::new();
        if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
            for name in &alternatives.value.general_names {
                if let GeneralName::DNSName(name) = name {
                    dns.push((*name).to_owned());
                }
            }
        }
        let end = certificate.validity().not_after.timestamp();
        let end = Duration::from_secs(u64::try_from(end).unwrap_or(0));
        Some(Self(Arc::new(Inner {
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            address,
            common: common.collect(),
            dns,
            expires: SystemTime::UNIX_EPOCH + end,
            cut: CancellationToken::new(),
            broken: Mutex::new(None),
        })))
    }

    /// Which connection of this process it is: no two have the same number.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.0.connection
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.address
    }

    /// All names in its certificate: the common ones, then the DNS names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let names = self.0.common.iter().chain(&self.0.dns);
        names.cloned().collect()
    }

    /// Which node it is: the DNS name, for a common name is too short for some; where there is none, the common name. None with
    /// several of them: who it is must not be a guess.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        let names = if self.0.dns.is_empty() {
            &self.0.common
        } else {
            &self.0.dns
        };
        match names.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Its certificate is valid until then.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.expires
    }

    /// Ends the connection at once, without a word to the other side, which may not hear anyway: who waits for a byte of it gets an error.
    pub fn cut(&self) {
        self.0.cut.cancel();
    }

    /// Returns once the connection was [`cut`](Self::cut) or has gone.
    pub async fn gone(&self) {
        self.0.cut.cancelled().await;
    }

    /// Why the connection broke, if TLS or TCP said so, such as the other side's verdict on our certificate.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.0
            .broken
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.cut
    }

    pub(crate) fn broke(&self, why: &std::io::Error) {
        let mut broken = self.0.broken.lock().unwrap_or_else(PoisonError::into_inner);
        // The first is the cause, later ones follow from it.
        broken.get_or_insert_with(|| why.to_string());
    }
}
