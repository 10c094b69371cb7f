//! A representor that comes back under another name, on a card whose switch the kernel knows. Its sysfs is the test's.

use std::path::Path;
use std::sync::Arc;

use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::card::{Ask, Card, Dpu, HOST};
use super::{DB, WEB};
use crate::dpu::moved;
use crate::dpu::ports::HostPorts;
use crate::dpu::representor::{Kind, provider};
use crate::gateway::tests::sandbox::{sandboxed, sh, soon};
use crate::reconcile;
use crate::rounds::{Pace, Rounds};

/// A port of a switch, as sysfs shows it.
fn port(sysfs: &Path, link: &str, name: &str) {
    let directory = sysfs.join("class/net").join(link);
    std::fs::create_dir_all(&directory).unwrap();
    for (file, text) in [
        ("phys_switch_id", "c0ffee"),
        ("phys_port_name", name),
        ("ifindex", "1"),
        ("address", "02:00:00:00:00:01"),
    ] {
        std::fs::write(directory.join(file), format!("{text}\n")).unwrap();
    }
}

#[test]
fn the_port_follows_the_name() {
    sandboxed("dpu::tests::renamed::the_port_follows_the_name", async {
        let card = Card::start(0).await;
        let sysfs = card.world.ovn.home().join("sys");
        port(&sysfs, "p0", "p0");
        port(&sysfs, "eth3", "pf0vf0");
        sh(&format!(
            "ip link add eth3 type veth peer name vf0 netns {HOST}"
        ));
        card.allocate(&WEB, HOST, 5);
        card.allocate(&DB, HOST, 6);
        let plain = card.dpu().await;
        let ports = Arc::new(HostPorts {
            representors: provider(Kind::Switchdev, &sysfs, &[]),
            pairing: plain.ports.pairing.clone(),
            claims: crate::dpu::claims::Claims::default(),
            troubles: plain.ports.troubles.clone(),
            metrics: plain.metrics.clone(),
            node: Arc::clone(&plain.node),
        });
        let dpu = Dpu { ports, ..plain };
        let web = Ask::new(&WEB, "s1", 0, 1);
        dpu.attach(&web).await.unwrap();
        assert!(dpu.left(&card).contains(&"eth3".to_owned()));

        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        let rounds = Rounds::register(&mut Registry::default());
        let pace = |name| Pace::new(name, &rounds, &readiness, stop.clone());
        let (recovery, _recovered) = tokio::sync::watch::channel(false);
        let loops = [
            tokio::spawn(moved::run(Arc::clone(&dpu.ports), pace("representors"))),
            tokio::spawn(reconcile::run(
                Arc::clone(&dpu.node),
                recovery,
                pace("attachments"),
            )),
        ];
        std::fs::remove_dir_all(sysfs.join("class/net/eth3")).unwrap();
        sh("ip link del eth3");
        port(&sysfs, "eth9", "pf0vf0");
        sh(&format!(
            "ip link add eth9 type veth peer name vf0 netns {HOST}"
        ));
        soon("the port under its new name", || {
            dpu.left(&card).contains(&"eth9".to_owned())
        })
        .await;
        card.world
            .ovn
            .vsctl("wait-until Interface eth9 external_ids:ovn-installed=true");
        soon("the link", || sh("ip link show eth9").contains(",UP")).await;
        dpu.check(&web).await.unwrap();
        stop.cancel();
        for running in loops {
            running.await.unwrap();
        }
    });
}
