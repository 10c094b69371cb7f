//! A new version of everything of ours but the engine is rolled out while pods write.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::until;
use e2e::volumes::{Claim, Log, Mode, User};

use crate::copies::LOG;
use crate::world::{LONG, SYSTEM, World};

const RING: Log<'static> = Log {
    path: "/dev/disk",
    ring: 1024,
};

/// Pod, node, other node, how its volume is seen, where it writes.
type Writer = (&'static str, &'static str, &'static str, Mode, Log<'static>);
const WRITERS: [Writer; 4] = [
    ("files-1", "n1", "n2", Mode::Filesystem, LOG),
    ("files-2", "n2", "n1", Mode::Filesystem, LOG),
    ("disk-1", "n1", "n2", Mode::Block, RING),
    ("disk-2", "n2", "n1", Mode::Block, RING),
];

/// No write fails, nothing is lost, and volumes that the old programs mounted are taken away by the new ones.
pub(crate) fn of_everything(world: &World<'_>) -> Result<String> {
    for (name, node, _, mode, log) in WRITERS {
        world.claim(&Claim::new(name, "64Mi", mode))?;
        world.create(&User::new(name, name, mode).on(node).writing(log))?;
    }
    for (name, ..) in WRITERS {
        world.ready(name)?;
        world.advance(name, 20)?;
    }
    let listed =
        world
            .lab
            .kubectl(&["get", "daemonsets,deployments", "-n", SYSTEM, "-o", "name"])?;
    let all: Vec<&str> = listed
        .lines()
        .filter(|name| !name.ends_with("/outboard-engine"))
        .collect();
    ensure!(all.len() > 4, "hardly anything of ours is there: {listed}");
    for workload in &all {
        world
            .lab
            .kubectl(&["rollout", "restart", "-n", SYSTEM, workload])?;
    }
    world.rolled_out(&all)?;
    let mut longest = Duration::ZERO;
    let mut all_written = Vec::new();
    for (name, _, _, _, log) in WRITERS {
        world.advance(name, 20)?;
        let written = world.stop_writer(name)?;
        longest = longest.max(written.longest);
        world.verify(name, log, written)?;
        all_written.push(written);
    }
    let pods = WRITERS.map(|writer| format!("pod/{}", writer.0));
    world.delete(&pods.each_ref().map(String::as_str))?;
    for (name, _, other, mode, _) in WRITERS {
        world.create(&User::new(name, name, mode).on(other))?;
    }
    let mut blocks = 0;
    for ((name, _, _, _, log), written) in WRITERS.into_iter().zip(all_written) {
        world.ready(name)?;
        blocks += world.verify(name, log, written)?;
    }
    Ok(format!(
        "{} workloads, {blocks} blocks, no error, the slowest block {longest:.2?}",
        all.len()
    ))
}

/// The engine's pods are replaced without a drain: its daemons outlive them, and the next engine finds them.
pub(crate) fn of_the_engine(world: &World<'_>) -> Result<String> {
    let writers = &WRITERS[..2];
    for (name, node, _, mode, log) in writers {
        world.claim(&Claim::new(name, "64Mi", *mode))?;
        world.create(&User::new(name, name, *mode).on(node).writing(*log))?;
    }
    for (name, ..) in writers {
        world.ready(name)?;
        world.advance(name, 20)?;
    }
    for (_, node, ..) in writers {
        let pod = world.system_pod("outboard-engine", Some(node))?;
        let pod = format!("pod/{pod}");
        let delete = ["delete", "-n", SYSTEM, &pod, "--timeout=120s"];
        world.lab.kubectl(&delete)?;
        until("the next engine", LONG, || {
            let next = world.system_pod("outboard-engine", Some(node))?;
            let next = format!("pod/{next}");
            let ready = ["wait", "-n", SYSTEM, "--for=condition=Ready", &next];
            world.lab.kubectl(&ready).map(Some)
        })?;
    }
    let mut said = Vec::new();
    for (name, node, _, _, log) in writers {
        world.advance(name, 20)?;
        let written = world.stop_writer(name)?;
        let blocks = world.verify(name, *log, written)?;
        said.push(format!(
            "{blocks} blocks on {node}, the slowest {:.2?}",
            written.longest
        ));
        let (claim, pod) = (format!("next-{node}"), format!("next-{node}"));
        world.use_new(
            &Claim::new(&claim, "16Mi", Mode::Block),
            &User::new(&pod, &claim, Mode::Block).on(node),
        )?;
    }
    Ok(said.join("; "))
}
