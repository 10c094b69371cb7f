//! Callers on other machines: who may call is what the certificate says.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use proto::attacher::v1::ListRequest;
use proto::attacher::v1::volume_attacher_client::VolumeAttacherClient;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

fn signed(issuer: &Issuer<'_, KeyPair>, name: &str) -> (String, String) {
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    (certificate.pem(), key.serialize_pem())
}

async fn list(url: &str, ca: &str, identity: Option<(String, String)>) -> Result<(), Status> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    let channel: Channel = endpoint.tls_config(tls).unwrap().connect_lazy();
    let mut client = VolumeAttacherClient::new(channel);
    client.list(ListRequest::default()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_is_named_may_call_over_the_network() {
    let home = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let (certificate, key) = signed(&issuer, "attacher-of-n1");
    for (name, text) in [
        ("ca-cert.pem", &ca),
        ("server-cert.pem", &certificate),
        ("server-key.pem", &key),
    ] {
        std::fs::write(home.path().join(name), text).unwrap();
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    drop(free);
    let mut attacher = Command::new(env!("CARGO_BIN_EXE_volume-attacher"))
        .args([
            "run",
            "--host",
            "n1",
            "--admin-address",
            "127.0.0.1:0",
            "--allow",
            "ironic",
        ])
        .args(["--listen", &listen, "--tls"])
        .arg(home.path())
        .arg("--state")
        .arg(home.path().join("state"))
        .arg("--socket")
        .arg(home.path().join("run/a.sock"))
        .arg("--bridge")
        .arg(home.path().join("nobody.sock"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let url = format!("https://{listen}");
    let mut tries = 0;
    let allowed = loop {
        match list(&url, &ca, Some(signed(&issuer, "ironic"))).await {
            Err(status) if status.code() == Code::Unavailable && tries < 200 => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            answer => break answer,
        }
    };
    let other = list(&url, &ca, Some(signed(&issuer, "n1"))).await;
    let nobody = list(&url, &ca, None).await;
    attacher.kill().unwrap();
    attacher.wait().unwrap();
    allowed.unwrap();
    crate::world::refused(other, Code::PermissionDenied, "n1 may not call");
    assert!(nobody.is_err(), "without a certificate");
}
