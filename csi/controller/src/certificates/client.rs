//! As whom csi-controller calls csi-node-dpu, and whom it believes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ::identity::Leaf;
use api::storage;
use tonic::Status;

use super::Ca;
use crate::status::Answer;

/// Of a certificate that is made anew whenever two thirds of it are over. Only this process ever has it.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What a TLS client has, as PEM.
#[derive(Clone)]
pub(crate) struct Pems {
    /// Whom it believes.
    pub(crate) ca: String,
    /// As whom it comes.
    pub(crate) certificate: String,
    /// A secret.
    pub(crate) key: String,
    /// Connections that are made later need another certificate. `None`: nobody knows when.
    pub(crate) until: Option<SystemTime>,
}

/// Where they come from.
#[derive(Debug)]
pub(crate) enum Credentials {
    /// There are none: only unix sockets can be reached.
    None,
    /// From a directory (`--node-tls`) that somebody else keeps.
    Directory(PathBuf),
    /// Made by ourselves.
    Own(Own),
}

/// A certificate of our own CA, in memory.
pub(crate) struct Own {
    ca: Ca,
    last: Arc<Mutex<Option<Pems>>>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Own").field(&self.ca).finish()
    }
}

impl Credentials {
    pub(crate) fn own(ca: Ca) -> Self {
        Self::Own(Own {
            ca,
            last: Arc::default(),
        })
    }

    /// For a new connection to `uri`.
    ///
    /// # Errors
    /// UNAVAILABLE: there are none, or they can't be read or made.
    pub(crate) async fn get(&self, uri: &str) -> Answer<Pems> {
        match self {
            Self::None => Err(Status::unavailable(format!(
                "{uri} needs a client certificate; start csi-controller with --ca or --node-tls"
            ))),
            Self::Directory(dir) => read(dir).await,
            Self::Own(own) => {
                let (ca, last) = (own.ca.clone(), Arc::clone(&own.last));
                let made = tokio::task::spawn_blocking(move || mint(&ca, &last, SystemTime::now()));
                let made = made
                    .await
                    .map_err(anyhow::Error::from)
                    .and_then(|made| made);
                made.map_err(|why| Status::unavailable(format!("--ca: {why:#}")))
            }
        }
    }
}

async fn read(dir: &Path) -> Answer<Pems> {
    let read = async |file: &str| {
        let path = dir.join(file);
        let read = tokio::fs::read_to_string(&path).await;
        read.map_err(|why| Status::unavailable(format!("--node-tls {}: {why}", path.display())))
    };
    Ok(Pems {
        ca: read("ca-cert.pem").await?,
        certificate: read("client-cert.pem").await?,
        key: read("client-key.pem").await?,
        until: None,
    })
}

/// The last one, if it is still good and of the CA as it is now; else another one.
fn mint(ca: &Ca, last: &Mutex<Option<Pems>>, now: SystemTime) -> anyhow::Result<Pems> {
    let authority = ca.load()?;
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = &*last
        && there.ca == authority.certificate_pem()
        && there.until.is_some_and(|until| now < until)
    {
        return Ok(there.clone());
    }
    let leaf = Leaf {
        common_name: storage::CONTROLLER.to_owned(),
        organization: Some(storage::CONTROLLER_ORGANIZATION.to_owned()),
        client: true,
        ..Leaf::default()
    };
    let made = authority.issue(&leaf, LIFETIME, now)?;
    let pems = Pems {
        ca: authority.certificate_pem().to_owned(),
        certificate: made.certificate_pem,
        key: made.key_pem,
        until: Some(now + LIFETIME * 2 / 3),
    };
    *last = Some(pems.clone());
    tracing::info!("made a client certificate for csi-node-dpu");
    Ok(pems)
}

#[cfg(test)]
mod tests {
    use super::super::target::tests::authority;
    use super::*;
    use x509_parser::pem::parse_x509_pem;

    #[test]
    fn a_certificate_is_made_anew_before_it_ends_and_for_another_ca() {
        let dir = tempfile::tempdir().unwrap();
        authority(dir.path());
        let (ca, last) = (Ca::new(dir.path()), Mutex::default());
        let begin = SystemTime::now();
        let hours = |hours: u64| begin + Duration::from_secs(hours * 3600);
        let mint = |now| mint(&ca, &last, now).unwrap();
        let first = mint(begin);
        assert_eq!(mint(hours(15)).certificate, first.certificate);
        let second = mint(hours(17));
        assert_ne!(second.certificate, first.certificate);
        assert_eq!(mint(hours(18)).certificate, second.certificate);
        authority(dir.path());
        let third = mint(hours(18));
        assert_ne!(third.ca, second.ca);

        let (_, pem) = parse_x509_pem(third.certificate.as_bytes()).unwrap();
        let leaf = pem.parse_x509().unwrap();
        assert_eq!(
            leaf.subject().iter_common_name().next().unwrap().as_str(),
            Ok("system:csi-controller")
        );
        assert!(!format!("{:?}", Credentials::own(ca)).contains("BEGIN"));
    }
}
