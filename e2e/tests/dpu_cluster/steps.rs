//! kill -9 of either cni-node between any two steps of an ADD and a DEL, while kubelet and the other side go on.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use e2e::{Node, leaks};

use crate::world::{RETURN, START, SYSTEM, World};

pub(crate) fn of_the_host(world: &World<'_>) -> Result<String> {
    all(world, world.host(), "host", ("lib.rs", "HOST_FAILPOINTS"))
}

pub(crate) fn of_the_dpu(world: &World<'_>) -> Result<String> {
    all(world, world.dpu(), "dpu", ("dpu/mod.rs", "FAILPOINTS"))
}

fn all(world: &World<'_>, node: &Node, side: &str, list: (&str, &str)) -> Result<String> {
    let steps = steps(list)?;
    for step in &steps {
        one(world, node, side, step).with_context(|| format!("killed at {step}"))?;
    }
    Ok(format!("{}: {}", steps.len(), steps.join(" ")))
}

/// The daemon dies at the step of a pod's start or end; kubelet starts it again, and the pod starts or ends all the same.
fn one(world: &World<'_>, node: &Node, side: &str, step: &str) -> Result<()> {
    let host = world.pair().host.as_str();
    let faults = format!("outboard-faults-{side}");
    let at = format!("--from-literal=OUTBOARD_KILL_AT={step}");
    world
        .lab
        .kubectl(&["create", "configmap", "-n", SYSTEM, &faults, &at])?;
    let armed = world
        .kill_daemon(node)
        .and_then(|()| world.daemon_ready(node));
    // The one after it is not to die.
    world
        .lab
        .kubectl(&["delete", "configmap", "-n", SYSTEM, &faults])?;
    armed?;
    let condemned = world.daemon_pid(node)?.context("the daemon does not run")?;
    let pods = [("first", host), ("second", host)];
    world.create(&pods)?;
    for (name, _) in pods {
        // Steps of a DEL are passed in an ADD that fails, or not before the pods are deleted.
        world.lab.wait_ready(&world.ns, name, START)?;
        world.serves("m", name)?;
        world.delete(name)?;
    }
    world.replaced(node, &condemned)?;
    world.daemon_ready(node)?;
    world.pair().wait(world.lab, RETURN)?;
    world.scene.unchanged(host)?;
    leaks::wait_for_none(world.lab, RETURN)
}

/// The steps that cni-node's source lists.
fn steps((file, list): (&str, &str)) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cni/node/src")
        .join(file);
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let found = text
        .split(&format!("pub const {list}: "))
        .nth(1)
        .and_then(|rest| rest.split_once(" = ")?.1.split("];").next())
        .with_context(|| format!("no list {list} in {}", path.display()))?;
    let steps: Vec<String> = found
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    ensure!(!steps.is_empty(), "{list} is empty");
    Ok(steps)
}
