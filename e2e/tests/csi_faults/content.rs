//! What lies on a volume is kept, and so is which volume it is.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::storage::calls::{Usage, Volume};
use qemu::{Qmp, Step};
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Code;

use crate::world::{Disk, FAR, LIMIT, MIB, NEAR, POD, World};
use crate::writer::Writer;

/// A volume that was used as a disk, by somebody who put something of his own on it, is not formatted.
pub(crate) fn foreign(world: &mut World) -> Result<String> {
    // One partition in an MBR, and nothing else.
    let table = r"printf '\0\0\2\0\203\0\1\0\0\10\0\0\0\10\0\0' | dd of=$1 bs=1 seek=446 conv=notrunc,fsync status=none
         printf '\125\252' | dd of=$1 bs=1 seek=510 conv=notrunc,fsync status=none";
    let all = [
        ("mkfs.ext4 -q -t ext2 -F $1", "ext2"),
        ("mkswap -q $1", "swap"),
        (table, "a partition table (dos)"),
        // Nothing that blkid knows.
        (
            "printf x | dd of=$1 bs=1 seek=4096 conv=notrunc,fsync status=none",
            "which is not new",
        ),
    ];
    for (script, holds) in all {
        let volume = world.create("foreign", 64 * MIB, &Usage::block())?;
        let up = world.up(&volume, FAR)?;
        let sum = format!("{script} >/dev/null; sync; sha256sum <$1");
        let before = world.sh(FAR, &sum, &[&up.data])?;
        world.down(&volume, FAR)?;
        let files = volume.clone().with(Usage::files("ext4"));
        let it = files.clone();
        let context = world.step("ControllerPublishVolume", async move |calls| {
            calls.publish(&it, FAR).await
        })?;
        let it = files.clone();
        world.refused(
            "NodeStageVolume",
            Code::FailedPrecondition,
            holds,
            async move |calls| calls.stage(&it, FAR, &context).await,
        )?;
        world.down(&files, FAR)?;
        let up = world.up(&volume, FAR)?;
        let after = world.sh(FAR, "sha256sum <$1", &[&up.data])?;
        ensure!(before == after, "{holds}: the disk was changed");
        world.down(&volume, FAR)?;
        world.delete(&volume)?;
    }
    Ok(format!("{} kinds", all.len()))
}

/// A new volume that can't be read is not taken for an empty one. Over NBD a read error is a pause: QEMU's server cuts the connection,
/// and its client comes back and asks again, for as long as the error lasts.
pub(crate) fn unreadable(world: &mut World) -> Result<String> {
    let volume = world.create("unreadable", 64 * MIB, &Usage::files("ext4"))?;
    let it = volume.clone();
    let context = world.step("ControllerPublishVolume", async move |calls| {
        calls.publish(&it, NEAR).await
    })?;
    let errors = ReadErrors::begin(world, &volume)?;
    for _ in 0..2 {
        let (it, of) = (volume.clone(), context.clone());
        world.refused(
            "NodeStageVolume",
            Code::Unavailable,
            "can't be read",
            async move |calls| calls.stage(&it, NEAR, &of).await,
        )?;
    }
    errors.end()?;
    let up = world.up(&volume, NEAR)?;
    let mut writer = Writer::start(world, NEAR, &up.data, 64)?;
    writer.stop()?;
    world.down(&volume, NEAR)?;

    let it = volume.clone();
    world.step("ControllerPublishVolume", async move |calls| {
        calls.publish(&it, FAR).await
    })?;
    let errors = ReadErrors::begin(world, &volume)?;
    let (calls, it) = (world.chain.clients().once(), volume.clone());
    let late = world.once(async move |_| {
        let limit = Duration::from_secs(3);
        let up = tokio::time::timeout(limit, calls.up(&it, FAR, POD)).await;
        Ok(up.is_err())
    })?;
    ensure!(late, "it did not wait");
    errors.end()?;
    let up = world.up(&volume, FAR)?;
    writer.check(world, Some(FAR), &up.data)?;
    world.down(&volume, FAR)?;
    world.delete(&volume)?;
    Ok("not formatted until it could be read".to_owned())
}

