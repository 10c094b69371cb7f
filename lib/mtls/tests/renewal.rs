//! Certificates that are exchanged under a running server, and those that are refused.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use daemon::readiness::Readiness;
use futures::StreamExt;
use mtls::client::Connector;
use mtls::server::{Acceptor, Cause, Refused};
use mtls::{Connection, Files};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::TcpIncoming;

struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self {
            pem: params.self_signed(&key).unwrap().pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Certificate and key.
    fn issue(&self) -> (String, String) {
        self.issue_with(|_| {})
    }

    fn issue_with(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(["n1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "common");
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// What the server shows to a caller that this CA vouches for and that believes this CA; `None` when one refuses the other.
    async fn call(&self, address: SocketAddr) -> Option<Vec<u8>> {
        self.call_as(address, self.issue()).await
    }

    async fn call_as(&self, address: SocketAddr, who: (String, String)) -> Option<Vec<u8>> {
        let home = home(&self.pem, &who);
        let mut connector = Connector::new(Files::in_directory(home.path()));
        let stream = TcpStream::connect(address).await.unwrap();
        let mut connection = connector.connect("n1", stream).await.ok()?;
        // In TLS 1.3 the server's opinion of our certificate comes with its first byte.
        connection.read_u8().await.ok()?;
        Some(connection.shown())
    }
}

fn write(home: &Path, name: &str, text: &str) {
    std::fs::write(home.join(name), text).unwrap();
}

fn home(ca: &str, (certificate, key): &(String, String)) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    write(home.path(), "ca.crt", ca);
    write(home.path(), "tls.crt", certificate);
    write(home.path(), "tls.key", key);
    home
}

fn der(pem: &str) -> Option<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Some(der.to_vec())
}

struct Served {
    address: SocketAddr,
    readiness: Readiness,
    refused: Arc<Mutex<Vec<Refused>>>,
}

/// Says a byte to everybody who is let in, and keeps them.
async fn serve(directory: &Path) -> Served {
    let readiness = Readiness::default();
    let check = readiness.check("tls", "not yet");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let refused = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&refused);
    let acceptor = Acceptor::new(Files::in_directory(directory), check)
        .patience(Duration::from_millis(300))
        .tell(move |refused| told.lock().unwrap().push(refused));
    tokio::spawn(async move {
        let mut incoming = Box::pin(acceptor.incoming(TcpIncoming::from(listener)));
        let mut kept = Vec::new();
        while let Some(connection) = incoming.next().await {
            let mut connection: Connection = connection.unwrap();
            // A caller that refused us does not read it.
            let _ = connection.write_u8(1).await;
            let _ = connection.flush().await;
            kept.push(connection);
        }
    });
    Served {
        address,
        readiness,
        refused,
    }
}

