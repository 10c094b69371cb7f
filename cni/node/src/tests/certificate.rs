//! The files that `cni-node identity` leaves, in the hands of those who read them: ovn-controller and the database client.

#[path = "../../../../lib/identity/src/ask/tests/apiserver.rs"]
#[allow(dead_code, reason = "the asking half's own tests use all of it")]
mod apiserver;

use std::path::Path;

use identity::ask;
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};

use self::apiserver::{ApiServer, Signer, authority};
use crate::chassis::Place;
use crate::gateway::tests::ovn::{NODE, Ovn};
use crate::gateway::tests::run_node_half;
use crate::gateway::tests::sandbox::{eventually, sandboxed, uplink};

const SOUTHBOUND: &str = "ssl:127.0.0.1:6642";

#[test]
fn ovn_controller_and_cni_node_get_in_with_the_certificate_and_with_its_successor() {
    sandboxed(
        "tests::certificate::ovn_controller_and_cni_node_get_in_with_the_certificate_and_with_its_successor",
        scenario(),
    );
}

async fn scenario() {
    uplink();
    let server = ApiServer::new(Signer::Signs);
    let home = tempfile::tempdir().unwrap();
    let bundle = home.path().join("bundle.crt");
    let asking = ask::Args {
        node: NODE.to_owned(),
        directory: home.path().join("identity"),
        ca: bundle.clone(),
        lifetime_seconds: 3600,
        timeout_seconds: 20,
        once: true,
        keep: false,
    };
    let ask = async || {
        let client = server.client().await;
        ask::obtain(&identity::CHASSIS, &asking, client).await
    };
    let mut ovn = Ovn::start().await;
    std::fs::write(&bundle, &server.ca.0).unwrap();
    serve_tls(&ovn, &server, &bundle);
    let listen = "set-connection role=ovn-controller pssl:6642:127.0.0.1";
    ovn.sbctl(listen);

    // Everything starts before there is a certificate, as on a new node.
    let place = Place {
        southbound: SOUTHBOUND.to_owned(),
        identity: asking.directory.clone(),
        ..ovn.place()
    };
    let file = |name: &str| asking.directory.join(name);
    let mut config = ovsdb::Config::new("OVN_Southbound", vec![SOUTHBOUND.parse().unwrap()]);
    config.tls = Some(ovsdb::Tls {
        key: file("tls.key"),
        cert: file("tls.crt"),
        ca: file("ca.crt"),
    });
    let mut databases = ovn.databases();
    databases.southbound = ovsdb::Client::start(config);
    let running = run_node_half(&ovn, place, databases);
    ovn.start_controller();
    let chassis_says = || {
        let complaints = running.readiness.complaints().into_iter();
        complaints
            .filter(|(name, _)| *name == "chassis")
            .map(|(_, why)| why)
            .collect::<String>()
    };
    eventually("the sentence about the database", || {
        chassis_says().contains("the southbound database at ssl:127.0.0.1:6642 cannot be used")
    })
    .await;

    ask().await.unwrap();
    eventually("the chassis", || chassis_says().is_empty()).await;
    assert!(
        ovn.sbctl("--bare --columns=name list Chassis")
            .contains(NODE)
    );

    // The successor is what they show when they connect again.
    let certificate = || std::fs::read_to_string(file("tls.crt")).unwrap();
    let first = certificate();
    std::fs::remove_file(file("tls.crt")).unwrap();
    ask().await.unwrap();
    assert_ne!(certificate(), first);
    ovn.sbctl("del-connection -- chassis-del n1");
    eventually("a lost database", || !chassis_says().is_empty()).await;
    ovn.sbctl(listen);
    eventually("the chassis again", || chassis_says().is_empty()).await;
}

/// A server certificate of the same authority.
fn serve_tls(ovn: &Ovn, server: &ApiServer, bundle: &Path) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "southbound");
    let issuer = Issuer::new(authority(), &server.ca.1);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let (key_file, cert_file) = (ovn.home().join("server.key"), ovn.home().join("server.crt"));
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    std::fs::write(&cert_file, certificate.pem()).unwrap();
    ovn.sbctl(&format!(
        "set-ssl {} {} {}",
        key_file.display(),
        cert_file.display(),
        bundle.display()
    ));
}
