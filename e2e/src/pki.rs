//! Certificate authorities and certificates of a lab, as PEM files in its state directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, date_time_ymd,
};

/// A certificate authority whose files are `<dir>/<name>.crt` and `.key`.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    /// Its certificate's file.
    pub certificate: PathBuf,
    /// Its key's file.
    pub key: PathBuf,
}

/// A key and its certificate, by their files.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The certificate's file (PEM).
    pub certificate: PathBuf,
    /// The key's file (PEM, PKCS #8), mode 0600.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn create(dir: &Path, name: &str) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let mut params = params(name, &[], &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params.extended_key_usages = Vec::new();
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let files = write(dir, name, &issuer.pem(), &issuer.key().serialize_pem())?;
        Ok(Self {
            issuer,
            dir: dir.into(),
            certificate: files.certificate,
            key: files.key,
        })
    }

    /// Signs a new key for `common_name`, of `organizations` (Kubernetes' groups), reachable under `names` (DNS or IP);
    /// good for client and server. Its files are `<dir>/<file>.crt` and `.key`.
    ///
    /// # Errors
    /// A name is not valid, or the directory cannot be written.
    pub fn issue(
        &self,
        file: &str,
        common_name: &str,
        organizations: &[&str],
        names: &[String],
    ) -> Result<Credential> {
        let key = KeyPair::generate()?;
        let certificate =
            params(common_name, organizations, names)?.signed_by(&key, &self.issuer)?;
        write(&self.dir, file, &certificate.pem(), &key.serialize_pem())
    }
}

/// A key pair without a certificate (Kubernetes' service accounts): `<dir>/<name>.key` and `.pub`.
pub(crate) fn key_pair(dir: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
    let key = KeyPair::generate()?;
    let files = write(dir, name, &key.public_key_pem(), &key.serialize_pem())?;
    Ok((files.key, files.certificate))
}

fn params(
    common_name: &str,
    organizations: &[&str],
    names: &[String],
) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.remove(DnType::CommonName);
    for organization in organizations {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *organization);
    }
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    Ok(params)
}

fn write(dir: &Path, name: &str, public: &str, key: &str) -> Result<Credential> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let files = Credential {
        certificate: dir.join(format!("{name}.crt")),
        key: dir.join(format!("{name}.key")),
    };
    fs::write(&files.certificate, public)
        .with_context(|| format!("cannot write {}", files.certificate.display()))?;
    let mut secret = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&files.key)
        .with_context(|| format!("cannot write {}", files.key.display()))?;
    std::io::Write::write_all(&mut secret, key.as_bytes())?;
    Ok(files)
}
