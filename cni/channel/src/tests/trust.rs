//! Who may: certificates of all kinds of strangers, and a pairing that changes.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;

use super::card::attachment;
use super::proxy::Proxy;
use super::raw::{Raw, hello};
use super::world::{Ca, DAY, World, soon};
use crate::proto::Reason;
use crate::{Failure, Pairing};

fn none() -> Duration {
    Duration::ZERO
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_counted_and_told() {
    let world = World::new();
    let dpu = world.dpu().await;

    // Of another CA.
    Ca::new().issue(&world.directory("forged"), "h1", DAY);
    std::fs::write(world.directory("forged").join("ca.crt"), &world.ca.pem).unwrap();
    let forged = world.host("forged", dpu.address);
    forged.down_for("alert").await;
    let refusal = world.refused("certificate_of_another_authority").await;
    assert!(refusal.sentence.contains("not let in"), "{refusal:?}");
    // Expired.
    world.ca.issue(&world.directory("expired"), "h1", none());
    let expired = world.host("expired", dpu.address);
    expired.down_for("CertificateExpired").await;
    world.refused("certificate_expired").await;
    // Of another node.
    let other = world.host("h2", dpu.address);
    other.down_for("DPU d1 serves host h1, not h2").await;
    assert_eq!(world.refused("other_host").await.peer, "h2");
    let mut raw = Raw::connect(dpu.address, &world.directory("h2")).await;
    let status = raw.hello(hello()).await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    let status = raw.attach("x", Some(attachment("a", 1))).await;
    assert_eq!(status.err().unwrap().code(), Code::PermissionDenied);
    // None at all.
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(world.ca.pem.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(dpu.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("d1").unwrap();
    if let Ok(mut stream) = connector.connect(name, stream).await {
        assert!(stream.read_u8().await.is_err());
    }
    world.refused("no_certificate").await;

    let metrics = world.metrics();
    for reason in [
        "certificate_of_another_authority",
        "certificate_expired",
        "other_host",
        "no_certificate",
    ] {
        let line = format!(r#"outboard_dpu_refused_total{{reason="{reason}"}} "#);
        assert!(metrics.contains(&line), "{metrics}");
    }
    assert_eq!(world.seen.borrow().sessions, 0);
    assert!(world.card.log().is_empty());
    // One a minute is told, however often it tries.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = world.refused("certificate_expired");
    let told = tokio::time::timeout(Duration::from_millis(200), told).await;
    assert!(told.is_err());
    assert!(world.readiness.is_ready());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_does_not_believe_another_dpu() {
    let world = World::new();
    let dpu = world.dpu().await;
    let host = world.host("h1", dpu.address);
    host.up().await;
    host.pairing.send_replace(Some(Pairing {
        dpu: "d2".to_owned(),
        address: dpu.address,
    }));
    host.down_for("TLS with d2").await;
    world.refused("refused_us").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_counts_from_the_next_connection_on() {
    let world = World::new();
    let dpu = world.dpu().await;
    let wire = Proxy::to(dpu.address).await;
    let host = world.host("h1", wire.address);
    host.up().await;
    // Which certificate is used is seen by its being a bad one.
    world.ca.issue(&world.directory("h1"), "h1", none());
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(world.seen.borrow().sessions, 1);
    assert!(world.seen.borrow().alive);
    wire.break_all();
    host.down_for("CertificateExpired").await;
    world.ca.issue(&world.directory("h1"), "h1", DAY);
    host.up().await;
    // The DPU's, too.
    world.ca.issue(&world.directory("d1"), "d1", none());
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(world.seen.borrow().sessions, 2);
    wire.break_all();
    host.down_for("certificate expired").await;
    world.ca.issue(&world.directory("d1"), "d1", DAY);
    host.up().await;
    // Another CA on both sides.
    let other = Ca::new();
    other.issue(&world.directory("d1"), "d1", DAY);
    wire.break_all();
    host.down_for("invalid peer certificate").await;
    other.issue(&world.directory("h1"), "h1", DAY);
    host.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_does_not_outlast_its_certificate() {
    for node in ["h1", "d1"] {
        let world = World::new();
        world
            .ca
            .issue(&world.directory(node), node, Duration::from_secs(3));
        let dpu = world.dpu().await;
        let host = world.host("h1", dpu.address);
        host.up().await;
        world.ca.issue(&world.directory(node), node, DAY);
        world
            .sees("the next session", |seen| seen.sessions == 2 && seen.alive)
            .await;
        host.up().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pairing_of_the_dpu_decides_and_may_change() {
    let world = World::new();
    world.host.send_replace(None);
    let dpu = world.dpu().await;
    let (first, second) = (world.host("h1", dpu.address), world.host("h2", dpu.address));
    first.down_for("no Dpu object pairs DPU d1").await;
    let mut raw = Raw::connect(dpu.address, &world.directory("h1")).await;
    let status = raw.hello(hello()).await.err().unwrap();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(Failure::of(&status).unwrap().reason, Reason::NoSession);
    world.refused("unpaired").await;

    world.host.send_replace(Some("h1".to_owned()));
    first.up().await;
    second.down_for("serves host h1, not h2").await;
    let mut attaching = first
        .link
        .attach(attachment("slow", 1), soon(20.0))
        .await
        .unwrap();
    attaching.wiring().await.unwrap();

    world.host.send_replace(Some("h2".to_owned()));
    second.up().await;
    world.card.done("undone slow", 1).await;
    first.down_for("serves host h2, not h1").await;
    let seen = world.sees("h2", |seen| seen.alive).await;
    assert_eq!(seen.host.as_deref(), Some("h2"));
    assert_eq!(seen.sessions, 1);
    drop(attaching);

    world.host.send_replace(None);
    second.down_for("no Dpu object").await;
    let seen = world.sees("nobody", |seen| !seen.alive).await;
    assert_eq!(seen.host, None);
    let down = world.metrics();
    assert!(down.contains("outboard_dpu_host_up 0"), "{down}");
}
