//! What either side loses, and how it comes back.

use std::sync::Arc;
use std::time::Instant;

use channel::proto::{Reason, Wiring};
use daemon::readiness::Readiness;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::card::{Ask, Card, Dpu, HOST, is_up, pair, place};
use super::{DB, OTHER, WEB};
use crate::dpu::health;
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh, soon};
use crate::reconcile;
use crate::rounds::{Pace, Rounds};
use crate::store::Store;
use crate::tests::world::TestPod;

/// The loops of the DPU that no request starts.
struct Loops {
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Loops {
    async fn start(dpu: &Dpu) -> Self {
        let stop = CancellationToken::new();
        let readiness = Readiness::default();
        let rounds = Rounds::register(&mut Registry::default());
        let pace = Pace::new("attachments", &rounds, &readiness, stop.clone());
        let (recovery, mut recovered) = watch::channel(false);
        let node = Arc::clone(&dpu.node);
        let tasks = vec![
            tokio::spawn(reconcile::run(Arc::clone(&node), recovery, pace)),
            tokio::spawn(health::run(
                node,
                dpu.troubles.clone(),
                dpu.metrics.clone(),
                stop.clone(),
            )),
        ];
        recovered.wait_for(|done| *done).await.unwrap();
        Self { stop, tasks }
    }

    async fn end(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// A pod of the DPU to talk to.
async fn peer(card: &Card, dpu: &Dpu) {
    card.world.start_pod(&dpu.node, &DB, "default", 6).await;
}

/// A pod of the host in namespace `web`, and one of the DPU that it talks to; the loops run.
struct Served {
    card: Card,
    dpu: Dpu,
    web: Ask,
    wiring: Wiring,
    loops: Loops,
}

async fn served() -> Served {
    let card = Card::start(1).await;
    let dpu = card.dpu().await;
    peer(&card, &dpu).await;
    card.allocate(&WEB, HOST, 5);
    let web = Ask::new(&WEB, "s1", 0, 1);
    let loops = Loops::start(&dpu).await;
    let wiring = dpu.attach(&web).await.unwrap();
    place(0, "web", "eth0", &wiring);
    Served {
        card,
        dpu,
        web,
        wiring,
        loops,
    }
}

fn pings(netns: &str) -> bool {
    std::process::Command::new("ip")
        .args(["netns", "exec", netns, "ping", "-c1", "-W1", "10.244.0.6"])
        .output()
        .unwrap()
        .status
        .success()
}

#[test]
fn a_full_set_is_the_hosts_whole_truth() {
    sandboxed(
        "dpu::tests::recovery::a_full_set_is_the_hosts_whole_truth",
        async {
            let card = Card::start(4).await;
            let dpu = card.dpu().await;
            peer(&card, &dpu).await;
            card.allocate(&WEB, HOST, 5);
            card.allocate(&OTHER, HOST, 7);
            let web = Ask::new(&WEB, "s1", 0, 50);
            let other = Ask::new(&OTHER, "s2", 1, 51);
            let wiring = dpu.attach(&web).await.unwrap();
            place(0, "web", "eth0", &wiring);
            dpu.attach(&other).await.unwrap();

            // cni-node of the DPU is restarted: all is kept as it was.
            drop(dpu);
            let dpu = card.dpu().await;
            let row = card.world.ovn.vsctl("get Interface pf0vf0 _uuid");
            let outcomes = dpu.sync(&[&web, &other]).await;
            assert_eq!(outcomes[0], ("s1".to_owned(), Ok(wiring)));
            assert!(outcomes[1].1.is_ok());
            assert_eq!(card.world.ovn.vsctl("get Interface pf0vf0 _uuid"), row);
            assert!(pings("web"));

            // One that is not named goes; one that was never heard of comes; one without a row is told so and may be said again.
            const NEW: TestPod = TestPod {
                name: "new",
                uid: "u-new",
            };
            let new = Ask::new(&NEW, "s4", 2, 60);
            let outcomes = dpu.sync(&[&web, &new]).await;
            assert_eq!(outcomes[1].1.as_ref().unwrap_err().reason(), Reason::NoPort);
            card.allocate(&NEW, HOST, 8);
            eventually("the row", || {
                dpu.node.southbound.binding("default/new/default").is_none()
                    || card
                        .world
                        .ovn
                        .sbctl("list Port_Binding")
                        .contains("default/new/default")
            })
            .await;
            let mut again = dpu.sync(&[&web, &new]).await;
            while again[1].1.is_err() {
                again = dpu.sync(&[&web, &new]).await;
            }
            let mut left = dpu.left(&card);
            left.retain(|one| !one.starts_with("ob") && !one.ends_with(" db"));
            left.sort();
            assert_eq!(left, ["pf0vf0", "pf0vf2", "record h1/s1", "record h1/s4"]);
            assert!(pings("web"));
            eventually("the link is down", || !is_up(1)).await;

            // Two claims for one function: the later attempt has it.
            let rival = Ask::new(&OTHER, "s5", 0, 70);
            let outcomes = dpu.sync(&[&rival, &web]).await;
            assert!(outcomes[0].1.is_ok(), "{outcomes:?}");
            let failure = outcomes[1].1.as_ref().unwrap_err();
            assert_eq!(failure.reason(), Reason::FunctionTaken, "{failure:?}");

            // The host was booted: nothing of it is left, and its attempts begin at the bottom.
            assert!(dpu.sync(&[]).await.is_empty());
            assert_eq!(dpu.left(&card).len(), 2, "{:?}", dpu.left(&card));
            eventually("the link is down", || !is_up(0)).await;
            dpu.attach(&Ask { attempt: 1, ..web }).await.unwrap();
            // Another host behind the same card has it all.
            let of_other = dpu.ports.node.store.all().len();
            assert_eq!(of_other, 2);
            channel::Ports::sync(&*dpu.ports, "h2", Vec::new()).await;
            assert_eq!(dpu.left(&card).len(), 2, "{:?}", dpu.left(&card));
        },
    );
}

#[test]
fn a_dpu_that_was_booted_has_everything_back_from_the_host() {
    sandboxed(
        "dpu::tests::recovery::a_dpu_that_was_booted_has_everything_back_from_the_host",
        async {
            const PODS: u32 = 20;
            let card = Card::start(PODS).await;
            let dpu = card.dpu().await;
            let pods: Vec<Ask> = (0..PODS)
                .map(|number| {
                    let name: &'static str = format!("p{number}").leak();
                    let pod: &'static TestPod = Box::leak(Box::new(TestPod { name, uid: name }));
                    card.allocate(pod, HOST, 10 + u8::try_from(number).unwrap());
                    Ask::new(pod, name, number, 100 + u64::from(number))
                })
                .collect();
            for pod in &pods {
                dpu.attach(pod).await.unwrap();
            }
            drop(dpu);
            // The journal is of an earlier boot, Open vSwitch is empty, the representors are new links.
            for number in 0..PODS {
                card.world.ovn.vsctl(&format!("del-port pf0vf{number}"));
                sh(&format!("ip link del pf0vf{number}"));
                pair(number);
            }
            let journal = card.world.ovn.home().join("journal");
            drop(Store::<crate::attachment::Record>::open(&journal, "next-boot").unwrap());
            let dpu = card.dpu().await;
            assert!(dpu.node.store.is_empty());
            let set: Vec<&Ask> = pods.iter().collect();
            let started = Instant::now();
            for (sandbox, outcome) in dpu.sync(&set).await {
                outcome.unwrap_or_else(|failure| panic!("{sandbox}: {failure:?}"));
            }
            println!("{PODS} ports plugged again in {:?}", started.elapsed());
            for number in 0..PODS {
                card.world.ovn.vsctl(&format!(
                    "wait-until Interface pf0vf{number} external_ids:ovn-installed=true"
                ));
                assert!(is_up(number));
            }
            println!("and their flows after {:?}", started.elapsed());
            let started = Instant::now();
            dpu.sync(&set).await;
            println!("a set of which all is there: {:?}", started.elapsed());
        },
    );
}

#[test]
fn a_representor_that_vanishes_and_comes_back_works_without_anybodys_help() {
    sandboxed(
        "dpu::tests::recovery::a_representor_that_vanishes_and_comes_back_works_without_anybodys_help",
        async {
            let Served {
                card,
                dpu,
                wiring,
                loops,
                ..
            } = served().await;
            assert!(pings("web"));
            for _ in 0..2 {
                let before = card.world.ovn.vsctl("get Interface pf0vf0 _uuid");
                sh("ip link del pf0vf0");
                soon("the trouble", || {
                    dpu.troubles.borrow().iter().any(|trouble| {
                        trouble.limits && trouble.sentence.contains("representor pf0vf0 is gone")
                    })
                })
                .await;
                assert_eq!(dpu.metrics.unhealthy.get(), 1);
                // The card has it back, and the host puts it where it was.
                pair(0);
                let back = Instant::now();
                place(0, "web", "eth0", &wiring);
                soon("the pod's network", || pings("web")).await;
                println!("back after {:?}", back.elapsed());
                soon("the end of the trouble", || {
                    dpu.troubles.borrow().is_empty()
                })
                .await;
                assert_ne!(card.world.ovn.vsctl("get Interface pf0vf0 _uuid"), before);
            }
            // Between two looks: Open vSwitch alone would stay deaf.
            sh("ip link del pf0vf0");
            pair(0);
            place(0, "web", "eth0", &wiring);
            soon("the pod's network", || pings("web")).await;
            // Somebody sets it down.
            sh("ip link set pf0vf0 down");
            soon("the link", || is_up(0)).await;
            soon("the pod's network", || pings("web")).await;
            loops.end().await;
        },
    );
}

#[test]
fn a_database_that_was_wiped_gets_its_ports_back() {
    sandboxed(
        "dpu::tests::recovery::a_database_that_was_wiped_gets_its_ports_back",
        async {
            let Served {
                card,
                dpu,
                web,
                loops,
                ..
            } = served().await;
            let lost = Instant::now();
            // ovn-controller makes the bridge again.
            card.world.ovn.vsctl("del-br br-int");
            eventually("the pod's network", || pings("web")).await;
            println!("back after {:?}", lost.elapsed());
            dpu.check(&web).await.unwrap();
            loops.end().await;
        },
    );
}
