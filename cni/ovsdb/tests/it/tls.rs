//! TLS with certificates that a test makes: who is accepted and who is not, in both directions.

use crate::replica::insert;
use crate::server::{Server, config, free_port, soon};
use ovsdb::{Client, Remote, Tls, Transaction, Values};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new(name: &str) -> Ca {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        Ca(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Writes key, certificate and CA; `names` are the certificate's alternative names.
    fn issue(&self, to: &Path, name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(to.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::write(to.join(format!("{name}.crt")), cert.pem()).unwrap();
    }

    fn write(&self, to: &Path, name: &str) {
        std::fs::write(to.join(name), self.0.pem()).unwrap();
    }
}

struct Lab {
    files: TempDir,
    port: u16,
    _server: Server,
}

fn lab(server_names: &[&str], usage: ExtendedKeyUsagePurpose) -> Lab {
    let files = tempfile::tempdir().unwrap();
    let path = files.path();
    let (good, other) = (Ca::new("good CA"), Ca::new("other CA"));
    good.write(path, "ca.crt");
    other.write(path, "other-ca.crt");
    good.issue(path, "server", server_names, usage);
    good.issue(path, "client", &[], ExtendedKeyUsagePurpose::ClientAuth);
    other.issue(path, "stranger", &[], ExtendedKeyUsagePurpose::ClientAuth);
    let port = free_port();
    let file = |name: &str| path.join(name).display().to_string();
    let server = Server::with(&[
        format!("--remote=pssl:{port}:127.0.0.1"),
        format!("--private-key={}", file("server.key")),
        format!("--certificate={}", file("server.crt")),
        format!("--ca-cert={}", file("ca.crt")),
    ]);
    Lab {
        files,
        port,
        _server: server,
    }
}

impl Lab {
    fn client(&self, name: &str, ca: &str) -> Client {
        let file = |name: String| self.files.path().join(name);
        let mut config = config(vec![Remote::Ssl {
            host: "127.0.0.1".into(),
            port: self.port,
        }]);
        config.tls = Some(Tls {
            key: file(format!("{name}.key")),
            cert: file(format!("{name}.crt")),
            ca: file(ca.into()),
        });
        Client::start(config)
    }
}

/// The error of a client that never gets a connection, once the server listens.
async fn refused(client: &Client) -> String {
    let mut status = client.status();
    let why = status.wait_for(|status| {
        assert!(!status.connected);
        status
            .last_error
            .as_ref()
            .is_some_and(|error| !error.contains("Connection refused"))
    });
    let why = tokio::time::timeout_at(soon(), why)
        .await
        .unwrap()
        .unwrap()
        .last_error
        .clone();
    let deadline = Instant::now() + Duration::from_millis(50);
    assert!(client.transact(Transaction::new(), deadline).await.is_err());
    why.unwrap()
}

#[tokio::test]
async fn certificates_of_the_ca_are_accepted_and_no_others() {
    let lab = lab(&[], ExtendedKeyUsagePurpose::ServerAuth);
    insert(&lab.client("client", "ca.crt"), "a", Values::new()).await;
    let wrong_server = refused(&lab.client("client", "other-ca.crt")).await;
    assert!(wrong_server.contains("UnknownIssuer"), "{wrong_server}");
    let stranger = refused(&lab.client("stranger", "ca.crt")).await;
    assert!(stranger.contains(&lab.port.to_string()), "{stranger}");
    let missing = refused(&lab.client("nobody", "ca.crt")).await;
    assert!(missing.contains("nobody."), "{missing}");
}

#[tokio::test]
async fn files_are_read_again_at_every_connect() {
    let lab = lab(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    let client = lab.client("rotated", "ca.crt");
    refused(&client).await;
    for suffix in ["key", "crt"] {
        let file = |name: &str| lab.files.path().join(format!("{name}.{suffix}"));
        std::fs::copy(file("client"), file("rotated")).unwrap();
    }
    insert(&client, "a", Values::new()).await;
}

#[tokio::test]
async fn a_certificate_for_other_addresses_is_refused() {
    let lab = lab(&["198.18.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    let error = refused(&lab.client("client", "ca.crt")).await;
    assert!(
        error.contains("198.18.0.1") || error.contains("198, 18, 0, 1"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_a_client_is_no_servers() {
    let lab = lab(&[], ExtendedKeyUsagePurpose::ClientAuth);
    let error = refused(&lab.client("client", "ca.crt")).await;
    assert!(error.contains("server authentication"), "{error}");
}
