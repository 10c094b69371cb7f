//! Many pods at once, undisturbed and with our daemons killed in between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::until;

use crate::world::{SYSTEM, World};

const LIMIT: Duration = Duration::from_secs(240);

pub(crate) fn hundred_and_ten(world: &World<'_>) -> Result<String> {
    let started = Instant::now();
    deploy(world, 110)?;
    ready(world, 110)?;
    let up = started.elapsed();
    distinct(world, 110)?;
    let started = Instant::now();
    remove(world)?;
    Ok(format!(
        "110 pods Ready on one node after {:.1} s, gone after {:.1} s",
        up.as_secs_f32(),
        started.elapsed().as_secs_f32()
    ))
}

pub(crate) fn killed_in_the_middle(world: &World<'_>) -> Result<String> {
    let started = Instant::now();
    deploy(world, 30)?;
    ready(world, 4)?;
    let node = world.system_pod("cni-node", "n2")?;
    world.kill_container(&node, "cni-node")?;
    ready(world, 15)?;
    let controller = world.system_pod("cni-controller", "n1")?;
    world.kill_container(&controller, "cni-controller")?;
    ready(world, 30)?;
    let up = started.elapsed();
    distinct(world, 30)?;
    // On the way down too: the DELs of 30 pods, and a new daemon (not one that kubelet makes wait for its restarts).
    let delete = [
        "delete",
        "-n",
        &world.ns,
        "deployment",
        "burst",
        "--wait=false",
    ];
    world.lab.kubectl(&delete)?;
    until("a third of the pods to go", LIMIT, || {
        Ok((world.ports()?.len() < 20).then_some(()))
    })?;
    let pod = world.system_pod("cni-node", "n2")?;
    world.lab.kubectl(&[
        "delete",
        "pod",
        "-n",
        SYSTEM,
        &pod,
        "--grace-period=0",
        "--force",
    ])?;
    world.outboard_ready()?;
    Ok(format!(
        "30 pods Ready after {:.1} s in spite of it",
        up.as_secs_f32()
    ))
}

fn deploy(world: &World<'_>, replicas: usize) -> Result<()> {
    let spec = world.pod_spec().replace('\n', "\n      ");
    world
        .lab
        .apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: burst, namespace: {}}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: burst}}}}\n  template:\n    metadata: {{labels: {{app: burst}}}}\n    spec:\n      \
             nodeSelector: {{kubernetes.io/hostname: n2}}\n      {}\n",
            world.ns,
            spec.trim_end()
        ))
        .map(drop)
}

fn ready(world: &World<'_>, count: u32) -> Result<()> {
    until(&format!("{count} pods to be Ready"), LIMIT, || {
        let deployment = world.json(&["get", "-n", &world.ns, "deployment", "burst"])?;
        let ready = deployment["status"]["readyReplicas"]
            .as_u64()
            .unwrap_or_default();
        ensure!(ready >= u64::from(count), "{ready} are");
        Ok(Some(()))
    })
}

fn distinct(world: &World<'_>, count: usize) -> Result<()> {
    let pods = world.pods()?;
    let addresses: BTreeSet<_> = pods.iter().flat_map(|pod| &pod.ips).collect();
    ensure!(
        addresses.len() == 2 * count,
        "{count} pods have {} addresses",
        addresses.len()
    );
    Ok(())
}

fn remove(world: &World<'_>) -> Result<()> {
    world
        .lab
        .kubectl(&["delete", "-n", &world.ns, "deployment", "burst"])?;
    until("the pods to be gone", LIMIT, || {
        Ok(world.pods()?.is_empty().then_some(()))
    })
}
