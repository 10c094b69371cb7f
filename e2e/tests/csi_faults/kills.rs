//! kill -9 of every program between any two of its steps, while a volume lives a whole life.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::storage::Program;
use e2e::storage::calls::Usage;
use proto::csi::v1::volume_capability::access_mode::Mode;

use crate::world::{FAR, MIB, NEAR, POD, World};
use crate::writer::Writer;

/// A program on a host, and where its steps are listed.
const LANES: [(usize, Program, &str); 7] = [
    (NEAR, Program::Controller, "csi/controller/src/lib.rs"),
    (FAR, Program::NodeHost, "csi/node/src/host/mod.rs"),
    (FAR, Program::Attacher, "csi/attacher/src/lib.rs"),
    (FAR, Program::Bridge, "csi/bridge/src/lib.rs"),
    (FAR, Program::Engine, "csi/engine/src/lib.rs"),
    (NEAR, Program::Bridge, "csi/bridge/src/lib.rs"),
    (NEAR, Program::Engine, "csi/engine/src/lib.rs"),
];

/// Steps that no volume of the chain comes by.
const ELSEWHERE: [(Program, &str); 11] = [
    // csi-controller leaves limits to the back end.
    (Program::Attacher, "limits::set"),
    (Program::Bridge, "limits::recorded"),
    // OPI's own calls, and a card in front of a virtual machine: csi/bridge/tests.
    (Program::Bridge, "update::recorded"),
    (Program::Bridge, "vm::plugging"),
    (Program::Bridge, "vm::plugged"),
    (Program::Bridge, "vm::unplugging"),
    // Sockets of raw volumes in pods of machines: csi/node/tests.
    (Program::NodeHost, "socket::noted"),
    (Program::NodeHost, "socket::begun"),
    (Program::NodeHost, "socket::made"),
    (Program::NodeHost, "socket::bound"),
    // daemons.rs kills the daemons.
    (Program::Engine, "dead::seen"),
];

/// In the names of opi-bridge's steps, in the order of a volume's life; what has none of these words brings it.
const GROWING: [&str; 2] = ["resizing", "growing"];
const TAKING_AWAY: [&str; 5] = [
    "delete",
    "unexposing",
    "undone",
    "withdrawn",
    "disconnected",
];

/// The list `FAILPOINTS` of a program's source.
fn listed(file: &str) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let source = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let list = source
        .split("pub const FAILPOINTS")
        .nth(1)
        .and_then(|rest| rest.split("];").next())
        .with_context(|| format!("{file} has no list FAILPOINTS"))?;
    let steps = list.split('"').skip(1).step_by(2);
    Ok(steps.map(str::to_owned).collect())
}

/// The steps of a lane that a life comes by.
fn steps(lane: &(usize, Program, &str)) -> Result<Vec<String>> {
    let (host, program, file) = lane;
    let mut steps = listed(file)?;
    if *host == NEAR {
        // Back end and card share the daemon: the back end has resized it already.
        steps.retain(|step| step != "card::resizing");
    }
    if *program == Program::Controller {
        // Of the back end within it.
        steps.push("local::step".to_owned());
    }
    steps.retain(|step| !ELSEWHERE.contains(&(*program, step)));
    match program {
        // What one of these two finishes of its own accord after a restart the other has not to do: while the one dies in an attach
        // the other does in a detach.
        Program::Attacher => {
            steps.reverse();
            // The device is there without this one where opi-bridge dies over it.
            steps.sort_by_key(|step| step == "part::created");
        }
        Program::Bridge => {
            let has = |step: &str, words: &[&str]| words.iter().any(|word| step.contains(word));
            steps.sort_by_key(|step| (has(step, &TAKING_AWAY), has(step, &GROWING)));
        }
        _ => {}
    }
    Ok(steps)
}

/// From CreateVolume to DeleteVolume, with everything in between; the second half by a snapshot on the target's own host.
fn life(world: &mut World, name: &str) -> Result<()> {
    let usage = Usage::files("xfs").mode(Mode::SingleNodeMultiWriter);
    let volume = world.create(name, 320 * MIB, &usage)?;
    let up = world.up(&volume, FAR)?;
    let script = "dd if=/dev/urandom of=\"$1/data\" bs=64k count=32 conv=fsync status=none; sha256sum <\"$1/data\"";
    let sum = world.sh(FAR, script, &[&up.target])?;
    let (it, context) = (volume.clone(), up.context);
    let reader = world.step("publishing a second time, read-only", async move |calls| {
        let usage = it.usage.clone().read_only();
        let it = it.with(usage);
        calls.node_publish(&it, FAR, &context, "b").await
    })?;
    let it = volume.clone();
    world.step("expanding", async move |calls| {
        calls.expand(&it, 384 * MIB).await?;
        calls.node_expand(&it, FAR, POD, 384 * MIB).await
    })?;
    let it = (volume.clone(), format!("{name}-snapshot"));
    let snapshot = world.step("CreateSnapshot", async move |calls| {
        calls.snapshot(&it.1, &it.0).await
    })?;
    let read = |world: &World, host: usize, target: &Path| {
        world.sh(host, "sha256sum <\"$1/data\"", &[target])
    };
    ensure!(read(world, FAR, &reader.target)? == sum, "the file changed");
    let it = volume.clone();
    world.step("NodeUnpublishVolume", async move |calls| {
        calls.node_unpublish(&it, FAR, "b").await
    })?;
    world.down(&volume, FAR)?;
    world.delete(&volume)?;

    let it = (snapshot.clone(), format!("{name}-restored"), usage);
    let restored = world.step("CreateVolume from a snapshot", async move |calls| {
        calls.restore(&it.1, &it.0, 384 * MIB, it.2).await
    })?;
    let up = world.up(&restored, NEAR)?;
    ensure!(
        read(world, NEAR, &up.target)? == sum,
        "the restored file is another"
    );
    let it = restored.clone();
    world.step("expanding the restored volume", async move |calls| {
        calls.expand(&it, 400 * MIB).await?;
        calls.node_expand(&it, NEAR, POD, 400 * MIB).await
    })?;
    world.down(&restored, NEAR)?;
    world.delete(&restored)?;
    world.step("DeleteSnapshot", async move |calls| {
        calls.delete_snapshot(&snapshot).await
    })
}

