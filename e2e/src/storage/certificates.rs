//! Certificates of a chain with TLS: one authority, one identity for each host, one for the target, one for csi-controller.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

/// Of the nodes' certificates.
const ORGANIZATION: &str = "storage.iaas.yusur.io";

/// Signs everything.
#[derive(Debug)]
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// How a certificate and its key are called, in a directory for a program that looks for such names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Client => "client",
            Role::Server => "server",
        }
    }
}

impl Authority {
    pub(super) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        params
            .distinguished_name
            .push(DnType::CommonName, "storage of a test");
        Ok(Self(CertifiedIssuer::self_signed(
            params,
            KeyPair::generate()?,
        )?))
    }

    /// A new key for `name`, of the nodes' organization if it is a node's, reachable under `address` (DNS or IP): as the files
    /// that each of `roles` looks for.
    pub(super) fn issue(
        &self,
        dir: &Path,
        name: &str,
        node: bool,
        address: &str,
        roles: &[Role],
    ) -> Result<()> {
        let mut params = CertificateParams::new([address.to_owned()])?;
        params.distinguished_name = DistinguishedName::new();
        if node {
            params
                .distinguished_name
                .push(DnType::OrganizationName, ORGANIZATION);
        }
        params.distinguished_name.push(DnType::CommonName, name);
        // QEMU wants both.
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        let write = |file: String, text: &str| {
            let path = dir.join(file);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write("ca-cert.pem".to_owned(), &self.0.pem())?;
        for role in roles {
            write(format!("{}-cert.pem", role.name()), &certificate.pem())?;
            write(format!("{}-key.pem", role.name()), &key.serialize_pem())?;
        }
        if roles.contains(&Role::Server) {
            // As csi-controller does for a target: else QEMU makes them at each start of a daemon.
            let dh = include_str!("../../../csi/controller/src/certificates/ffdhe2048.pem");
            write("dh-params.pem".to_owned(), dh)?;
        }
        Ok(())
    }
}

/// The distinguished name of a node's certificate, as a target sees it.
pub(super) fn dn(node: &str) -> String {
    format!("O={ORGANIZATION},CN={node}")
}
