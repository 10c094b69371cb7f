//! Images that nobody names any more are merged away: what is kept, and that nothing is lost when a merge is cut off.

#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

mod rig;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use framework::conformance::{Disk, Harness};
use framework::local::Local;
use framework::{Access, Backend, CreateVolume, Source};
use rig::{Rig, attached, exported, kill, run, used_here};

const MIB: u64 = 1 << 20;

fn main() -> ExitCode {
    if let Some(code) = rig::as_engine() {
        return code;
    }
    rig::main(&[
        ("chains_are_merged", chains_are_merged),
        (
            "a_chain_is_bounded_under_a_fuse_export",
            a_chain_is_bounded_under_a_fuse_export,
        ),
        (
            "a_killed_daemon_loses_nothing_of_a_fold",
            a_killed_daemon_loses_nothing_of_a_fold,
        ),
        (
            "a_killed_daemon_loses_nothing_of_a_merge",
            a_killed_daemon_loses_nothing_of_a_merge,
        ),
        (
            "a_killed_qemu_img_loses_nothing_of_a_merge",
            a_killed_qemu_img_loses_nothing_of_a_merge,
        ),
        ("a_snapshot_ends_a_merge", a_snapshot_ends_a_merge),
    ]);
    ExitCode::SUCCESS
}

/// Deleted snapshots of a volume leave one file, with and without a daemon.
fn chains_are_merged() {
    run(async {
        for served in [true, false] {
            let rig = Rig::new(|_, _| {}).await;
            let (volume, mut disk) = attached(&rig, "a").await;
            let local = rig.open().await;
            let mut snapshots = Vec::new();
            for n in 1..=5u8 {
                disk.write(u64::from(n) * MIB, MIB / 2, n).await.unwrap();
                snapshots.push(local.snapshot(&format!("s{n}"), &volume.id).await.unwrap());
            }
            if !served {
                local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
            }
            for snapshot in &snapshots {
                local.delete_snapshot(&snapshot.id).await.unwrap();
            }
            merged_to(&rig, &local, 1).await;
            if !served {
                disk = exported(&rig, &volume).await;
            }
            for n in 1..=5u8 {
                assert_eq!(disk.read(u64::from(n) * MIB).await, Ok(n));
            }
            local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
        }
    });
}

/// As of a volume that is used on the target's own node: block-stream into its image and a writable FUSE export exclude each other.
fn a_chain_is_bounded_under_a_fuse_export() {
    run(async {
        let rig = Rig::new(|_, config| config.max_chain = 8).await;
        let local = rig.open().await;
        let (volume, access) = (used_here(&rig).await, Access::ReadWrite);
        let daemon = rig.daemons().await.remove(0);
        let file = rig.dir.path().join("disk");
        std::fs::write(&file, "").unwrap();
        let step = format!(
            r#"{{"execute":"block-export-add","arguments":{{"type":"fuse","id":"card","node-name":"top","writable":true,"growable":true,"mountpoint":"{}"}}}}"#,
            file.display()
        );
        let step: qemu::Step = serde_json::from_str(&step).unwrap();
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let mut recipe = daemon.recipe.clone();
        recipe.push(step.clone());
        let (id, owner) = (daemon.id.clone(), daemon.owner.clone());
        let put = engine::Put { id, owner, recipe };
        rig.client()
            .put_if(&put, daemon.revision, deadline)
            .await
            .unwrap();
        let qmp = qemu::Qmp::connect(daemon.qmp_card(), deadline).await;
        qmp.unwrap().run(&step, deadline).await.unwrap();
        // Each in a block of its own, and all in one.
        let write = async |n: u8| {
            let disk = file.clone();
            let write = move || {
                use std::os::unix::fs::FileExt;
                let disk = std::fs::File::options().write(true).open(disk).unwrap();
                disk.write_all_at(&[n; 4096], 4096 * u64::from(n)).unwrap();
                disk.write_all_at(&[n; 4096], 0).unwrap();
                disk.sync_all().unwrap();
            };
            tokio::task::spawn_blocking(write).await.unwrap();
        };
        // Twice as many as a chain may have files; always the last two are there, as with a retention of two.
        let mut there = std::collections::VecDeque::new();
        for n in 1..=16u8 {
            write(n).await;
            there.push_back(local.snapshot(&format!("s{n}"), &volume.id).await.unwrap());
            if there.len() > 2 {
                local
                    .delete_snapshot(&there.pop_front().unwrap().id)
                    .await
                    .unwrap();
            }
            local.tidy().await;
            // Both, what takes the writes, and one that nobody names.
            assert!(rig.images().len() <= 4, "{n}: {:?}", rig.images());
        }
        for (snapshot, n) in there.iter().zip([15u8, 16]) {
            let source = Source::Snapshot(snapshot.id.clone());
            let copy = local.create(CreateVolume::from("copy", 0, source)).await;
            let (copy, host) = (copy.unwrap(), rig.host(1));
            let target = local.export(&copy.id, &host, access, false).await.unwrap();
            let mut disk = rig.connect(&target, &host, 0).await.unwrap();
            assert_eq!(disk.read(0).await, Ok(n));
            for m in 1..=16u8 {
                let expected = if m <= n { m } else { 0 };
                assert_eq!(disk.read(4096 * u64::from(m)).await, Ok(expected));
            }
            Box::new(disk).close().await;
            local.unexport(&copy.id, &host.name).await.unwrap();
            local.delete(&copy.id).await.unwrap();
        }
        for snapshot in there {
            local.delete_snapshot(&snapshot.id).await.unwrap();
        }
        local.tidy().await;
        assert_eq!(rig.images().len(), 2);
        local.unexport(&volume.id, "here").await.unwrap();
        for _ in 0..50 {
            local.tidy().await;
        }
        assert_eq!(rig.images().len(), 1);
        let host = rig.host(0);
        let target = local.export(&volume.id, &host, access, false).await;
        let mut disk = rig.connect(&target.unwrap(), &host, 0).await.unwrap();
        for n in 1..=16u8 {
            assert_eq!(disk.read(4096 * u64::from(n)).await, Ok(n));
        }
        local.unexport(&volume.id, &host.name).await.unwrap();
    });
}

