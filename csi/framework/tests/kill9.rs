//! The process that hosts the backend is killed between any two steps of every operation, while a host writes.
//!
//! The program runs itself as that process (`kill9 host <dir> <operation> <step>`), which dies by SIGKILL before the given
//! step. Afterwards the backend is opened anew: what was acknowledged before is there, the operation was done as a whole or
//! not at all, nothing is left behind, and the host has seen no error.

#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

mod rig;

use std::os::unix::process::ExitStatusExt;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use framework::conformance::{Disk, Harness};
use framework::local::{Config, Local};
use framework::{Access, Backend, CreateVolume, Host, SizeRange, Source, Volume, VolumeId};
use rig::{QemuIo, Rig, attached, run};

const MIB: u64 = 1 << 20;
const OPERATIONS: [&str; 11] = [
    "create", "restore", "clone", "snapshot", "group", "expand", "export", "unexport", "delete",
    "merge", "fold",
];

fn main() -> ExitCode {
    if let Some(code) = rig::as_engine() {
        return code;
    }
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|first| first == "host") {
        let step: usize = args[4].parse().unwrap();
        rig::runtime().block_on(host(&args[2], &args[3], step));
        return ExitCode::SUCCESS;
    }
    rig::main(&[(
        "every_step_of_every_operation",
        every_step_of_every_operation,
    )]);
    ExitCode::SUCCESS
}

/// Opens the backend, and dies before the given step of the operation.
async fn host(dir: &str, operation: &str, step: usize) {
    let dir = std::path::Path::new(dir);
    let local = Local::open(config(dir)).await.unwrap();
    let list = local.list(0, None).await.unwrap().items;
    let id = |name: &str| {
        list.iter()
            .find(|v| v.name == name)
            .map(|v| v.id.clone())
            .unwrap()
    };
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    for point in [
        "local::step",
        "local::gate",
        "local::paused",
        "local::merge",
        "local::merged",
        "local::fold",
    ] {
        fail::cfg_callback(point, move || {
            if SEEN.fetch_add(1, Ordering::SeqCst) == step {
                let this = nix::unistd::Pid::this();
                nix::sys::signal::kill(this, nix::sys::signal::Signal::SIGKILL).unwrap();
            }
        })
        .unwrap();
    }
    let done = perform(&local, operation, &id).await;
    done.unwrap();
    local.tidy().await;
}

fn config(dir: &std::path::Path) -> Config {
    let mut config = Config::new(dir.join("b"), dir.join("r/e.sock"));
    config.reserve = 1 << 20;
    config
}

fn second_host() -> Host {
    Host {
        name: "host-1".into(),
        dn: None,
        engine: None,
    }
}

async fn perform(
    local: &Local,
    operation: &str,
    id: &dyn Fn(&str) -> VolumeId,
) -> Result<(), framework::Error> {
    let snapshots = local
        .list_snapshots(&Default::default(), 0, None)
        .await?
        .items;
    let snapshot = |name: &str| {
        snapshots
            .iter()
            .find(|s| s.name == name)
            .map(|s| s.id.clone())
    };
    match operation {
        "create" => drop(local.create(CreateVolume::blank("new", 4 * MIB)).await?),
        "restore" => {
            let source = Source::Snapshot(snapshot("kept").unwrap());
            local.create(CreateVolume::from("new", 0, source)).await?;
        }
        "clone" => {
            let source = Source::Volume(id("a"));
            local.create(CreateVolume::from("new", 0, source)).await?;
        }
        "snapshot" => drop(local.snapshot("new", &id("a")).await?),
        "group" => drop(local.group_snapshot("new", &[id("a"), id("b")]).await?),
        "expand" => {
            let size = local.get(&id("a")).await?.size + MIB;
            local.expand(&id("a"), SizeRange::at_least(size)).await?;
        }
        "export" => drop(
            local
                .export(&id("c"), &second_host(), Access::ReadWrite, false)
                .await?,
        ),
        "unexport" => local.unexport(&id("c"), &second_host().name).await?,
        "delete" => local.delete(&id("d")).await?,
        "merge" => {
            if let Some(id) = snapshot("merged") {
                local.delete_snapshot(&id).await?;
            }
        }
        // The images of both lie between ones that have names, and the volume is in use: data moves down.
        "fold" => {
            for name in ["fold1", "fold2"] {
                if let Some(id) = snapshot(name) {
                    local.delete_snapshot(&id).await?;
                }
            }
        }
        _ => panic!("{operation}?"),
    }
    Ok(())
}

struct Scene {
    rig: Rig,
    disks: [QemuIo; 2],
    written: u8,
}

impl Scene {
    async fn new() -> Self {
        let rig = Rig::new(|_, _| {}).await;
        let local = rig.open().await;
        let (_, a) = attached(&rig, "a").await;
        let (_, b) = attached(&rig, "b").await;
        local
            .create(CreateVolume::blank("c", 4 * MIB))
            .await
            .unwrap();
        let mut disks = [a, b];
        disks[0].write(MIB, 4096, 77).await.unwrap();
        let id = volume(&local, "a").await.unwrap().id;
        local.snapshot("kept", &id).await.unwrap();
        Self {
            rig,
            disks,
            written: 0,
        }
    }

    /// The host goes on, through everything.
    async fn write(&mut self) {
        self.written = self.written % 250 + 1;
        for disk in &mut self.disks {
            disk.write(0, 4096, self.written).await.unwrap();
        }
    }

