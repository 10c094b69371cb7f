//! The file system of the images is full.

use anyhow::{Context as _, Result, ensure};
use e2e::storage::calls::Usage;
use tonic::Code;

use crate::world::{FAR, MIB, World};
use crate::writer::Writer;

/// Writers see an error and lose nothing that was acknowledged; nothing new is made; what is there can be taken away, and what
/// stays goes on when there is room again.
pub(crate) fn under_a_writer(world: &mut World) -> Result<String> {
    let dir = world.small.as_ref().context("a small file system")?.dir();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 64 << 20])?;
    // Promised more than there is: thin.
    let raw = world.create("full-raw", 512 * MIB, &Usage::block())?;
    let files = world.create("full-files", 512 * MIB, &Usage::files("ext4"))?;
    let other = world.create("full-other", 64 * MIB, &Usage::block())?;
    let raw_up = world.up(&raw, FAR)?;
    let files_up = world.up(&files, FAR)?;
    world.up(&other, FAR)?;
    // Small, and on the disk before it is full.
    let mut small = Writer::start(world, FAR, &files_up.data, 64)?;
    small.stop()?;
    let mut large = Writer::start(world, FAR, &raw_up.data, (256 << 20) / (16 << 10))?;
    let why = large.fails()?;
    world.refused("CreateVolume", Code::ResourceExhausted, "", async |calls| {
        calls.create_for("one-more", 64 * MIB, Usage::block()).await
    })?;
    large
        .check(world, None, &raw_up.data)
        .context("when it was full")?;
    small
        .check(world, None, &files_up.data)
        .context("when it was full")?;
    // Taking away needs no room, and is what makes some.
    world.down(&other, FAR).context("while it is full")?;
    world.delete(&other).context("while it is full")?;
    std::fs::remove_file(&ballast)?;
    let blocks = large.check(world, None, &raw_up.data)?;
    small.check(world, None, &files_up.data)?;
    let mut again = Writer::start(world, FAR, &raw_up.data, 1024)?;
    again.goes_on(100)?;
    again.stop()?;
    again.check(world, None, &raw_up.data)?;
    let more = files_up.target.join("more");
    let mut again = Writer::start(world, FAR, &more, 64)?;
    again.goes_on(20)?;
    again.stop()?;
    again.check(world, None, &more)?;
    small.check(world, None, &files_up.data)?;
    let one = world.create("one-more", 64 * MIB, &Usage::block())?;
    world.delete(&one)?;
    for volume in [&raw, &files] {
        world.down(volume, FAR)?;
        world.delete(volume)?;
    }
    ensure!(blocks > 100, "{blocks} blocks");
    Ok(format!("{blocks} blocks, then: {why}"))
}
