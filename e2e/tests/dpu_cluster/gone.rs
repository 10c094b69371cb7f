//! The DPU is gone: who says so, how soon, and in which words.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::until;

use crate::recovery::UNNOTICED;
use crate::world::{RETURN, START, World};

/// A heartbeat is this old when cni-controller takes the DPU for gone; and some seconds for everybody to see it.
const HEARTBEAT: Duration = Duration::from_secs(30 + 15);

/// Switched off: STATUS on its host says so within seconds, Dpu and Node when its heartbeats stay away. On again: all is well.
pub(crate) fn dpu(world: &World<'_>) -> Result<String> {
    let pair = world.pair();
    let other = e2e::pairs::Ping::start(
        world.lab,
        world.scene.on("h2")?,
        &world.scene.on("m")?.pod.ips[0],
    )?;
    let off = world.lab.site.power_off(&pair.dpu)?;
    let started = Instant::now();
    let said = world.status_is(world.host(), Some(51), Duration::from_secs(8))?;
    let status = started.elapsed();
    ensure!(
        said.contains("DPU"),
        "STATUS does not say that it is the DPU: {said}"
    );
    until("Dpu and Node to say it", HEARTBEAT, || {
        let (dpu, why) = pair.condition(world.lab, "Ready")?;
        ensure!(dpu == "False", "Ready of the Dpu is {dpu:?}: {why}");
        let (node, why) = pair.node_condition(world.lab)?;
        ensure!(node == "False", "the Node's condition is {node:?}: {why}");
        Ok(Some(()))
    })?;
    let conditions = started.elapsed();
    let (_, why) = pair.node_condition(world.lab)?;
    world.create(&[("waits", &pair.host)])?;
    // The other host has its own.
    world.start(&[("beside", "h2")])?;
    world.serves("m", "beside")?;
    let reboot = world.lab.site.power_on(&pair.dpu, off)?;
    pair.wait(world.lab, RETURN)?;
    world.status_is(world.host(), None, RETURN)?;
    world.lab.wait_ready(&world.ns, "waits", START)?;
    world.scene.unchanged(&pair.host)?;
    let other = other.stop()?;
    ensure!(
        other.longest < UNNOTICED,
        "the other pair lost {:?}",
        other.longest
    );
    world.whole()?;
    let (network, _) = reboot.took();
    Ok(format!(
        "STATUS 51 after {:.1} s ({said}), conditions after {:.1} s ({why}), off for {:.0} s",
        status.as_secs_f32(),
        conditions.as_secs_f32(),
        network.as_secs_f32()
    ))
}