    async fn prepare(&mut self, operation: &str) {
        let local = self.rig.open().await;
        match operation {
            "unexport" => {
                let id = volume(&local, "c").await.unwrap().id;
                local
                    .export(&id, &second_host(), Access::ReadWrite, false)
                    .await
                    .unwrap();
            }
            "delete" => drop(local.create(CreateVolume::blank("d", MIB)).await.unwrap()),
            "merge" => {
                let id = volume(&local, "a").await.unwrap().id;
                local.snapshot("merged", &id).await.unwrap();
            }
            "fold" => {
                let id = volume(&local, "a").await.unwrap().id;
                for name in ["fold1", "fold2", "fold3"] {
                    local.snapshot(name, &id).await.unwrap();
                    self.write().await;
                }
            }
            _ => {}
        }
        drop(local);
        self.write().await;
        self.rig.close().await;
    }

    /// What must be true whatever was killed, and all is put back.
    async fn check(&mut self, operation: &str, step: usize) {
        let local = self.rig.open().await;
        let at = format!("{operation}, killed before step {step}");
        for disk in &mut self.disks {
            assert_eq!(disk.read(0).await, Ok(self.written), "{at}");
        }
        assert_eq!(self.disks[0].read(MIB).await, Ok(77), "{at}");
        let expected = self.written;
        self.write().await;
        if let Some(new) = volume(&local, "new").await {
            let contents = match operation {
                "create" => [0, 0],
                "restore" => [0, 77],
                _ => [expected, 77],
            };
            assert_eq!(self.contents(&local, &new).await, contents, "{at}");
            local.delete(&new.id).await.unwrap();
        }
        let mut groups = std::collections::BTreeSet::new();
        for snapshot in local
            .list_snapshots(&Default::default(), 0, None)
            .await
            .unwrap()
            .items
        {
            let source = Source::Snapshot(snapshot.id.clone());
            let copy = local
                .create(CreateVolume::from("copy", 0, source))
                .await
                .unwrap();
            let [first, second] = self.contents(&local, &copy).await;
            local.delete(&copy.id).await.unwrap();
            let of_b = snapshot.volume == volume(&local, "b").await.unwrap().id;
            assert_eq!(second, if of_b { 0 } else { 77 }, "{at}: {snapshot:?}");
            // Values go from 1 to 250 and begin again.
            let before =
                |writes: u16| u8::try_from((u16::from(expected) + 249 - writes) % 250 + 1).unwrap();
            let old = match snapshot.name.as_str() {
                "kept" => 0,
                // Taken before the last write.
                "merged" => before(1),
                "fold3" => before(2),
                "fold2" => before(3),
                "fold1" => before(4),
                _ => expected,
            };
            assert_eq!(first, old, "{at}: {snapshot:?}");
            match snapshot.group {
                Some(group) => drop(groups.insert(group)),
                None if snapshot.name != "kept" => {
                    local.delete_snapshot(&snapshot.id).await.unwrap();
                }
                None => {}
            }
        }
        for group in groups {
            assert_eq!(
                local
                    .get_group_snapshot(&group)
                    .await
                    .unwrap()
                    .snapshots
                    .len(),
                2,
                "{at}"
            );
            local.delete_group_snapshot(&group).await.unwrap();
        }
        let c = volume(&local, "c").await.unwrap();
        let exported = self.rig.daemons().await.len() == 3;
        assert_eq!(exported, !c.hosts.is_empty(), "{at}: a daemon for whom?");
        local.unexport(&c.id, &second_host().name).await.unwrap();
        if let Some(d) = volume(&local, "d").await {
            local.delete(&d.id).await.unwrap();
        }
        // a, b, c, and what was kept of a: each one file.
        for round in 0.. {
            local.tidy().await;
            let images = self.rig.images();
            if images.len() == 4 {
                break;
            }
            assert!(round < 100, "{at}: {images:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(self.rig.daemons().await.len(), 2, "{at}");
        drop(local);
        self.rig.close().await;
    }

    async fn contents(&self, local: &Local, of: &Volume) -> [u8; 2] {
        let host = self.rig.host(2);
        let target = local
            .export(&of.id, &host, Access::ReadWrite, false)
            .await
            .unwrap();
        let mut disk = self.rig.connect(&target, &host, 0).await.unwrap();
        let contents = [disk.read(0).await.unwrap(), disk.read(MIB).await.unwrap()];
        Box::new(disk).close().await;
        local.unexport(&of.id, &host.name).await.unwrap();
        contents
    }
}

async fn volume(local: &Local, name: &str) -> Option<Volume> {
    let all = local.list(0, None).await.unwrap().items;
    all.into_iter().find(|volume| volume.name == name)
}

fn every_step_of_every_operation() {
    run(async {
        let mut scene = Scene::new().await;
        for operation in OPERATIONS {
            let mut killed = 0;
            loop {
                scene.prepare(operation).await;
                let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
                command
                    .arg("host")
                    .arg(scene.rig.dir.path())
                    .arg(operation)
                    .arg(killed.to_string());
                let ended = command.kill_on_drop(true).output().await.unwrap();
                scene.check(operation, killed).await;
                if ended.status.success() {
                    break;
                }
                let said = String::from_utf8_lossy(&ended.stderr);
                assert_eq!(
                    ended.status.signal(),
                    Some(9),
                    "{operation}, {killed}: {said}"
                );
                killed += 1;
            }
            println!("{operation}: killed before each of {killed} steps");
            assert!(killed > 1, "{operation}");
        }
        for disk in scene.disks {
            Box::new(disk).close().await;
        }
    });
}
