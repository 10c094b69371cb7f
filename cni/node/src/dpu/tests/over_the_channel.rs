//! The whole of mode dpu behind its address, and a host's end of the channel.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use channel::proto::{Attachment, Epoch, Reason};
use channel::{HostMetrics, Link, LinkConfig, LinkState, Pairing};
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::card::{Ask, Card, HOST, is_up, place};
use super::{DB, OTHER, WEB};
use crate::dpu::representor::Kind;
use crate::dpu::{Args, Start, start};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh, soon};
use crate::rounds::Rounds;

const ADDRESS: &str = "127.0.0.1:9478";

/// Certificates of one CA, in a directory per node.
fn certificates(home: &Path, nodes: &[&str]) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "ca");
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, &key);
    for node in nodes {
        let mut params = CertificateParams::new([(*node).to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, *node);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let directory = home.join(node);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("ca.crt"), ca.pem()).unwrap();
        std::fs::write(directory.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(directory.join("tls.key"), key.serialize_pem()).unwrap();
    }
}

fn pairing(host: &str) -> api::pairing::Pairing {
    format!(r#"{{"dpu":"d1","host":"{host}","address":"127.0.0.1","port":9478,"uid":"u"}}"#)
        .parse()
        .unwrap()
}

fn epoch(process: u64) -> Epoch {
    Epoch {
        boot_id: "b".into(),
        process,
    }
}

#[test]
fn a_host_has_its_pods_over_the_channel_and_keeps_them_when_it_is_cut() {
    sandboxed(
        "dpu::tests::over_the_channel::a_host_has_its_pods_over_the_channel_and_keeps_them_when_it_is_cut",
        scenario(),
    );
}

async fn scenario() {
    let card = Card::start(2).await;
    card.allocate(&WEB, HOST, 5);
    card.allocate(&OTHER, HOST, 7);
    card.world.allocate(&DB, "eth0", "default", 6);
    let home = card.world.ovn.home().join("channel");
    certificates(&home, &["d1", "h1", "h2"]);

    let node = card.world.node().await;
    let (paired, dpu_pairing) = watch::channel(Some(pairing("h1")));
    let readiness = Readiness::default();
    let mut registry = Registry::default();
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let rounds = Rounds::register(&mut registry);
    let parts = Start {
        node: Arc::clone(&node),
        args: Args {
            representors: Kind::Veth,
            uplink: Vec::new(),
            channel_address: ADDRESS.parse().unwrap(),
            ovs_rundir: card.world.ovn.home().to_owned(),
        },
        node_name: "d1".into(),
        sysfs: "/sys".into(),
        channel_identity: home.join("d1"),
        pairing: dpu_pairing,
        epoch: epoch(1),
        rounds,
        readiness: readiness.clone(),
        stop: stop.clone(),
    };
    start(parts, &mut registry, &tasks);

    let set: Arc<Mutex<Vec<Attachment>>> = Arc::default();
    let given = Arc::clone(&set);
    let link = |node: &str| {
        let given = Arc::clone(&given);
        let config = LinkConfig {
            node: node.to_owned(),
            identity: home.join(node),
            release: "0.1.0",
            epoch: epoch(2),
            set: Arc::new(move || given.lock().unwrap().clone()),
            troubles: watch::channel(Vec::new()).1,
            metrics: HostMetrics::register(&mut Registry::default()),
        };
        let to = Pairing {
            dpu: "d1".into(),
            address: ADDRESS.parse().unwrap(),
        };
        let end = CancellationToken::new();
        let link = Link::start(config, watch::channel(Some(to)).1, end.clone());
        (link, end)
    };
    let is_up_now = |link: &Link| matches!(&*link.state().borrow(), LinkState::Up { .. });
    let (host, end) = link("h1");
    eventually("the session", || is_up_now(&host)).await;
    // No token is mounted here: that is a complaint, and nothing else.
    soon("the complaint", || {
        let complaints = readiness.complaints();
        complaints.len() == 1
            && complaints[0].0 == "dpu-status"
            && complaints[0].1.contains("no Kubernetes API")
    })
    .await;

    let web = Ask::new(&WEB, "s1", 0, 5);
    let soon_enough = || Instant::now() + Duration::from_secs(20);
    set.lock().unwrap().push(web.message());
    let mut attaching = host.attach(web.message(), soon_enough()).await.unwrap();
    let wiring = attaching.wiring().await.unwrap();
    place(0, "web", "eth0", &wiring);
    attaching.installed().await.unwrap();
    let again = host.check(web.key(), web.attempt, soon_enough()).await;
    assert_eq!(again.unwrap(), wiring);

    // An error goes through as it is; a call that is dropped is undone.
    let unknown = Ask::new(&OTHER, "s2", 7, 6);
    let mut attaching = host.attach(unknown.message(), soon_enough()).await.unwrap();
    let failure = attaching.wiring().await.unwrap_err();
    assert_eq!(failure.reason, Reason::NoFunction, "{failure}");
    let other = Ask::new(&OTHER, "s2", 1, 7);
    let mut attaching = host.attach(other.message(), soon_enough()).await.unwrap();
    attaching.wiring().await.unwrap();
    drop(attaching);
    soon("the undo", || node.store.len() == 1 && !is_up(1)).await;
    // Another host's certificate is one of the CA, and gets nothing.
    let (stranger, stranger_end) = link("h2");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!is_up_now(&stranger));
    stranger_end.cancel();

    // What is wrong on the DPU is known to the host.
    sh("ip link del pf0vf0");
    let told = |link: &Link, what: &str| match &*link.state().borrow() {
        LinkState::Up { troubles, .. } => troubles.iter().any(|one| one.sentence.contains(what)),
        _ => false,
    };
    soon("the trouble", || told(&host, "representor pf0vf0 is gone")).await;

    // The host's process ends: nothing happens to its ports. Its successor says what it has.
    end.cancel();
    drop(host);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.store.len(), 1);
    let (host, end) = link("h1");
    eventually("the session", || is_up_now(&host)).await;
    assert_eq!(host.synced().borrow().len(), 1);
    assert_eq!(node.store.len(), 1);
    set.lock().unwrap().clear();
    host.detach(web.key(), web.attempt, soon_enough())
        .await
        .unwrap();
    assert_eq!(node.store.len(), 0);

    // The Dpu names another host.
    paired.send_replace(Some(pairing("h2")));
    soon("the end of the session", || !is_up_now(&host)).await;
    end.cancel();
    stop.cancel();
    tasks.close();
    tokio::time::timeout(Duration::from_secs(20), tasks.wait())
        .await
        .unwrap();
}
