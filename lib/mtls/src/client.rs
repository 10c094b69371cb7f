//! The side that connects: to whom, and as whom.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::files::{Cached, Files, Material};
use crate::{Connection, Error};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// Nothing usable lies in the files, and never did.
    #[error(transparent)]
    Files(#[from] Error),
    /// The server has a name that no certificate could have.
    #[error("{name} is no DNS name")]
    Name {
        /// The name.
        name: String,
    },
    /// One side refuses the other, or the stream broke.
    #[error("TLS with {name}: {source}")]
    Handshake {
        /// The server.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Shakes hands with servers.
pub struct Connector {
    cached: Cached<Arc<ClientConfig>>,
    complaint: Option<String>,
}

impl Connector {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(files: Files) -> Self {
        Self {
            cached: Cached::new(files, make),
            complaint: None,
        }
    }

    /// A connection to the server whose certificate says `name`. How long that may take is the caller's matter. The server's verdict on
    /// our certificate comes only with the first byte that is read ([`Peer::broken`](crate::Peer::broken)).
    ///
    /// # Errors
    /// Every [`Failed`].
    pub async fn connect(&mut self, name: &str, stream: TcpStream) -> Result<Connection, Failed> {
        let config = self.current()?;
        let server = ServerName::try_from(name.to_owned()).map_err(|_| Failed::Name {
            name: name.to_owned(),
        })?;
        // Whatever it can't set is a matter of speed.
        let _ = stream.set_nodelay(true);
        let failed = |source| Failed::Handshake {
            name: name.to_owned(),
            source,
        };
        let shaken = TlsConnector::from(config).connect(server, stream).await;
        let stream = shaken.map_err(failed)?;
        Connection::new(stream.into())
            .ok_or_else(|| failed(std::io::Error::other("its certificate can't be read")))
    }

    /// As the files are now; as they were, if they can't be used.
    fn current(&mut self) -> Result<Arc<ClientConfig>, Error> {
        let complaint = match (self.cached.refresh(), self.cached.made()) {
            (Ok(()), _) => None,
            (Err(why), None) => return Err(why),
            (Err(why), Some(_)) => Some(why.to_string()),
        };
        if let Some(why) = &complaint
            && self.complaint != complaint
        {
            tracing::warn!("{why}; the former certificate is shown");
        }
        self.complaint = complaint;
        Ok(self
            .cached
            .made()
            .expect("a successful look leaves something behind"))
    }
}

fn make(material: Material) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(material.roots)
        .with_client_auth_cert(material.chain, material.key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would not look at the certificate again.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}