/// The daemon is killed at many moments of the move; whatever the header of the image above says then, all bytes are below it.
fn a_killed_daemon_loses_nothing_of_a_fold() {
    run(async {
        let mut folded = 0;
        for pause in [0u64, 3, 6, 10, 15, 25, 40, 80] {
            let rig = Rig::new(|_, _| {}).await;
            let (volume, mut disk) = attached(&rig, "a").await;
            let local = rig.open().await;
            let mut snapshots = Vec::new();
            for n in 1..=4u8 {
                // Each overwrites half of what the one before wrote.
                disk.write(u64::from(n) * MIB, 2 * MIB, n).await.unwrap();
                snapshots.push(local.snapshot(&format!("s{n}"), &volume.id).await.unwrap());
            }
            let last = snapshots.pop().unwrap();
            for snapshot in &snapshots {
                local.delete_snapshot(&snapshot.id).await.unwrap();
            }
            let tidying = tokio::spawn({
                let local = Arc::clone(&local);
                async move { local.tidy().await }
            });
            tokio::time::sleep(Duration::from_millis(pause)).await;
            kill(rig.daemons().await[0].pid.unwrap());
            tidying.await.unwrap();
            folded += usize::from(rig.images().len() < 5);
            for n in 1..=5u8 {
                assert_eq!(
                    disk.read(u64::from(n) * MIB).await,
                    Ok(n.min(4)),
                    "{pause} ms"
                );
            }
            merged_to(&rig, &local, 3).await;
            for n in 1..=5u8 {
                assert_eq!(
                    disk.read(u64::from(n) * MIB).await,
                    Ok(n.min(4)),
                    "{pause} ms"
                );
            }
            local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
            local.delete_snapshot(&last.id).await.unwrap();
        }
        println!("{folded} of 8 were done in part when the daemon was killed");
    });
}

/// On what an image rests, as its header says (QEMU docs/interop/qcow2.txt, "Header").
fn rests_on(image: &Path) -> Option<String> {
    let file = std::fs::File::open(image).ok()?;
    let mut header = [0; 20];
    file.read_exact_at(&mut header, 0).ok()?;
    let offset = u64::from_be_bytes(header[8..16].try_into().unwrap());
    let mut name = vec![0; u32::from_be_bytes(header[16..].try_into().unwrap()) as usize];
    file.read_exact_at(&mut name, offset).ok()?;
    String::from_utf8(name).ok()
}

/// The images that are there now, and on what each rests.
struct Headers(BTreeMap<PathBuf, String>);

impl Headers {
    fn of(rig: &Rig) -> Self {
        let dir = rig.config.dir.join("images");
        let images = rig.images().into_iter().map(|name| dir.join(name));
        Self(
            images
                .filter_map(|image| Some((image.clone(), rests_on(&image)?)))
                .collect(),
        )
    }

    /// Whether one of them rests on another image by now. (Images go, and half a header is none.)
    fn differ(&self) -> bool {
        let mut headers = self.0.iter();
        headers.any(|(image, old)| rests_on(image).is_some_and(|now| now != *old))
    }
}

