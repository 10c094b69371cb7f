//! The API server is gone while pods start that were scheduled before: an ADD asks nothing of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::until;

use crate::world::{Paused, START, SYSTEM, World};

const PODS: usize = 5;

pub(crate) fn stopped_during_starts(world: &World<'_>) -> Result<String> {
    let names: Vec<String> = (0..PODS).map(|i| format!("held-{i}")).collect();
    let pods: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "n2")).collect();
    let api = world.lab.node("n1").process("kube-apiserver");
    // No ADD is answered until kubelet has taken all pods in and the API server is gone. (With containerd held instead,
    // kubelet's housekeeping can wait for that before it takes them in.)
    let cni_node = world.system_pod("cni-node", "n2")?;
    let held = Paused::pid(world.container_pid(SYSTEM, &cni_node, "cni-node")?)?;
    world.create(&pods)?;
    until("kubelet to take the pods in", START, || {
        let list = world.json(&["get", "pods", "-n", &world.ns])?;
        let items = list["items"].as_array().into_iter().flatten();
        let taken = items
            .filter(|pod| pod["status"]["startTime"].is_string())
            .count();
        Ok((taken == PODS).then_some(()))
    })?;
    until("the pods' ports", START, || {
        Ok((world.ports()?.len() == PODS).then_some(()))
    })?;
    api.kill9()?;
    drop(held);

    let started = Instant::now();
    let answered = names.iter().try_for_each(|name| {
        let address = address(world, name)?;
        let what = format!("{name} on {address} to answer while there is no API server");
        until(&what, START, || {
            let said = world.fetch("n1", &address)?;
            ensure!(said == *name, "{said:?} answered");
            Ok(Some(()))
        })
    });
    let took = started.elapsed();
    ensure!(
        !api.alive(),
        "the API server came back by itself: the case shows nothing"
    );
    api.restart()?;
    world.lab.wait_for("the API server", START, |lab| {
        lab.kubectl(&["get", "--raw", "/readyz"]).map(|_| true)
    })?;
    answered?;
    for name in &names {
        world.lab.wait_ready(&world.ns, name, START)?;
    }
    // What was down with it is back: new pods get addresses, Services follow.
    world.outboard_ready()?;
    world.start(&[("after", "n1")])?;
    world.connected()?;
    Ok(format!(
        "{PODS} pods served without an API server after {:.1} s",
        secs(took)
    ))
}

/// The pod's IPv4 address, from NB: nobody else can be asked.
fn address(world: &World<'_>, name: &str) -> Result<String> {
    let port = format!("{}/{name}/default", world.ns);
    let ips = world
        .lab
        .nbctl(&["get", "Logical_Switch_Port", &port, "external_ids:ips"])?;
    let first = ips
        .trim_matches('"')
        .split(['/', ' '])
        .next()
        .unwrap_or_default();
    ensure!(!first.is_empty(), "port {port} has no address: {ips}");
    Ok(first.to_owned())
}

fn secs(duration: Duration) -> f32 {
    duration.as_secs_f32()
}
