//! Calls that are cut off, made twice at once, or in the wrong order.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::storage::calls::Usage;
use e2e::storage::{Calls, Program};
use proto::csi::v1::ListVolumesRequest;
use tonic::{Code, Status};

use crate::world::{FAR, MIB, NEAR, POD, World};
use crate::writer::Writer;

/// csi-controller dies with many CreateVolume under way; the same calls again make each volume once.
pub(crate) fn restarted(world: &mut World) -> Result<String> {
    const VOLUMES: usize = 12;
    // Some are recorded, some made, one waits.
    let points = "create::recorded=5*off->3*sleep(1500);create::made=2*off->2*sleep(1500)";
    world.restart(NEAR, Program::Controller, &[("FAILPOINTS", points)])?;
    let create = async |calls: Calls| {
        let one = |n: usize| {
            let calls = calls.clone();
            async move { calls.create(&format!("restarted-{n}"), 64 * MIB, &[]).await }
        };
        futures::future::try_join_all((0..VOLUMES).map(one)).await
    };
    let made = world.step_while("CreateVolume", create, |world| {
        std::thread::park_timeout(Duration::from_millis(400));
        world.restart(NEAR, Program::Controller, &[])
    })?;
    let made: BTreeSet<_> = made.into_iter().map(|volume| volume.id).collect();
    let listed = world.once(async |calls| {
        let ask = ListVolumesRequest::default();
        calls.controller().list_volumes(ask).await
    });
    let listed = listed?.into_inner().entries.into_iter();
    let listed: BTreeSet<_> = listed
        .filter_map(|entry| Some(entry.volume?.volume_id))
        .collect();
    ensure!(
        made.len() == VOLUMES && made == listed,
        "made {made:?}, there are {listed:?}"
    );
    world.step("DeleteVolume", async |calls| {
        for n in 0..VOLUMES {
            let volume = calls
                .create(&format!("restarted-{n}"), 64 * MIB, &[])
                .await?;
            calls.delete(&volume).await?;
        }
        Ok(())
    })?;
    Ok(format!("{VOLUMES} volumes, each once"))
}

/// Makes a call twice at once: each succeeds, or is told to come again; what they say is the same. Then once more.
fn both<T, F>(world: &mut World, what: &str, call: impl Fn(Calls) -> F) -> Result<T>
where
    F: Future<Output = Result<T, Status>> + Send + 'static,
    T: PartialEq + Debug + Send + 'static,
{
    let (one, other) = world.once(|calls| {
        let (one, other) = (call(calls.clone()), call(calls));
        async move { Ok(tokio::join!(one, other)) }
    })?;
    let again = world.step(what, call)?;
    for answer in [one, other] {
        match answer {
            Ok(answer) if answer == again => {}
            Ok(answer) => bail!("{what}: {answer:?}, then {again:?}"),
            Err(status) if status.code() == Code::Aborted => {}
            Err(status) => bail!("{what}: {:?}: {}", status.code(), status.message()),
        }
    }
    Ok(again)
}