impl Served {
    /// Why the latest was not let in.
    async fn cause(&self) -> Cause {
        loop {
            if let Some(refused) = self.refused.lock().unwrap().pop() {
                assert!(refused.sentence.contains("127.0.0.1"), "{refused:?}");
                return refused.cause;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_directory_counts_from_the_next_connection_on() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| write(home.path(), name, text);
    let served = serve(home.path()).await;
    let (address, readiness) = (served.address, &served.readiness);

    // Nothing is there yet: a caller waits, and the check says for what.
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let sentence = || readiness.complaints().pop().map(|(_, why)| why);
    while sentence().is_none_or(|why| why == "not yet") {
        tokio::task::yield_now().await;
    }
    assert!(sentence().unwrap().contains("ca.crt"));
    let (first, key) = one.issue();
    let (shown, ()) = tokio::join!(one.call(address), async {
        write("ca.crt", &one.pem);
        write("tls.crt", &first);
        write("tls.key", &key);
        readiness.ready().await;
    });
    assert_eq!(shown, der(&first));
    assert_eq!(two.call(address).await, None);

    // Half of a renewal is none.
    let (second, key) = one.issue();
    write("tls.crt", &second);
    assert_eq!(one.call(address).await, der(&first));
    write("tls.key", &key);
    assert_eq!(one.call(address).await, der(&second));
    write("tls.key", "no key");
    assert_eq!(one.call(address).await, der(&second));
    std::fs::remove_file(home.path().join("tls.key")).unwrap();
    assert_eq!(one.call(address).await, der(&second));
    write("ca.crt", "");
    assert_eq!(one.call(address).await, der(&second));
    assert!(readiness.is_ready());

    // Another CA, and with it other callers.
    let (third, key) = two.issue();
    write("ca.crt", &two.pem);
    write("tls.crt", &third);
    write("tls.key", &key);
    assert_eq!(two.call(address).await, der(&third));
    assert_eq!(one.call(address).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_reads_its_files_anew_for_each_connection() {
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let servers = home(&one.pem, &one.issue());
    let served = serve(servers.path()).await;
    let clients = home(&two.pem, &two.issue());
    let mut connector = Connector::new(Files::in_directory(clients.path()));
    let stream = || TcpStream::connect(served.address);
    let why = connector.connect("n1", stream().await.unwrap()).await;
    assert!(why.err().unwrap().to_string().contains("n1"));
    let (certificate, key) = one.issue();
    write(clients.path(), "ca.crt", &one.pem);
    write(clients.path(), "tls.crt", &certificate);
    write(clients.path(), "tls.key", &key);
    let connected = connector.connect("n1", stream().await.unwrap()).await;
    connected.unwrap().read_u8().await.unwrap();
    // Half a renewal: the former certificate is shown.
    write(clients.path(), "tls.key", &two.issue().1);
    let connected = connector.connect("n1", stream().await.unwrap()).await;
    connected.unwrap().read_u8().await.unwrap();
    // Another name than that of the server.
    let why = connector.connect("n2", stream().await.unwrap()).await;
    assert!(why.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_by_cause() {
    let ca = Ca::new("ca");
    let home = home(&ca.pem, &ca.issue());
    let served = serve(home.path()).await;
    let address = served.address;

    assert_eq!(Ca::new("ca").call(address).await, None);
    assert_eq!(served.cause().await, Cause::RefusedUs);
    let other = Ca {
        pem: ca.pem.clone(),
        issuer: Ca::new("other").issuer,
    };
    assert_eq!(other.call(address).await, None);
    assert_eq!(served.cause().await, Cause::OtherAuthority);
    // A CA of the same name with another key.
    let same = Ca {
        pem: ca.pem.clone(),
        issuer: Ca::new("ca").issuer,
    };
    assert_eq!(same.call(address).await, None);
    assert_eq!(served.cause().await, Cause::OtherAuthority);

    let expired = ca.issue_with(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    assert_eq!(ca.call_as(address, expired).await, None);
    assert_eq!(served.cause().await, Cause::Expired);
    let early = ca.issue_with(|params| {
        params.not_before = rcgen::date_time_ymd(4000, 1, 1);
        params.not_after = rcgen::date_time_ymd(4001, 1, 1);
    });
    assert_eq!(ca.call_as(address, early).await, None);
    assert_eq!(served.cause().await, Cause::NotYetValid);
    let server = ca.issue_with(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    assert_eq!(ca.call_as(address, server).await, None);
    assert_eq!(served.cause().await, Cause::BadCertificate);

    // None at all.
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(ca.pem.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("n1").unwrap();
    if let Ok(mut stream) = connector.connect(name, stream).await {
        assert!(stream.read_u8().await.is_err());
    }
    assert_eq!(served.cause().await, Cause::NoCertificate);

    // Nothing said holds up nobody, and ends.
    let silent = TcpStream::connect(address).await.unwrap();
    assert!(ca.call(address).await.is_some());
    assert_eq!(served.cause().await, Cause::Silent);
    drop(silent);
    let mut babbler = TcpStream::connect(address).await.unwrap();
    babbler.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(served.cause().await, Cause::Gone);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_its_certificate_and_can_be_cut_off() {
    let ca = Ca::new("ca");
    let home = home(&ca.pem, &ca.issue());
    let served = serve(home.path()).await;
    let mut connector = Connector::new(Files::in_directory(home.path()));
    let mut connections = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(served.address).await.unwrap();
        let mut connection = connector.connect("n1", stream).await.unwrap();
        connection.read_u8().await.unwrap();
        connections.push(connection);
    }
    let mut connection = connections.pop().unwrap();
    let peer = connection.peer().clone();
    assert_ne!(peer.connection(), connections[0].peer().connection());
    assert_eq!(peer.names(), ["common", "n1"]);
    assert_eq!(peer.node(), Some("n1"));
    assert_eq!(peer.address(), Some(served.address));
    assert!(peer.expires() > SystemTime::now());
    assert_eq!(peer.broken(), None);
    // Who waits for a byte is woken.
    let reading = tokio::spawn(async move { connection.read_u8().await });
    tokio::task::yield_now().await;
    peer.cut();
    assert!(reading.await.unwrap().is_err());
    peer.gone().await;
    assert!(connections[0].write_u8(1).await.is_ok());
}
