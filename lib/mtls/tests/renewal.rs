use std::net::SocketAddr;

use daemon::readiness::Readiness;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;

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
        let params = CertificateParams::new(["n1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// What the server shows to a caller that this CA vouches for and that believes this CA; `None` when one refuses the other.
    async fn call(&self, address: SocketAddr) -> Option<Vec<u8>> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let (certificate, key) = self.issue();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("n1").unwrap();
        let mut stream = connector.connect(name, stream).await.ok()?;
        // In TLS 1.3 the server's opinion of our certificate comes with its first byte.
        stream.read_u8().await.ok()?;
        let shown = stream.get_ref().1.peer_certificates()?.first()?;
        Some(shown.to_vec())
    }
}

fn der(pem: &str) -> Option<Vec<u8>> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    Some(der.to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_directory_counts_from_the_next_connection_on() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
    let readiness = Readiness::default();
    let check = readiness.check("tls", "not yet");
    let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let credentials = Credentials::new(home.path(), check);
    tokio::spawn(async move {
        let mut incoming = Box::pin(incoming(listener, credentials));
        while let Some(stream) = incoming.next().await {
            let mut stream = stream.unwrap();
            // A caller that refused us does not read it.
            let _ = stream.write_u8(1).await;
            let _ = stream.flush().await;
        }
    });

    // Nothing is there yet: a caller waits, and the check says for what.
    let (one, two) = (Ca::new("one"), Ca::new("two"));
    let sentence = || readiness.complaints().pop().map(|(_, why)| why);
    while sentence().is_none_or(|why| why == "not yet") {
        tokio::task::yield_now().await;
    }
    assert!(sentence().unwrap().contains("ca-cert.pem"));
    let (first, key) = one.issue();
    let (shown, ()) = tokio::join!(one.call(address), async {
        write("ca-cert.pem", &one.pem);
        write("server-cert.pem", &first);
        write("server-key.pem", &key);
        readiness.ready().await;
    });
    assert_eq!(shown, der(&first));
    assert_eq!(two.call(address).await, None);

    // Half of a renewal is none.
    let (second, key) = one.issue();
    write("server-cert.pem", &second);
    assert_eq!(one.call(address).await, der(&first));
    write("server-key.pem", &key);
    assert_eq!(one.call(address).await, der(&second));
    write("server-key.pem", "no key");
    assert_eq!(one.call(address).await, der(&second));
    std::fs::remove_file(home.path().join("server-key.pem")).unwrap();
    assert_eq!(one.call(address).await, der(&second));
    assert!(readiness.is_ready());

    // Another CA, and with it other callers.
    let (third, key) = two.issue();
    write("ca-cert.pem", &two.pem);
    write("server-cert.pem", &third);
    write("server-key.pem", &key);
    assert_eq!(two.call(address).await, der(&third));
    assert_eq!(one.call(address).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_holds_up_nobody() {
    let home = tempfile::tempdir().unwrap();
    let ca = Ca::new("ca");
    let (certificate, key) = ca.issue();
    for (name, text) in FILES.iter().zip([&ca.pem, &certificate, &key]) {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    let listener = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let check = Readiness::default().check("tls", "not yet");
    let credentials = Credentials::new(home.path(), check);
    tokio::spawn(async move {
        let mut incoming = Box::pin(incoming(listener, credentials));
        while let Some(stream) = incoming.next().await {
            let mut stream = stream.unwrap();
            let _ = stream.write_u8(1).await;
            let _ = stream.flush().await;
        }
    });
    let silent = TcpStream::connect(address).await.unwrap();
    assert_eq!(ca.call(address).await, der(&certificate));
    drop(silent);
}