pub(crate) fn every_step(world: &mut World) -> Result<String> {
    let mut lanes = Vec::new();
    for lane in &LANES {
        lanes.push((lane.0, lane.1, steps(lane)?));
    }
    let lives = lanes
        .iter()
        .map(|(.., steps)| steps.len())
        .max()
        .unwrap_or(0);
    let mut kills = 0;
    for n in 0..lives {
        for (host, program, steps) in &lanes {
            if let Some(step) = steps.get(n) {
                world.arm(*host, *program, step)?;
                kills += 1;
            }
        }
        let began = std::time::Instant::now();
        life(world, &format!("life-{n}"))
            .and_then(|()| world.sweep())
            .with_context(|| format!("life {n}"))?;
        println!("  life {n}: {:.1} s", began.elapsed().as_secs_f32());
    }
    Ok(format!("{kills} kills in {lives} lives"))
}

/// csi-node-dpu has no steps of its own: it dies while volume-attacher is at one.
pub(crate) fn node_dpu(world: &mut World) -> Result<String> {
    let dies = |world: &mut World| {
        // Long enough for the call to be there; if it is not yet, this is another moment of the same.
        std::thread::park_timeout(Duration::from_millis(300));
        world.restart(FAR, Program::NodeDpu, &[])
    };
    let holds = |world: &mut World, step: &str| {
        let points = format!("{step}=1*sleep(1000)");
        world.restart(FAR, Program::Attacher, &[("FAILPOINTS", &points)])
    };
    let volume = world.create("dpu", 64 * MIB, &Usage::block())?;
    holds(world, "attach::recorded")?;
    let it = volume.clone();
    let attach = async move |calls: e2e::storage::Calls| calls.publish(&it, FAR).await;
    let context = world.step_while("ControllerPublishVolume", attach, dies)?;
    let it = volume.clone();
    world.step("staging", async move |calls| {
        calls.stage(&it, FAR, &context).await?;
        calls.node_publish(&it, FAR, &context, POD).await
    })?;
    holds(world, "resize::recorded")?;
    let it = volume.clone();
    let resize = async move |calls: e2e::storage::Calls| calls.expand(&it, 96 * MIB).await;
    let size = world.step_while("ControllerExpandVolume", resize, dies)?;
    ensure!(size == 96 * MIB, "{size} bytes");
    let it = volume.clone();
    world.step("unstaging", async move |calls| {
        calls.node_expand(&it, FAR, POD, 96 * MIB).await?;
        calls.node_unpublish(&it, FAR, POD).await?;
        calls.unstage(&it, FAR).await
    })?;
    holds(world, "detach::recorded")?;
    let it = volume.clone();
    let detach = async move |calls: e2e::storage::Calls| calls.unpublish(&it, FAR).await;
    world.step_while("ControllerUnpublishVolume", detach, dies)?;
    world.delete(&volume)?;
    world.restart(FAR, Program::Attacher, &[])?;
    Ok("in Attach, Resize and Detach".to_owned())
}

/// All programs of ours at once, three times: the writers see nothing.
pub(crate) fn everything(world: &mut World) -> Result<String> {
    let mut all = Vec::new();
    for (host, usage) in [
        (FAR, Usage::block()),
        (FAR, Usage::files("ext4")),
        (NEAR, Usage::files("ext4")),
    ] {
        let name = format!("everything-{}", all.len());
        let volume = world.create(&name, 64 * MIB, &usage)?;
        let up = world.up(&volume, host)?;
        let writer = Writer::start(world, host, &up.data, 512)?;
        all.push((volume, host, up, writer));
    }
    for _ in 0..3 {
        for host in [NEAR, FAR] {
            for program in Program::OF_HOST {
                world.chain.kill(host, program)?;
            }
        }
        world.chain.kill(NEAR, Program::Controller)?;
        for (.., writer) in &mut all {
            writer.goes_on(20).context("while nothing runs")?;
        }
        for host in [NEAR, FAR] {
            for program in Program::OF_HOST {
                world.chain.spawn(host, program, &[])?;
            }
        }
        world.chain.spawn(NEAR, Program::Controller, &[])?;
        for (.., writer) in &mut all {
            writer.goes_on(20).context("after everything was started")?;
        }
    }
    let mut blocks = 0;
    for (volume, host, up, mut writer) in all {
        writer.stop()?;
        blocks += writer.check(world, None, &up.data)?;
        world.down(&volume, host)?;
        world.delete(&volume)?;
    }
    Ok(format!("{blocks} blocks, no error"))
}
