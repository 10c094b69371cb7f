//! The signer under its own role, with tokens that are bound to real pods.

use crate::apiserver::ApiServer;
use crate::site::{SYSTEM as NAMESPACE, client, site};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use identity::sign::{self, SignerConfig};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use std::path::Path;
use std::time::Duration;
use x509_parser::pem::parse_x509_pem;

fn authority(dir: &Path) -> SignerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let config = SignerConfig {
        certificate: dir.join("tls.crt"),
        key: dir.join("tls.key"),
        lifetime: Duration::from_secs(86_400),
        profile: identity::CHASSIS,
    };
    std::fs::write(&config.certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&config.key, key.serialize_pem()).unwrap();
    config
}

/// A token as kubelet projects it into a cni-node pod on the node.
fn token_of_pod_on(server: &ApiServer, node: &str) -> String {
    let admin =
        |arguments: &[&str], input: &str| server.kubectl("admin", arguments, input).unwrap();
    let object = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: on-{node}, namespace: {NAMESPACE}}}\nspec: {{nodeName: {node}, serviceAccountName: cni-node, containers: [{{name: a, image: b}}]}}\n"
    );
    admin(&["create", "-f", "-"], &object);
    let pod = format!("on-{node}");
    let uid = admin(
        &[
            "get",
            "pod",
            "-n",
            NAMESPACE,
            &pod,
            "-o",
            "jsonpath={.metadata.uid}",
        ],
        "",
    );
    let bound = format!("--bound-object-name={pod}");
    let uid = format!("--bound-object-uid={uid}");
    let token = [
        "create",
        "token",
        "cni-node",
        "-n",
        NAMESPACE,
        "--bound-object-kind=Pod",
        &bound,
        &uid,
    ];
    admin(&token, "").trim().to_owned()
}

fn request(name: &str, common_name: &str, key: &KeyPair) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let pem = params.serialize_request(key).unwrap().pem().unwrap();
    let request = STANDARD.encode(pem);
    format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec: {{signerName: iaas.yusur.io/node, request: {request}, usages: [digital signature, client auth], expirationSeconds: 3600}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_its_own_certificate_and_no_other() {
    let site = site();
    let server = &site.server;
    let dir = tempfile::tempdir().unwrap();
    let signer = tokio::spawn(sign::run(
        client(&server.url(), "controller"),
        authority(dir.path()),
    ));
    let n1 = token_of_pod_on(server, "signed");
    let key = KeyPair::generate().unwrap();

    server
        .kubectl(&n1, &["create", "-f", "-"], &request("own", "signed", &key))
        .unwrap();
    let signed = [
        "wait",
        "csr/own",
        "--for=jsonpath={.status.certificate}",
        "--timeout=30s",
    ];
    server.kubectl("admin", &signed, "").unwrap();
    let shown = ["get", "csr", "own", "-o", "jsonpath={.status.certificate}"];
    let pem = STANDARD
        .decode(server.kubectl("admin", &shown, "").unwrap())
        .unwrap();
    let (_, pem) = parse_x509_pem(&pem).unwrap();
    let certificate = pem.parse_x509().unwrap();
    assert_eq!(
        certificate
            .subject()
            .iter_common_name()
            .next()
            .unwrap()
            .as_str(),
        Ok("signed")
    );
    let lifetime = certificate.validity().not_after.timestamp()
        - certificate.validity().not_before.timestamp();
    assert!((3600..3600 + 301).contains(&lifetime), "{lifetime} s");

    let denials = [
        ("other", n1.as_str(), "signed-not", "OtherNode"),
        ("stranger", "admin", "signed", "WrongPoster"),
    ];
    for (name, token, common_name, reason) in denials {
        server
            .kubectl(
                token,
                &["create", "-f", "-"],
                &request(name, common_name, &key),
            )
            .unwrap();
        let csr = format!("csr/{name}");
        server
            .kubectl(
                "admin",
                &["wait", &csr, "--for=condition=Denied", "--timeout=30s"],
                "",
            )
            .unwrap();
        let status = server
            .kubectl("admin", &["get", &csr, "-o", "jsonpath={.status}"], "")
            .unwrap();
        assert!(
            status.contains(reason) && !status.contains("certificate\":"),
            "{status}"
        );
    }
    signer.abort();
}
