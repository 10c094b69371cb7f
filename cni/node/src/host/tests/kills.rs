//! The host's cni-node, killed between any two steps: a process of its own, that a real SIGKILL ends.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use cni_bin::wire::Command;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::world::{DB, Host, WEB, World};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::tests::world::{
    ask_any as ask, attach_any as attach, detach_any as detach, request, sandbox,
};

const NAME: &str = "host::tests::kills::an_operation_killed_between_any_two_steps_leaves_nothing";
/// In the child: verb, sandbox, and the step at which it dies.
const CHILD: &str = "OUTBOARD_TEST_CHILD";
const HOME: &str = "/run/outboard-test";

#[test]
fn an_operation_killed_between_any_two_steps_leaves_nothing() {
    if let Ok(task) = std::env::var(CHILD) {
        return child(&task);
    }
    sandboxed(NAME, async {
        let world = World::start().await;
        // A bystander, which must never notice.
        let host = world.host().await;
        sandbox("db");
        attach(&*host.node, &DB, "db").await;
        host.end().await;
        for (number, point) in crate::HOST_FAILPOINTS.into_iter().enumerate() {
            let name = format!("s{number}");
            sandbox(&name);
            let dels = ["host::del_begun", "host::returned", "host::forgotten"];
            let verb = if dels.contains(&point) { "DEL" } else { "ADD" };
            if verb == "DEL" {
                let host = world.host().await;
                attach(&*host.node, &WEB, &name).await;
                host.end().await;
            }
            die(&format!("{verb} {name} {point}"));
            let host = world.host().await;
            // As on a plain node: an ADD that had done everything but answer has succeeded, and a DEL that had not dropped the
            // record has not happened. Anything else is gone without being asked.
            let whole = matches!(
                point,
                "host::installed" | "host::del_begun" | "host::returned"
            );
            let pods = if whole { 2 } else { 1 };
            let settled =
                || world.bridge.sandboxes().len() == pods && host.node.store.len() == pods + 1;
            eventually(&format!("order after {point}"), settled).await;
            if whole {
                sh(&format!("ip netns exec {name} ping -c1 -W5 10.244.0.6"));
            }
            detach(&*host.node, &WEB, &name).await;
            let left = world.leftovers(&host);
            assert_eq!(left.len(), 3, "{point}: {left:?}");
            sh("ip netns exec db ping -c1 -W5 10.244.0.1 && ping -c1 -W5 10.244.0.6");
            host.end().await;
        }
    });
}

fn die(task: &str) {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(CHILD, task)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{task}: {:?} {said}",
        output.status
    );
}

fn child(task: &str) {
    let [verb, name, point] = task.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{task}");
    };
    let _scenario = fail::FailScenario::setup();
    fail::cfg_callback(point, || kill(Pid::this(), Signal::SIGKILL).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let host = Host::start(Path::new(HOME));
        host.ready().await;
        let verb = if verb == "ADD" {
            Command::Add
        } else {
            Command::Del
        };
        let answer = ask(&*host.node, &request(verb, &WEB, name, "eth0")).await;
        panic!("{point} was not reached: {answer:?}");
    });
}