/// QEMU's `blkdebug` between a volume's image and its exports.
struct ReadErrors {
    runtime: tokio::runtime::Runtime,
    /// The monitor for a card of the same host, which has room for one: it is not kept.
    socket: PathBuf,
    image: String,
}

impl ReadErrors {
    fn begin(world: &World, volume: &Volume) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let daemons = world.chain.dir().join("n1/es/daemons");
        let mut errors = Self {
            runtime,
            socket: daemons.join(format!("v-{}/qmp-card.sock", volume.uuid())),
            image: String::new(),
        };
        let nodes = errors.run(&[("query-named-block-nodes", json!({ "flat": true }))])?;
        let names = nodes.as_array().into_iter().flatten();
        let mut names = names.filter_map(|node| node["node-name"].as_str());
        errors.image = names
            .find(|name| name.starts_with("f-"))
            .context("no image")?
            .to_owned();
        let rule = json!({ "event": "none", "iotype": "read", "errno": 5 });
        let filter = json!({
            "driver": "blkdebug", "node-name": "broken", "image": errors.image, "inject-error": [rule],
        });
        errors.run(&[
            ("blockdev-add", filter),
            ("blockdev-reopen", under_the_exports("broken")),
        ])?;
        Ok(errors)
    }

    fn end(self) -> Result<()> {
        self.run(&[
            ("blockdev-reopen", under_the_exports(&self.image)),
            ("blockdev-del", json!({ "node-name": "broken" })),
        ])?;
        Ok(())
    }

    /// What the last command answers.
    fn run(&self, commands: &[(&str, Value)]) -> Result<Value> {
        self.runtime.block_on(async {
            let until = Instant::now() + LIMIT;
            let qmp = Qmp::connect(&self.socket, until).await?;
            let mut last = Value::Null;
            for (command, arguments) in commands {
                let step = Step {
                    execute: (*command).to_owned(),
                    arguments: serde_json::from_value(arguments.clone())?,
                };
                last = qmp.run(&step, until).await?;
            }
            Ok(last)
        })
    }
}

/// Puts a node under the filter that exports take.
fn under_the_exports(node: &str) -> Value {
    let top = json!({
        "driver": "throttle", "node-name": "top", "throttle-group": "limits", "file": node,
    });
    json!({ "options": [top] })
}

/// Two volumes of one size come in turns, so that one gets the loop device that was the other's: each has its own contents.
pub(crate) fn swapped(world: &mut World) -> Result<String> {
    const TRIES: usize = 12;
    let mut said = Vec::new();
    for usage in [Usage::files("ext4"), Usage::block()] {
        let one = world.create("swapped-1", 64 * MIB, &usage)?;
        let two = world.create("swapped-2", 64 * MIB, &usage)?;
        let mut order = [(&one, "one"), (&two, "two")];
        // By loop device: whose it was. Which is free other tests have a say in, too.
        let mut owners = HashMap::new();
        let mut exchanges = 0;
        for n in 0..TRIES {
            let mut ups = Vec::new();
            for (volume, mark) in order {
                let up = world.up(volume, FAR)?;
                let before = owners.insert(Disk::of(volume)?.name, mark);
                exchanges += usize::from(before.is_some_and(|before| before != mark));
                ups.push((up.data, mark));
            }
            for (data, mark) in ups {
                if n == 0 {
                    let script =
                        "printf %s \"$2\" | dd of=\"$1\" bs=4k conv=sync,fsync,notrunc status=none";
                    world.sh(FAR, script, &[&data, Path::new(mark)])?;
                }
                let script = "dd if=\"$1\" bs=3 count=1 iflag=fullblock status=none";
                let read = world.sh(FAR, script, &[&data])?;
                ensure!(read == mark, "volume {mark} at try {n} holds {read:?}");
            }
            for (volume, _) in order {
                world.down(volume, FAR)?;
            }
            order.reverse();
            if exchanges > 1 {
                break;
            }
        }
        ensure!(
            exchanges > 0,
            "none got the other's device in {TRIES} tries"
        );
        said.push(exchanges.to_string());
        world.delete(&one)?;
        world.delete(&two)?;
    }
    Ok(format!("{} times the other's device", said.join(" and ")))
}
