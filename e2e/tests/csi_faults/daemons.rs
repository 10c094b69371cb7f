//! A volume's daemons die under a checksummed writer: at the target that is a pause, at the card an error, which the next
//! NodePublishVolume heals.

use anyhow::{Context as _, Result, ensure};
use e2e::storage::Program;
use e2e::storage::calls::{Usage, Volume};
use e2e::until;
use nix::sys::signal::Signal;
use proto::csi::v1::volume_health::VolumeHealthEntry;
use proto::csi::v1::{ControllerGetVolumeHealthRequest, VolumeHealthErrorType};

use crate::world::{Disk, FAR, LIMIT, MIB, NEAR, POD, World, signal};
use crate::writer::Writer;

/// The NBD client connects again: no error.
pub(crate) fn target(world: &mut World) -> Result<String> {
    let mut all = Vec::new();
    for usage in [Usage::block(), Usage::files("ext4")] {
        let name = format!("target-{}", all.len());
        let volume = world.create(&name, 64 * MIB, &usage)?;
        let up = world.up(&volume, FAR)?;
        let writer = Writer::start(world, FAR, &up.data, 512)?;
        all.push((volume, up, writer));
    }
    for death in 0..3 {
        if death == 2 {
            world.arm(NEAR, Program::Engine, "dead::seen")?;
        }
        for (volume, _, writer) in &mut all {
            let pid = world.target_daemon(volume)?;
            signal(pid, Signal::SIGKILL)?;
            world.died(NEAR, pid)?;
            writer
                .goes_on(50)
                .with_context(|| format!("death {death}"))?;
        }
    }
    let mut blocks = 0;
    for (volume, up, mut writer) in all {
        writer.stop()?;
        blocks += writer.check(world, None, &up.data)?;
        world.down(&volume, FAR)?;
        world.delete(&volume)?;
    }
    Ok(format!("{blocks} blocks, no error"))
}

/// FUSE and loop end with their daemon: EIO, told by both health calls, healed by the next NodePublishVolume.
pub(crate) fn card(world: &mut World) -> Result<String> {
    let mut said = String::new();
    for (host, usage) in [
        (FAR, Usage::block()),
        (FAR, Usage::files("ext4")),
        (NEAR, Usage::files("ext4")),
    ] {
        let volume = world.create("card", 64 * MIB, &usage)?;
        let up = world.up(&volume, host)?;
        let mut disks = Vec::new();
        for death in 0..2 {
            let mut writer = Writer::start(world, host, &up.data, 256)?;
            disks.push(Disk::of(&volume)?);
            // Of the target's own host both are one.
            let pid = match host {
                NEAR => world.target_daemon(&volume)?,
                _ => world.card_daemon(&volume)?,
            };
            if death == 0 {
                // Nobody starts it again while it is looked at.
                world.chain.kill(host, Program::Engine)?;
            } else {
                world.arm(host, Program::Engine, "dead::seen")?;
            }
            signal(pid, Signal::SIGKILL)?;
            said = writer.fails()?;
            if death == 0 {
                let wrong = at_node(world, &volume, host)?;
                ensure!(
                    wrong
                        .iter()
                        .any(|entry| entry.status() == VolumeHealthErrorType::Inaccessible),
                    "NodeGetVolumeHealth: {wrong:?}"
                );
                world.chain.spawn(host, Program::Engine, &[])?;
            }
            world.died(host, pid)?;
            until("ControllerGetVolumeHealth to tell it", LIMIT, || {
                let told = at_controller(world, &volume)?;
                Ok(told
                    .iter()
                    .any(|entry| entry.reason == "AtNode")
                    .then_some(()))
            })?;
            world.show_again(&volume, host, &up)?;
            writer
                .check(world, None, &up.data)
                .context("after it was healed")?;
            let wrong = at_node(world, &volume, host)?;
            ensure!(wrong.is_empty(), "it is healed, but: {wrong:?}");
        }
        let mut writer = Writer::start(world, host, &up.data, 256)?;
        writer.goes_on(20)?;
        writer.stop()?;
        writer.check(world, None, &up.data)?;
        world.down(&volume, host)?;
        world.delete(&volume)?;
        world.sweep()?;
        // One over a dead mount has no name by which the sweep could know it.
        disks.retain(Disk::is_left);
        ensure!(disks.is_empty(), "left over: {disks:?}");
    }
    Ok(said)
}

/// NodeGetVolumeHealth of what the pod has.
fn at_node(world: &World, volume: &Volume, host: usize) -> Result<Vec<VolumeHealthEntry>> {
    let it = volume.clone();
    let told = world.once(async move |calls| calls.node_health(&it, host, POD).await);
    told.context("NodeGetVolumeHealth")
}

/// ControllerGetVolumeHealth.
fn at_controller(world: &World, volume: &Volume) -> Result<Vec<VolumeHealthEntry>> {
    let ask = ControllerGetVolumeHealthRequest {
        volume_id: volume.id.clone(),
        ..ControllerGetVolumeHealthRequest::default()
    };
    let told =
        world.once(async move |calls| calls.controller().controller_get_volume_health(ask).await);
    let told = told.context("ControllerGetVolumeHealth")?.into_inner();
    Ok(told.volume_health.unwrap_or_default().health_statuses)
}
