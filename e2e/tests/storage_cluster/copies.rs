//! Snapshots and clones.

use anyhow::{Context as _, Result, ensure};
use e2e::until;
use e2e::volumes::{Claim, From, Log, Mode, User};
use serde_json::json;

use crate::world::{LONG, World, file, text};

/// MiB of data in each.
const DATA: u32 = 8;

/// What is written after a snapshot is in its source alone; the source may go first.
pub(crate) fn snapshot(world: &World<'_>) -> Result<String> {
    let at = file(Mode::Filesystem);
    let claim = Claim::new("source", "64Mi", Mode::Filesystem);
    world.use_new(
        &claim,
        &User::new("source", "source", Mode::Filesystem).on("n1"),
    )?;
    let then = world.fill("source", at, DATA)?;
    world.snapshot("shot", "source")?;
    let now = world.fill("source", at, DATA)?;

    let restored = Claim {
        from: Some(From::Snapshot("shot")),
        name: "restored",
        ..claim.clone()
    };
    world.use_new(
        &restored,
        &User::new("restored", "restored", Mode::Filesystem).on("n2"),
    )?;
    world.holds("restored", at, DATA, &then)?;
    world.holds("source", at, DATA, &now)?;

    world.delete(&["pod/source"])?;
    world.delete(&["pvc/source"])?;
    world.holds("restored", at, DATA, &then)?;
    let larger = Claim {
        size: "128Mi",
        name: "larger",
        ..restored
    };
    world.use_new(
        &larger,
        &User::new("larger", "larger", Mode::Filesystem).on("n1"),
    )?;
    world.delete(&["volumesnapshot/shot"])?;
    world.holds("larger", at, DATA, &then)?;
    let more = "dd if=/dev/zero of=/data/more bs=1M count=80 conv=fsync 2>&1";
    world.sh("larger", more)?;
    Ok("restored on the other node, and into a larger one after its source was deleted".into())
}

/// Of a volume that is in use, as file system and as a device.
pub(crate) fn clones(world: &World<'_>) -> Result<String> {
    let mut said = Vec::new();
    for (mode, name) in [(Mode::Filesystem, "files"), (Mode::Block, "disk")] {
        let at = file(mode);
        let claim = Claim::new(name, "64Mi", mode);
        world.use_new(&claim, &User::new(name, name, mode).on("n1"))?;
        let md5 = world.fill(name, at, DATA)?;
        let of = Some(From::Claim(name));
        let (equal, larger) = (format!("{name}-equal"), format!("{name}-larger"));
        world.claim(&Claim {
            name: &equal,
            from: of,
            ..claim.clone()
        })?;
        world.claim(&Claim {
            name: &larger,
            from: of,
            size: "128Mi",
            ..claim.clone()
        })?;
        world.create(&User::new(&equal, &equal, mode).on("n2"))?;
        world.create(&User::new(&larger, &larger, mode).on("n2"))?;
        for pod in [&equal, &larger] {
            world.ready(pod)?;
            world.holds(pod, at, DATA, &md5)?;
            // What is written to one is in no other.
            world.fill(pod, at, DATA)?;
        }
        world.holds(name, at, DATA, &md5)?;
        let size = match mode {
            Mode::Filesystem => "df -k /data | awk 'END {print $2 * 1024}'".to_owned(),
            Mode::Block => format!("blockdev --getsize64 {at}"),
        };
        let bytes = world.sh(&larger, &size)?;
        let bytes: u64 = bytes
            .parse()
            .with_context(|| format!("the size is {bytes:?}"))?;
        ensure!(
            bytes > 100 << 20,
            "the larger clone has {bytes} bytes for its user"
        );
        said.push(format!("{name}: {} MiB", bytes >> 20));
    }
    Ok(format!("larger clones: {}", said.join(", ")))
}

