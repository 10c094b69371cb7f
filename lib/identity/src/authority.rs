//! A CA: makes certificates.

use crate::Profile;
use crate::sign::Grant;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// Certificates are valid from a little before now, for clocks that are behind.
const BACKDATE: Duration = Duration::from_secs(300);

/// The extension KeyUsage, and the bit string that says digitalSignature alone (RFC 5280 4.2.1.3).
const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const DIGITAL_SIGNATURE: [u8; 4] = [3, 2, 7, 0x80];

/// A CA that is loaded and ready to sign.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    kind: &'static str,
}

/// What a certificate says. It is valid from a little before the moment at which it is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leaf {
    /// The subject's common name, at most 64 characters.
    pub common_name: String,
    /// The subject's organization; it stands before the common name.
    pub organization: Option<String>,
    /// DNS names under which a server is reached.
    pub dns_names: Vec<String>,
    /// Addresses at which a server is reached.
    pub ip_addresses: Vec<IpAddr>,
    /// Good for a client.
    pub client: bool,
    /// Good for a server.
    pub server: bool,
}

/// A new key and its certificate.
#[derive(Clone)]
pub struct Issued {
    /// The certificate (PEM), without the CA's.
    pub certificate_pem: String,
    /// The private key (PEM, PKCS #8): ECDSA on P-256. A secret.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A file of the CA could not be read.
    #[error("{kind} CA: cannot read {path} ({why}): is the Secret outboard-{kind}-ca mounted?")]
    Read {
        /// Which CA: a profile's `kind`.
        kind: &'static str,
        /// The file.
        path: String,
        /// The system's answer.
        why: std::io::Error,
    },
    /// A file of the CA has no usable content.
    #[error("{kind} CA: {path} is not {what} ({why}): put a PEM file there")]
    Content {
        /// Which CA: a profile's `kind`.
        kind: &'static str,
        /// The file.
        path: String,
        /// What it should be.
        what: &'static str,
        /// What the parser says.
        why: rcgen::Error,
    },
    /// Signing failed.
    #[error("{kind} CA: no certificate for {whom}: {why}")]
    Sign {
        /// Which CA: a profile's `kind`.
        kind: &'static str,
        /// For whom.
        whom: String,
        /// What the library says.
        why: rcgen::Error,
    },
}

impl Authority {
    /// Reads certificate and key (PEM, PKCS #8) of the storage CA.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        Self::of(&crate::STORAGE_NODE, certificate, key)
    }

    /// Reads certificate and key of the profile's CA.
    pub(crate) fn of(
        profile: &Profile,
        certificate: &Path,
        key: &Path,
    ) -> Result<Self, AuthorityError> {
        let kind = profile.kind;
        let content = |path: &Path, what, why| AuthorityError::Content {
            kind,
            path: path.display().to_string(),
            what,
            why,
        };
        let pair = KeyPair::from_pem(&read(kind, key)?)
            .map_err(|why| content(key, "a private key in PKCS #8 form", why))?;
        let certificate_pem = read(kind, certificate)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate_pem, pair)
            .map_err(|why| content(certificate, "a CA certificate", why))?;
        Ok(Self {
            issuer,
            certificate_pem,
            kind,
        })
    }

    /// The CA's own certificate (PEM), as in its file.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a key, and a certificate that says `what` from a little before `now` until `now + lifetime`.
    ///
    /// # Errors
    /// [`AuthorityError::Sign`]: a name that cannot stand in a certificate.
    pub fn issue(
        &self,
        what: &Leaf,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let make = || -> Result<Issued, rcgen::Error> {
            let key = KeyPair::generate()?;
            let certificate = parameters(what, lifetime, now)?.signed_by(&key, &self.issuer)?;
            Ok(Issued {
                certificate_pem: certificate.pem(),
                key_pem: key.serialize_pem(),
            })
        };
        make().map_err(|why| self.cannot(what.common_name.clone(), why))
    }

    /// The certificate (PEM) that was granted, from a little before `now`. Without the CA's own: Open
    /// vSwitch sends no chain, so the database's server must know the signing CA itself.
    ///
    /// Subject, names, usages and lifetime are ours; from the request comes the public key alone.
    pub(crate) fn sign(
        &self,
        profile: &Profile,
        grant: &Grant,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<String, AuthorityError> {
        let leaf = Leaf {
            common_name: grant.common_name.clone(),
            organization: Some(profile.organization.to_owned()),
            dns_names: grant.dns_name.iter().cloned().collect(),
            ip_addresses: Vec::new(),
            client: true,
            server: profile.server,
        };
        let make = || -> Result<String, rcgen::Error> {
            let public_key = SubjectPublicKeyInfo::from_der(&grant.public_key)?;
            let mut params = parameters(&leaf, lifetime, now)?;
            if !profile.server {
                // No QEMU reads a chassis certificate, and a critical extension is what others expect.
                params.custom_extensions.clear();
                params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            }
            Ok(params.signed_by(&public_key, &self.issuer)?.pem())
        };
        let whom = format!("{} {}", profile.noun(), grant.common_name);
        make().map_err(|why| self.cannot(whom, why))
    }

    fn cannot(&self, whom: String, why: rcgen::Error) -> AuthorityError {
        AuthorityError::Sign {
            kind: self.kind,
            whom,
            why,
        }
    }
}

fn parameters(
    leaf: &Leaf,
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut subject = DistinguishedName::new();
    if let Some(organization) = &leaf.organization {
        subject.push(DnType::OrganizationName, organization.as_str());
    }
    subject.push(DnType::CommonName, leaf.common_name.as_str());
    let mut params = CertificateParams::default();
    params.distinguished_name = subject;
    for name in &leaf.dns_names {
        let name = SanType::DnsName(name.as_str().try_into()?);
        params.subject_alt_names.push(name);
    }
    let addresses = leaf.ip_addresses.iter().copied().map(SanType::IpAddress);
    params.subject_alt_names.extend(addresses);
    params.not_before = (now - BACKDATE).into();
    params.not_after = (now + lifetime).into();
    params.is_ca = IsCa::ExplicitNoCa;
    // Not critical, as rcgen would make it: QEMU wants keyEncipherment in a critical one, which an EC key must not have
    // (RFC 8813 3).
    let usage = CustomExtension::from_oid_content(&KEY_USAGE, DIGITAL_SIGNATURE.to_vec());
    params.custom_extensions = vec![usage];
    if leaf.client {
        let purpose = ExtendedKeyUsagePurpose::ClientAuth;
        params.extended_key_usages.push(purpose);
    }
    if leaf.server {
        let purpose = ExtendedKeyUsagePurpose::ServerAuth;
        params.extended_key_usages.push(purpose);
    }
    params.use_authority_key_identifier_extension = true;
    let mut serial = rand::random::<[u8; 16]>();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn read(kind: &'static str, path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|why| AuthorityError::Read {
        kind,
        path: path.display().to_string(),
        why,
    })
}

#[cfg(test)]
mod tests;
