//! The files, as they were read last, and what was made of them.

use std::path::{Path, PathBuf};

use changes::Changes;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Where key, certificate and CA lie, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The private key.
    pub key: PathBuf,
    /// Its certificate, and intermediate ones behind it.
    pub cert: PathBuf,
    /// Whom we believe; may hold several.
    pub ca: PathBuf,
    /// What to call them in sentences, such as a flag; may be empty.
    pub named: &'static str,
}

impl Files {
    /// As `lib/identity` leaves them: `tls.key`, `tls.crt`, `ca.crt`.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            key: directory.join("tls.key"),
            cert: directory.join("tls.crt"),
            ca: directory.join("ca.crt"),
            named: "",
        }
    }
}

/// Why the files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One is not there, or can't be read.
    #[error("{}can't read {}: {source}", prefix(.named), .path.display())]
    Unreadable {
        /// [`Files::named`].
        named: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One is not what it should be, or they do not belong together.
    #[error("{}{}: {why}", prefix(.named), .path.display())]
    Unusable {
        /// [`Files::named`].
        named: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

fn prefix(named: &str) -> String {
    if named.is_empty() {
        String::new()
    } else {
        format!("{named}: ")
    }
}

/// What stands in the files.
pub(crate) struct Material {
    pub(crate) roots: RootCertStore,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Made of the files; made anew when they have changed.
pub(crate) struct Cached<T> {
    files: Files,
    /// CA, certificate, key.
    contents: Option<[Vec<u8>; 3]>,
    made: Option<T>,
    make: fn(Material) -> Result<T, rustls::Error>,
}

impl<T: Clone> Cached<T> {
    pub(crate) fn new(files: Files, make: fn(Material) -> Result<T, rustls::Error>) -> Self {
        Self {
            files,
            contents: None,
            made: None,
            make,
        }
    }

    /// What was made of the files that were usable last.
    pub(crate) fn made(&self) -> Option<T> {
        self.made.clone()
    }

    /// What changes from now on where the files lie.
    pub(crate) fn changes(&self) -> Changes {
        let Files { key, cert, ca, .. } = &self.files;
        Changes::within([key, cert, ca].into_iter().filter_map(|file| file.parent()))
    }

    /// Looks at the files.
    pub(crate) fn refresh(&mut self) -> Result<(), Error> {
        let files = &self.files;
        let contents = [
            self.read(&files.ca)?,
            self.read(&files.cert)?,
            self.read(&files.key)?,
        ];
        if self.contents.as_ref() == Some(&contents) {
            return Ok(());
        }
        let material = self.material(&contents)?;
        // It refuses a key that is not the certificate's: what was read while the files were exchanged is not used.
        let made = (self.make)(material).map_err(|why| self.unusable(&files.cert, &why))?;
        tracing::info!(certificate = %files.cert.display(), "certificate loaded");
        self.contents = Some(contents);
        self.made = Some(made);
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        std::fs::read(path).map_err(|source| Error::Unreadable {
            named: self.files.named,
            path: path.to_owned(),
            source,
        })
    }

    fn material(&self, [ca, cert, key]: &[Vec<u8>; 3]) -> Result<Material, Error> {
        let files = &self.files;
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(ca) {
            let authority = authority.map_err(|why| self.unusable(&files.ca, &why))?;
            let added = roots.add(authority);
            added.map_err(|why| self.unusable(&files.ca, &why))?;
        }
        if roots.is_empty() {
            return Err(self.unusable(&files.ca, &"no certificate in it"));
        }
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        Ok(Material {
            roots,
            chain: chain.map_err(|why| self.unusable(&files.cert, &why))?,
            key: PrivateKeyDer::from_pem_slice(key)
                .map_err(|why| self.unusable(&files.key, &why))?,
        })
    }

    fn unusable(&self, path: &Path, why: &dyn std::fmt::Display) -> Error {
        Error::Unusable {
            named: self.files.named,
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}