/// A pod writes n to `a`, then n to `b`, and so on. Whenever a group snapshot is taken, `a` is never behind `b`, and ahead of
/// it by one at most.
pub(crate) fn group(world: &World<'_>) -> Result<String> {
    for name in ["a", "b"] {
        let labels = json!({"group": "pair"});
        world.claim(&Claim {
            labels,
            ..Claim::new(name, "16Mi", Mode::Block)
        })?;
    }
    let script = "trap 'exit 0' TERM; n=0; while :; do n=$((n + 1)); for d in a b; do \
                  printf '%-4095s\\n' \"$d $n\" | dd of=/dev/$d bs=4096 iflag=fullblock oflag=direct conv=notrunc,fsync 2>/dev/null || exit 1; \
                  done; echo $n >/tmp/n; done";
    let mut user = User::new("writer", "a", Mode::Block).on("n2").doing(script);
    user.uses = vec![("a", Mode::Block, "/dev/a"), ("b", Mode::Block, "/dev/b")];
    world.start(&user)?;
    until("the writer's beginning", LONG, || {
        world.sh("writer", "test -s /tmp/n").map(Some)
    })?;
    let versions = world.lab.kubectl(&["api-versions"])?;
    let version = versions
        .lines()
        .rfind(|line| line.starts_with("groupsnapshot.storage.k8s.io/"));
    let version = version
        .context("there are no group snapshots in this cluster")?
        .to_owned();
    let mut seen = Vec::new();
    for round in 1..=2 {
        let name = format!("group-{round}");
        let spec = json!({
            "volumeGroupSnapshotClassName": "outboard", "source": {"selector": {"matchLabels": {"group": "pair"}}},
        });
        world.apply((&version, "VolumeGroupSnapshot"), &name, &json!({}), &spec)?;
        world.wait(
            &format!("volumegroupsnapshot/{name}"),
            "jsonpath={.status.readyToUse}=true",
            LONG,
        )?;
        seen.push(members(world, round)?);
    }
    // The writer met no error.
    world.sh("writer", "kill -0 1")?;
    Ok(format!("a and b at {seen:?}"))
}

/// What the members of the newest group snapshot have: n of `a`, n of `b`.
fn members(world: &World<'_>, round: u32) -> Result<(u64, u64)> {
    let list = world.json(&["get", "-n", &world.ns, "volumesnapshots"])?;
    let group = format!("group-{round}");
    let of_group = |item: &&serde_json::Value| {
        let owners = item["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        item["status"]["volumeGroupSnapshotName"] == group.as_str()
            || owners
                .into_iter()
                .any(|owner| owner["name"] == group.as_str())
    };
    let items: Vec<_> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(of_group)
        .collect();
    let names: Vec<String> = items
        .iter()
        .map(|item| text(&item["metadata"]["name"]))
        .collect();
    ensure!(
        names.len() == 2,
        "{group} has the members {names:?}: {list}"
    );
    let mut found = std::collections::BTreeMap::new();
    for (nth, snapshot) in names.iter().enumerate() {
        let name = format!("restored-{round}-{nth}");
        let claim = Claim {
            from: Some(From::Snapshot(snapshot)),
            name: &name,
            ..Claim::new("", "16Mi", Mode::Block)
        };
        world.use_new(&claim, &User::new(&name, &name, Mode::Block).on("n1"))?;
        let block = world.sh(
            &name,
            "dd if=/dev/disk bs=4096 count=1 iflag=direct 2>/dev/null",
        )?;
        let words: Vec<&str> = block.split_whitespace().collect();
        ensure!(words.len() == 2, "a member starts with {words:?}");
        found.insert(words[0].to_owned(), words[1].parse::<u64>()?);
    }
    let number = |disk: &str| {
        found
            .get(disk)
            .copied()
            .with_context(|| format!("no member is {disk}: {found:?}"))
    };
    let (a, b) = (number("a")?, number("b")?);
    ensure!(
        a == b || a == b + 1,
        "the order of writes is broken: a is at {a}, b at {b}"
    );
    Ok((a, b))
}

/// The log of writers that are not in the way of others.
pub(crate) const LOG: Log<'static> = Log {
    path: "/data/log",
    ring: 0,
};