/// The `qemu-img` that merges images of this directory.
fn merging(dir: &Path) -> Option<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("rebase") && line.contains(&*dir.to_string_lossy())
    })
}

/// Kills who merges in the moment in which an image rests on another one: QEMU 10.0 writes tables of what it has copied after that,
/// if nobody makes it write them before. How often it was that moment.
fn cut_off_at_the_header(served: bool) -> u32 {
    let mut cut = 0;
    run(async {
        for _ in 0..8 {
            let rig = Rig::new(|_, _| {}).await;
            let (volume, mut disk) = attached(&rig, "a").await;
            let local = rig.open().await;
            disk.write(MIB, 4 * MIB, 1).await.unwrap();
            let kept = local.snapshot("kept", &volume.id).await.unwrap();
            disk.write(2 * MIB, 2 * MIB, 2).await.unwrap();
            let gone = local.snapshot("gone", &volume.id).await.unwrap();
            let host = rig.host(0);
            let daemon = rig.daemons().await[0].pid;
            if !served {
                local.unexport(&volume.id, &host.name).await.unwrap();
            }
            let given_up = Arc::new(AtomicBool::new(false));
            let killer = std::thread::spawn({
                let (headers, dir) = (Headers::of(&rig), rig.config.dir.clone());
                let given_up = Arc::clone(&given_up);
                move || {
                    let mut pid = daemon.filter(|_| served);
                    while !given_up.load(Ordering::Relaxed) {
                        if headers.differ() {
                            // It may have ended since.
                            return pid.is_some_and(rig::killed);
                        }
                        pid = pid.or_else(|| merging(&dir));
                    }
                    false
                }
            });
            local.delete_snapshot(&gone.id).await.unwrap();
            merged_to(&rig, &local, 2).await;
            given_up.store(true, Ordering::Relaxed);
            cut += u32::from(killer.join().unwrap());
            if !served {
                disk = exported(&rig, &volume).await;
            }
            for (at, n) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 1), (5, 0)] {
                assert_eq!(disk.read(at * MIB).await, Ok(n), "{at} MiB");
            }
            local.unexport(&volume.id, &host.name).await.unwrap();
            local.delete_snapshot(&kept.id).await.unwrap();
        }
    });
    cut
}

/// Waits until no more images are there.
async fn merged_to(rig: &Rig, local: &Local, images: usize) {
    for _ in 0..200 {
        if rig.images().len() <= images {
            return;
        }
        local.tidy().await;
        // What gave way, or was killed, is done another time; nothing tells when it can be.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not merged: {:?}", rig.images());
}

fn a_killed_daemon_loses_nothing_of_a_merge() {
    let cut = cut_off_at_the_header(true);
    println!("{cut} of 8 were cut off when the image rested on another one");
}

fn a_killed_qemu_img_loses_nothing_of_a_merge() {
    let cut = cut_off_at_the_header(false);
    println!("{cut} of 8 were cut off when the image rested on another one");
}

/// The image that takes the writes is below another node while data moves into it.
fn a_snapshot_ends_a_merge() {
    run(async {
        let rig = Rig::new(|_, _| {}).await;
        let (volume, mut disk) = attached(&rig, "a").await;
        let local = rig.open().await;
        disk.write(MIB, MIB, 1).await.unwrap();
        let gone = local.snapshot("gone", &volume.id).await.unwrap();
        let (held, is_held) = tokio::sync::oneshot::channel();
        let held = std::sync::Mutex::new(Some(held));
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let goes = std::sync::Mutex::new(goes);
        fail::cfg_callback("local::merge", move || {
            if let Some(held) = held.lock().unwrap().take() {
                held.send(()).unwrap();
                let _ = goes.lock().unwrap().recv();
            }
        })
        .unwrap();
        local.delete_snapshot(&gone.id).await.unwrap();
        is_held.await.unwrap();
        let kept = local.snapshot("kept", &volume.id).await.unwrap();
        disk.write(MIB, 4096, 2).await.unwrap();
        drop(go);
        // Behind the one that gave way.
        local.tidy().await;
        fail::remove("local::merge");
        for (at, n) in [(0, 0), (MIB, 2), (MIB + 4096, 1)] {
            assert_eq!(disk.read(at).await, Ok(n), "at {at}");
        }
        let source = Source::Snapshot(kept.id.clone());
        let copy = local.create(CreateVolume::from("copy", 0, source)).await;
        let copy = copy.unwrap();
        let mut restored = exported(&rig, &copy).await;
        assert_eq!(restored.read(MIB).await, Ok(1));
        for volume in [&volume, &copy] {
            local.unexport(&volume.id, &rig.host(0).name).await.unwrap();
        }
    });
}
