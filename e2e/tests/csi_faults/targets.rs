//! The target refuses, hangs, disappears.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::storage::Program;
use e2e::storage::calls::Usage;
use nix::sys::signal::Signal;
use proto::csi::v1::{CapacityRange, ControllerExpandVolumeRequest};
use tonic::{Code, Request};

use crate::world::{FAR, MIB, NEAR, POD, World, signal};
use crate::writer::Writer;

/// A target that is another than it should be, and one that does not know the card: nothing is attached, nothing is left, and
/// the same call succeeds when that is put right.
pub(crate) fn refuses(world: &mut World) -> Result<String> {
    let volume = world.create("refused", 64 * MIB, &Usage::block())?;
    let backends = world.chain.dir().join("backends.yaml");
    let nodes = world.chain.dir().join("nodes.yaml");
    for (file, from, to, code, says) in [
        (
            &backends,
            "      tlsDirectory:",
            "      serverName: somebody-else\n      tlsDirectory:",
            Code::FailedPrecondition,
            "does not match the hostname somebody-else",
        ),
        (&nodes, "CN=n2", "CN=n3", Code::Unavailable, "TLS"),
    ] {
        let right = std::fs::read_to_string(file)?;
        ensure!(right.contains(from), "{right}");
        std::fs::write(file, right.replace(from, to))?;
        world.restart(NEAR, Program::Controller, &[])?;
        let it = volume.clone();
        world.refused("ControllerPublishVolume", code, says, async move |calls| {
            calls.publish(&it, FAR).await
        })?;
        let it = volume.clone();
        world.step("ControllerUnpublishVolume", async move |calls| {
            calls.unpublish(&it, FAR).await
        })?;
        for host in [NEAR, FAR] {
            let left = world.chain.daemons(host)?;
            ensure!(left.is_empty(), "{to}: {left:?}");
        }
        std::fs::write(file, right)?;
        world.restart(NEAR, Program::Controller, &[])?;
        let up = world.up(&volume, FAR)?;
        let mut writer = Writer::start(world, FAR, &up.data, 64)?;
        writer.stop()?;
        writer.check(world, None, &up.data)?;
        world.down(&volume, FAR)?;
    }
    world.delete(&volume)?;
    Ok("by name, and by distinguished name".to_owned())
}

/// The daemon stands still: writers wait, calls about the volume are answered in time, others go on; then everything does.
pub(crate) fn hangs(world: &mut World) -> Result<String> {
    let volume = world.create("hangs", 64 * MIB, &Usage::block())?;
    let up = world.up(&volume, FAR)?;
    let mut writer = Writer::start(world, FAR, &up.data, 256)?;
    let pid = world.target_daemon(&volume)?;
    signal(pid, Signal::SIGSTOP)?;
    let look = |world: &mut World| -> Result<()> {
        std::thread::park_timeout(Duration::from_millis(300));
        let before = writer.count()?;
        let it = volume.clone();
        let wrong = world.once(async move |calls| calls.node_health(&it, FAR, POD).await)?;
        ensure!(
            wrong.iter().any(|entry| entry.reason == "DiskSilent"),
            "NodeGetVolumeHealth: {wrong:?}"
        );
        let mut expand = Request::new(ControllerExpandVolumeRequest {
            volume_id: volume.id.clone(),
            capacity_range: Some(CapacityRange {
                required_bytes: (96 * MIB).try_into()?,
                limit_bytes: 0,
            }),
            ..ControllerExpandVolumeRequest::default()
        });
        expand.set_timeout(Duration::from_secs(3));
        let late = world
            .once(async move |calls| calls.controller().controller_expand_volume(expand).await);
        let code = late.err().map(|status| status.code());
        ensure!(
            matches!(code, Some(Code::Unavailable | Code::DeadlineExceeded)),
            "ControllerExpandVolume: {code:?}"
        );
        let other = world.create("other", 64 * MIB, &Usage::block())?;
        world.up(&other, FAR)?;
        world.down(&other, FAR)?;
        world.delete(&other)?;
        ensure!(writer.count()? <= before + 1, "it did not hang");
        Ok(())
    };
    let looked = look(world);
    signal(pid, Signal::SIGCONT)?;
    looked?;
    writer.goes_on(50).context("after the pause")?;
    let it = volume.clone();
    world.step("expanding", async move |calls| {
        calls.expand(&it, 96 * MIB).await?;
        calls.node_expand(&it, FAR, POD, 96 * MIB).await
    })?;
    writer.goes_on(50)?;
    writer.stop()?;
    let blocks = writer.check(world, None, &up.data)?;
    world.down(&volume, FAR)?;
    world.delete(&volume)?;
    Ok(format!("{blocks} blocks, no error"))
}

/// Daemon and engine of the target are away for longer than a write waits: an error then, no lost block, and it goes on when they are
/// back.
pub(crate) fn disappears(world: &mut World) -> Result<String> {
    let volume = world.step("CreateVolume", async |calls| {
        let parameters = [("reconnectDelaySeconds", "2")];
        let volume = calls.create("disappears", 64 * MIB, &parameters).await?;
        Ok(volume.with(Usage::block()))
    })?;
    let up = world.up(&volume, FAR)?;
    let mut writer = Writer::start(world, FAR, &up.data, 256)?;
    let pid = world.target_daemon(&volume)?;
    world.chain.kill(NEAR, Program::Engine)?;
    signal(pid, Signal::SIGKILL)?;
    let why = writer.fails()?;
    world.chain.spawn(NEAR, Program::Engine, &[])?;
    world.target_daemon(&volume)?;
    world.show_again(&volume, FAR, &up)?;
    writer
        .check(world, None, &up.data)
        .context("what was written before")?;
    let mut writer = Writer::start(world, FAR, &up.data, 256)?;
    writer.goes_on(50)?;
    writer.stop()?;
    writer.check(world, None, &up.data)?;
    world.down(&volume, FAR)?;
    world.delete(&volume)?;
    Ok(why)
}
