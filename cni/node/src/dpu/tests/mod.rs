//! The host's requests against a real OVN of one DPU and the kernel's veth pairs.

pub(in crate::dpu) mod card;

mod faults;
mod over_the_channel;
mod recovery;
mod renamed;

use std::time::Duration;

use channel::Ports as _;
use channel::proto::Reason;
use channel::proto::attachment::Subject;
use channel::proto::{self};
use cni_bin::wire::Command;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::card::{Ask, Card, HOST, is_up, place};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::tests::world::{TestPod, ask, detach, request, sandbox, within};

pub(super) use crate::tests::world::{DB, WEB};

pub(super) const OTHER: TestPod = TestPod {
    name: "other",
    uid: "u-other",
};

#[test]
fn a_hosts_pod_is_attached_reaches_the_dpus_is_checked_and_detached() {
    sandboxed(
        "dpu::tests::a_hosts_pod_is_attached_reaches_the_dpus_is_checked_and_detached",
        async {
            let card = Card::start(2).await;
            let dpu = card.dpu().await;
            card.allocate(&WEB, HOST, 5);
            card.world.start_pod(&dpu.node, &DB, "default", 6).await;

            let web = Ask::new(&WEB, "s1", 0, 7);
            let wiring = dpu.attach(&web).await.unwrap();
            assert_eq!(wiring.logical_port, "default/web/default");
            assert_eq!(wiring.ips, ["10.244.0.5/24", "fd00:10:244::5/64"]);
            assert_eq!(wiring.mac, "0a:58:0a:f4:00:05");
            place(0, "web", "eth0", &wiring);
            sh("ip netns exec web ping -c1 -W5 10.244.0.6
                ip netns exec db ping -c1 -W5 fd00:10:244::5");
            // Full-size packets pass with checksums that the interface computes itself.
            sh(&format!(
                "ip netns exec web ping -c1 -W5 -M do -s {} 10.244.0.6",
                wiring.mtu - 28
            ));
            let ids = card.world.ovn.vsctl("get Interface pf0vf0 external_ids");
            for shown in [
                "host=h1",
                "function=pf0vf0",
                "uid=u-web",
                "sandbox=\"h1/s1\"",
            ] {
                assert!(ids.contains(shown), "{shown}: {ids}");
            }

            // A repetition is the same answer, and no packet notices.
            let before = card.world.ovn.vsctl("get Interface pf0vf0 _uuid");
            assert_eq!(dpu.attach(&web).await.unwrap(), wiring);
            assert_eq!(card.world.ovn.vsctl("get Interface pf0vf0 _uuid"), before);
            assert_eq!(dpu.check(&web).await.unwrap(), wiring);
            sh("ip link set pf0vf0 down");
            let failure = dpu.check(&web).await.unwrap_err();
            assert!(
                failure.cause.contains("pf0vf0") || failure.cause.contains("is down"),
                "{failure}"
            );
            sh("ip link set pf0vf0 up");
            let unknown = dpu.check(&Ask { attempt: 6, ..web }).await.unwrap_err();
            assert_eq!(unknown.code, cni_bin::code::CHECK_FAILED);

            // The DPU's own GC and DEL do not reach it.
            let gc = crate::tests::world::with(
                request(Command::Gc, &DB, "-", "-"),
                &serde_json::json!({"cni.dev/valid-attachments": [{"containerID": "db", "ifname": "eth0"}]}),
            );
            ask(&dpu.node, &gc).await.unwrap();
            detach(&dpu.node, &WEB, "s1").await;
            sh("ip netns exec web ping -c1 -W5 10.244.0.6");

            for _ in 0..2 {
                dpu.detach(&web).await.unwrap();
                eventually("the link is down", || !is_up(0)).await;
            }
            let own = dpu.node.store.all();
            assert_eq!(own.len(), 1);
            assert_eq!(dpu.left(&card).len(), 2, "{:?}", dpu.left(&card));
            // What comes after its DEL is too late.
            let late = dpu.attach(&web).await.unwrap_err();
            assert_eq!(late.reason, Reason::OldAttempt, "{late}");
            dpu.attach(&Ask { attempt: 8, ..web }).await.unwrap();
        },
    );
}

#[test]
fn the_hosts_own_interface_is_plugged_and_is_no_pods() {
    sandboxed(
        "dpu::tests::the_hosts_own_interface_is_plugged_and_is_no_pods",
        async {
            let card = Card::start(1).await;
            let dpu = card.dpu().await;
            let gateway = proto::Attachment {
                key: Some(proto::AttachmentKey {
                    sandbox: "host".into(),
                    ifname: "ob0".into(),
                }),
                attempt: 1,
                function: Some(proto::Function {
                    physical: 0,
                    r#virtual: Some(0),
                }),
                subject: Some(Subject::Host(proto::HostInterface {})),
            };
            card.allocate_gateway("h2");
            let patience = Duration::from_secs(1);
            let failure = dpu
                .attach_within(HOST, gateway.clone(), patience)
                .await
                .unwrap_err();
            assert_eq!(failure.reason, Reason::NoPort, "{failure}");
            card.allocate_gateway(HOST);
            let patience = Duration::from_secs(20);
            let wiring = dpu.attach_within(HOST, gateway, patience).await.unwrap();
            assert_eq!(wiring.logical_port, "node/h1");
            let cluster = wiring.cluster.unwrap();
            assert_eq!((cluster.pods.len(), cluster.join.len()), (1, 1));
            let ids = card.world.ovn.vsctl("get Interface pf0vf0 external_ids");
            assert!(ids.contains("node/h1") && !ids.contains("uid="), "{ids}");
        },
    );
}

#[test]
fn what_is_not_the_hosts_is_refused_and_nothing_is_said_of_it() {
    sandboxed(
        "dpu::tests::what_is_not_the_hosts_is_refused_and_nothing_is_said_of_it",
        async {
            let card = Card::start(2).await;
            let dpu = card.dpu().await;
            card.allocate(&WEB, HOST, 5);
            card.allocate(&OTHER, "h2", 7);
            card.world.start_pod(&dpu.node, &DB, "default", 6).await;
            let refused = async |ask: Ask| {
                let patience = Duration::from_secs(1);
                dpu.attach_within(HOST, ask.message(), patience)
                    .await
                    .unwrap_err()
            };
            // The UID of another host's pod, of one of the DPU's own, and of none: all the same.
            for pod in [
                &OTHER,
                &DB,
                &TestPod {
                    name: "none",
                    uid: "u-none",
                },
            ] as [&'static TestPod; 3]
            {
                let failure = refused(Ask::new(pod, "s1", 0, 1)).await;
                assert_eq!(failure.reason, Reason::NoPort, "{failure}");
                assert_eq!(failure.code, cni_bin::code::TRY_AGAIN_LATER);
                let said = failure.to_string();
                assert!(
                    said.contains("no address is allocated on chassis n1"),
                    "{said}"
                );
                assert!(!said.contains("10.244.") && !said.contains("h2"), "{said}");
            }
            // A sandbox of the DPU's own pods is another attachment.
            let own = Ask::new(&WEB, "db", 9, 1);
            let failure = refused(own).await;
            assert_eq!(failure.reason, Reason::NoFunction, "{failure}");
            dpu.detach(&own).await.unwrap();
            sh("ip netns exec db ip link show eth0");
            assert_eq!(dpu.left(&card).len(), 2, "{:?}", dpu.left(&card));

            // The DPU's own kubelet does not get the host's rows.
            sandbox("web");
            let add = within(
                request(Command::Add, &WEB, "web", "eth0"),
                Duration::from_secs(1),
            );
            let failure = ask(&dpu.node, &add).await.unwrap_err();
            assert!(failure.msg.contains("no address is allocated"), "{failure}");

            // A subnet that the row is not in is the configuration's mistake.
            let mut message = Ask::new(&WEB, "s1", 0, 2).message();
            if let Some(Subject::Pod(pod)) = &mut message.subject {
                pod.subnet = "blue".into();
            }
            let patience = Duration::from_secs(1);
            let failure = dpu
                .attach_within(HOST, message, patience)
                .await
                .unwrap_err();
            assert_eq!(failure.code, cni_bin::code::INVALID_CONFIG, "{failure}");
        },
    );
}

#[test]
fn the_younger_attempt_takes_function_and_port_and_the_older_ones_requests_touch_nothing() {
    sandboxed(
        "dpu::tests::the_younger_attempt_takes_function_and_port_and_the_older_ones_requests_touch_nothing",
        async {
            let card = Card::start(2).await;
            let dpu = card.dpu().await;
            card.allocate(&WEB, HOST, 5);
            card.world.start_pod(&dpu.node, &DB, "default", 6).await;
            // A new pod gets the function before the DEL of the old one came.
            let old = Ask::new(&WEB, "s1", 0, 5);
            dpu.attach(&old).await.unwrap();
            let new = Ask::new(&OTHER, "s2", 0, 6);
            let failure = dpu.attach(&Ask { attempt: 4, ..new }).await.unwrap_err();
            assert_eq!(failure.reason, Reason::OldAttempt, "{failure}");
            // Until its row is there it takes nothing from anybody.
            let patience = Duration::from_millis(300);
            let early = dpu.attach_within(HOST, new.message(), patience).await;
            assert_eq!(early.unwrap_err().reason, Reason::NoPort);
            dpu.check(&old).await.unwrap();
            let row = async {
                eventually("the claim", || dpu.ports.claims.is_active(&id("s2"))).await;
                dpu.check(&old).await.unwrap();
                card.allocate(&OTHER, HOST, 7);
            };
            let (wiring, ()) = tokio::join!(dpu.attach(&new), row);
            let wiring = wiring.unwrap();
            assert!(dpu.node.store.get(&id("s1")).is_none());
            place(0, "new", "eth0", &wiring);
            sh("ip netns exec new ping -c1 -W5 10.244.0.6");
            for attempt in [5, 9] {
                dpu.detach(&Ask { attempt, ..old }).await.unwrap();
                sh("ip netns exec new ping -c1 -W5 10.244.0.6");
            }
            assert!(is_up(0));
            // A second sandbox of the pod, with another function: the port is the younger's.
            let second = Ask::new(&OTHER, "s3", 1, 10);
            let wiring = dpu.attach(&second).await.unwrap();
            place(1, "second", "eth0", &wiring);
            sh("ip netns exec second ping -c1 -W5 10.244.0.6");
            let claimants = card.world.ovn.vsctl(
                "--no-headings --columns=name --data=bare find Interface external_ids:iface-id=default/other/default",
            );
            assert_eq!(claimants.trim(), "pf0vf1");
            dpu.detach(&new).await.unwrap();
            sh("ip netns exec second ping -c1 -W5 10.244.0.6");
            // A DEL of an attempt before: nothing.
            dpu.detach(&Ask {
                attempt: 9,
                ..second
            })
            .await
            .unwrap();
            sh("ip netns exec second ping -c1 -W5 10.244.0.6");
        },
    );
}

#[test]
fn an_attach_that_is_given_up_or_overtaken_leaves_nothing() {
    sandboxed(
        "dpu::tests::an_attach_that_is_given_up_or_overtaken_leaves_nothing",
        async {
            let card = Card::start(1).await;
            let dpu = card.dpu().await;
            let start = |ask: Ask, given_up: &CancellationToken| {
                let (ports, given_up) = (dpu.ports.clone(), given_up.clone());
                tokio::spawn(async move {
                    let deadline = Instant::now() + Duration::from_secs(60);
                    let (wiring, _) = oneshot::channel();
                    ports
                        .attach(HOST, ask.message(), wiring, deadline, given_up)
                        .await
                })
            };
            // While it waits for its row.
            let given_up = CancellationToken::new();
            let web = Ask::new(&WEB, "s1", 0, 1);
            let going = start(web, &given_up);
            eventually("the claim", || dpu.ports.claims.is_active(&id("s1"))).await;
            given_up.cancel();
            let failure = going.await.unwrap().unwrap_err();
            assert!(failure.cause.contains("gave it up"), "{failure}");
            assert_eq!(dpu.ports.claims.len(), 0);

            // While it waits for its flows: ovn-controller has ended.
            card.allocate(&WEB, HOST, 5);
            let ctl = sh(&format!(
                "ls {}/ovn-controller.*.ctl",
                card.world.ovn.home().display()
            ));
            sh(&format!("ovs-appctl -t {} exit --restart", ctl.trim()));
            let given_up = CancellationToken::new();
            let going = start(Ask { attempt: 2, ..web }, &given_up);
            eventually("the link", || is_up(0)).await;
            given_up.cancel();
            going.await.unwrap().unwrap_err();
            eventually("the link is down", || !is_up(0)).await;
            assert_eq!(dpu.left(&card), Vec::<String>::new());

            // A DEL overtakes it.
            let going = start(Ask { attempt: 3, ..web }, &CancellationToken::new());
            eventually("the link", || is_up(0)).await;
            dpu.detach(&Ask { attempt: 3, ..web }).await.unwrap();
            let failure = going.await.unwrap().unwrap_err();
            assert_eq!(failure.reason, Reason::OldAttempt, "{failure}");
            assert_eq!(dpu.left(&card), Vec::<String>::new());

            // And by itself at its deadline.
            let patience = Duration::from_secs(1);
            let late = Ask { attempt: 4, ..web }.message();
            let failure = dpu.attach_within(HOST, late, patience).await.unwrap_err();
            assert_eq!(failure.code, cni_bin::code::TRY_AGAIN_LATER);
            assert!(failure.cause.contains("ovn-controller"), "{failure}");
            assert_eq!(dpu.left(&card), Vec::<String>::new());
        },
    );
}

fn id(sandbox: &str) -> crate::attachment::AttachmentId {
    crate::attachment::AttachmentId::of_host(HOST, sandbox, "eth0")
}