/// Each call of the chain.
pub(crate) fn twice(world: &mut World) -> Result<String> {
    for (host, usage) in [(FAR, Usage::block()), (NEAR, Usage::files("ext4"))] {
        let raw = usage.file_system.is_none();
        let volume = both(world, "CreateVolume", move |calls| {
            let usage = usage.clone();
            async move { calls.create_for("twice", 64 * MIB, usage).await }
        })?;
        // Each call of a step has what it needs as its own.
        let mut context = e2e::storage::calls::Map::new();
        macro_rules! both {
            ($world:ident, $what:literal, |$calls:ident, $volume:ident, $context:ident| $call:expr) => {{
                let it = (volume.clone(), context.clone());
                both($world, $what, move |$calls| {
                    let ($volume, $context) = it.clone();
                    async move { $call.await }
                })
            }};
        }
        context = both!(world, "ControllerPublishVolume", |c, v, _x| c
            .publish(&v, host))?;
        both!(world, "NodeStageVolume", |c, v, x| c.stage(&v, host, &x))?;
        both!(world, "NodePublishVolume", |c, v, x| c
            .node_publish(&v, host, &x, POD))?;
        both!(world, "ControllerExpandVolume", |c, v, _x| c
            .expand(&v, 96 * MIB))?;
        if raw {
            both!(world, "NodeExpandVolume", |c, v, _x| c.node_expand(
                &v,
                host,
                POD,
                96 * MIB
            ))?;
        }
        let snapshot = both!(world, "CreateSnapshot", |c, v, _x| c.snapshot("twice", &v))?;
        both(world, "DeleteSnapshot", move |calls| {
            let snapshot = snapshot.clone();
            async move { calls.delete_snapshot(&snapshot).await }
        })?;
        both!(world, "NodeUnpublishVolume", |c, v, _x| c
            .node_unpublish(&v, host, POD))?;
        both!(world, "NodeUnstageVolume", |c, v, _x| c.unstage(&v, host))?;
        both!(world, "ControllerUnpublishVolume", |c, v, _x| c
            .unpublish(&v, host))?;
        both!(world, "DeleteVolume", |c, v, _x| c.delete(&v))?;
        world.sweep()?;
    }
    Ok("12 calls".to_owned())
}

/// ControllerUnpublishVolume before NodeUnstageVolume: it is refused, and the workload goes on.
pub(crate) fn unpublish_first(world: &mut World) -> Result<String> {
    for host in [FAR, NEAR] {
        for usage in [Usage::files("ext4"), Usage::block()] {
            let volume = world.create("first", 64 * MIB, &usage)?;
            let up = world.up(&volume, host)?;
            let mut writer = Writer::start(world, host, &up.data, 256)?;
            let it = volume.clone();
            world.refused(
                "ControllerUnpublishVolume",
                Code::FailedPrecondition,
                "is open or mounted",
                async move |calls| calls.unpublish(&it, host).await,
            )?;
            let it = volume.clone();
            world.refused(
                "DeleteVolume",
                Code::FailedPrecondition,
                "",
                async move |calls| calls.delete(&it).await,
            )?;
            writer.goes_on(50)?;
            writer.stop()?;
            writer.check(world, None, &up.data)?;
            world.down(&volume, host)?;
            world.delete(&volume)?;
        }
    }
    Ok("refused; the writers went on".to_owned())
}

/// A host that was given up keeps its mounts: it is cut off, the volume goes on elsewhere, and when the host is back it lets go.
pub(crate) fn given_up(world: &mut World) -> Result<String> {
    let volume = world.create("given-up", 64 * MIB, &Usage::files("ext4"))?;
    let up = world.up(&volume, FAR)?;
    let mut writer = Writer::start(world, FAR, &up.data, 256)?;
    world.chain.set_out_of_service(FAR, true)?;
    let it = volume.clone();
    world.step("ControllerUnpublishVolume", async move |calls| {
        calls.unpublish(&it, FAR).await
    })?;
    let why = writer.fails()?;
    let up = world.up(&volume, NEAR)?;
    let blocks = writer.check(world, Some(NEAR), &up.data)?;
    let more = up.target.join("more");
    let mut new = Writer::start(world, NEAR, &more, 256)?;
    world.chain.set_out_of_service(FAR, false)?;
    let it = volume.clone();
    world.step("letting go at the host that is back", async move |calls| {
        calls.node_unpublish(&it, FAR, POD).await?;
        calls.unstage(&it, FAR).await?;
        calls.unpublish(&it, FAR).await
    })?;
    new.goes_on(20)?;
    new.stop()?;
    new.check(world, None, &more)?;
    world.down(&volume, NEAR)?;
    world.delete(&volume)?;
    Ok(format!("{blocks} blocks, then: {why}"))
}
