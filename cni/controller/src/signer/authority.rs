//! The chassis CA: makes a certificate of a grant.

use super::verdict::Grant;
use api::names::CHASSIS_ORGANIZATION;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, SubjectPublicKeyInfo,
};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Certificates are valid from a little before now, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(300);

/// A CA that is loaded and ready to sign.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// A file of the CA could not be read.
    #[error("chassis CA: cannot read {path} ({why}): is the Secret outboard-chassis-ca mounted?")]
    Read {
        /// The file.
        path: String,
        /// The system's answer.
        why: std::io::Error,
    },
    /// A file of the CA has no usable content.
    #[error("chassis CA: {path} is not {what} ({why}): put a PEM file there")]
    Content {
        /// The file.
        path: String,
        /// What it should be.
        what: &'static str,
        /// What the parser says.
        why: rcgen::Error,
    },
    /// Signing failed.
    #[error("chassis CA: no certificate for chassis {chassis}: {why}")]
    Sign {
        /// For whom.
        chassis: String,
        /// What the library says.
        why: rcgen::Error,
    },
}

impl Authority {
    /// Reads certificate and key.
    pub(crate) fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let pem = read(key)?;
        let pair = KeyPair::from_pem(&pem)
            .map_err(|why| content(key, "a private key in PKCS #8 form", why))?;
        let pem = read(certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, pair)
            .map_err(|why| content(certificate, "a CA certificate", why))?;
        Ok(Self { issuer })
    }

    /// The certificate (PEM) of the chassis, from a little before `now`. Without the CA's own: Open
    /// vSwitch sends no chain, so the database's server must know the signing CA itself.
    ///
    /// Subject, usages and lifetime are ours; from the request comes the public key alone.
    pub(crate) fn sign(
        &self,
        grant: &Grant,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, AuthorityError> {
        let error = |why| AuthorityError::Sign {
            chassis: grant.chassis.clone(),
            why,
        };
        let public_key = SubjectPublicKeyInfo::from_der(&grant.public_key).map_err(error)?;
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, CHASSIS_ORGANIZATION);
        subject.push(DnType::CommonName, grant.chassis.as_str());
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        params.not_before = (now - BACKDATE).into();
        params.not_after = (now + lifetime).into();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let mut serial = rand::random::<[u8; 16]>();
        serial[0] &= 0x7f;
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let signed = params.signed_by(&public_key, &self.issuer).map_err(error)?;
        Ok(signed.pem())
    }
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|why| AuthorityError::Read {
        path: path.display().to_string(),
        why,
    })
}

fn content(path: &Path, what: &'static str, why: rcgen::Error) -> AuthorityError {
    AuthorityError::Content {
        path: path.display().to_string(),
        what,
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, PublicKeyData as _};
    use x509_parser::pem::parse_x509_pem;

    fn authority(dir: &Path) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
        fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
        Authority::load(&dir.join("tls.crt"), &dir.join("tls.key")).unwrap()
    }

    #[test]
    fn the_certificate_says_what_we_say() {
        let dir = tempfile::tempdir().unwrap();
        let authority = authority(dir.path());
        let node = KeyPair::generate().unwrap();
        let grant = Grant {
            chassis: "n1".to_owned(),
            public_key: node.subject_public_key_info(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let pem = authority
            .sign(&grant, Duration::from_secs(86_400), now)
            .unwrap();

        let ca = fs::read(dir.path().join("tls.crt")).unwrap();
        let (_, ca) = parse_x509_pem(&ca).unwrap();
        let ca = ca.parse_x509().unwrap();
        let (_, leaf) = parse_x509_pem(pem.as_bytes()).unwrap();
        let leaf = leaf.parse_x509().unwrap();
        assert_eq!(
            leaf.subject().iter_common_name().next().unwrap().as_str(),
            Ok("n1")
        );
        assert_eq!(
            leaf.subject().iter_organization().next().unwrap().as_str(),
            Ok("outboard:chassis")
        );
        assert_eq!(leaf.public_key().raw, node.subject_public_key_info());
        leaf.verify_signature(Some(ca.public_key())).unwrap();
        assert_eq!(leaf.validity().not_before.timestamp(), 1_800_000_000 - 300);
        assert_eq!(
            leaf.validity().not_after.timestamp(),
            1_800_000_000 + 86_400
        );
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        assert!(leaf.subject_alternative_name().unwrap().is_none());

        let again = authority
            .sign(&grant, Duration::from_secs(60), now)
            .unwrap();
        let (_, again) = parse_x509_pem(again.as_bytes()).unwrap();
        assert_ne!(again.parse_x509().unwrap().raw_serial(), leaf.raw_serial());
    }

    #[test]
    fn a_missing_ca_names_the_secret() {
        let dir = tempfile::tempdir().unwrap();
        let error = Authority::load(&dir.path().join("tls.crt"), &dir.path().join("tls.key"));
        let error = error.err().unwrap().to_string();
        assert!(
            error.contains("tls.key") && error.contains("outboard-chassis-ca"),
            "{error}"
        );
        fs::write(dir.path().join("tls.key"), "rubbish").unwrap();
        let error = Authority::load(&dir.path().join("tls.crt"), &dir.path().join("tls.key"));
        assert!(error.err().unwrap().to_string().contains("PKCS #8"));
    }
}
