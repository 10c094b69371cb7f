//! The real program over a real outboard-engine (this test program run as it), with two hosts.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use proto::csi::v1::controller_client::ControllerClient;
use proto::csi::v1::group_controller_client::GroupControllerClient;
use proto::csi::v1::identity_client::IdentityClient;
use proto::csi::v1::volume_capability::access_mode::Mode;
use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use proto::csi::v1::*;
use tokio::process::{Child, Command};
use tonic::Status;
use tonic::transport::Channel;

use crate::dpu::Dpu;

pub(crate) const MIB: i64 = 1 << 20;

/// The program as the engine, if it was started as that.
pub(crate) fn as_engine() -> Option<ExitCode> {
    let first = std::env::args().nth(1);
    matches!(first.as_deref(), Some("run" | "launch")).then(engine::main)
}

/// Runs the tests that the arguments name, or all.
pub(crate) fn main(tests: &[(&str, fn())]) {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return;
    }
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    for (name, test) in tests {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            let begun = std::time::Instant::now();
            test();
            println!(
                "test {name} ... ok ({:.1} s)",
                begun.elapsed().as_secs_f32()
            );
        }
    }
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.enable_all().worker_threads(4).build().unwrap();
    runtime.block_on(test);
}

pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    engine: Option<Child>,
    controller: Option<Child>,
    pub(crate) dpus: [Dpu; 2],
    /// Further flags of csi-controller.
    pub(crate) flags: Vec<String>,
    /// Nodes are those of nodes.yaml.
    pub(crate) file: bool,
    channel: Channel,
}

impl World {
    /// With everything running.
    pub(crate) async fn new() -> Self {
        let mut world = Self::prepared().await;
        world.start(&[]).await;
        world
    }

    /// Without csi-controller.
    pub(crate) async fn prepared() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("oc")
            .tempdir_in("/tmp")
            .unwrap();
        let root = dir.path();
        std::fs::create_dir(root.join("csi")).unwrap();
        let dpus = ["node-1", "node-2"].map(|host| Dpu::new(root, host));
        for (n, dpu) in dpus.iter().enumerate() {
            dpu.serve(&root.join(format!("dpu-{n}.sock"))).await;
        }
        let channel = proto::uds::channel(root.join("csi/csi.sock"));
        let mut world = Self {
            engine: None,
            controller: None,
            dpus,
            flags: vec![],
            file: true,
            channel,
            dir,
        };
        world.write_backends("");
        world.write_nodes("", "");
        world.start_engine();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write_backends(&self, more: &str) {
        let root = self.dir.path().display();
        let text = format!(
            "backends:\n  - kind: local\n    directory: {root}/b\n    engineSocket: {root}/r/e.sock\n    \
             engineId: storage-1\n    reserveBytes: 1048576\n    defaultBytes: 4194304\n    overProvisioning: 4\n{more}"
        );
        std::fs::write(self.path("backends.yaml"), text).unwrap();
    }

    /// Further fields of each node.
    pub(crate) fn write_nodes(&self, first: &str, second: &str) {
        let root = self.dir.path().display();
        let text = format!(
            "nodes:\n  - {{id: node-1, address: 'unix:{root}/dpu-0.sock', exportsDir: {root}/exports/node-1{first}}}\n  \
             - {{id: node-2, address: 'unix:{root}/dpu-1.sock', exportsDir: {root}/exports/node-2{second}}}\n"
        );
        std::fs::write(self.path("nodes.yaml"), text).unwrap();
    }

    fn log(&self, name: &str) -> std::fs::File {
        let mut options = std::fs::File::options();
        options
            .append(true)
            .create(true)
            .open(self.path(name))
            .unwrap()
    }

    fn start_engine(&mut self) {
        let log = self.log("engine.log");
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["run", "--cgroup", "", "--admin-address", "127.0.0.1:0"])
            .arg("--state")
            .arg(self.path("s"))
            .arg("--socket")
            .arg(self.path("r/e.sock"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.engine = Some(child);
    }

    /// Starts csi-controller and waits until it is ready.
    pub(crate) async fn start(&mut self, environment: &[(&str, &str)]) {
        self.spawn(environment);
        self.probes(Some(true)).await;
    }

    pub(crate) fn spawn(&mut self, environment: &[(&str, &str)]) {
        let log = self.log("controller.log");
        let child = Command::new(env!("CARGO_BIN_EXE_csi-controller"))
            .args(["run", "--log", "debug,h2=info,hyper_util=info,tower=info"])
            .arg("--endpoint")
            .arg(self.path("csi/csi.sock"))
            .arg("--state")
            .arg(self.path("state"))
            .arg("--backends")
            .arg(self.path("backends.yaml"))
            .args(
                self.file
                    .then(|| format!("--nodes={}", self.path("nodes.yaml").display())),
            )
            .args(&self.flags)
            .env("OUTBOARD_ADMIN_ADDRESS", "127.0.0.1:0")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.controller = Some(child);
    }

    /// Waits until it answers so.
    pub(crate) async fn probes(&mut self, ready: Option<bool>) {
        for _ in 0..1000 {
            let answer = self.identity().probe(ProbeRequest {}).await;
            if answer.is_ok_and(|answer| answer.into_inner().ready == ready) {
                return;
            }
            let ended = self.controller.as_mut().unwrap().try_wait().unwrap();
            assert!(
                ended.is_none(),
                "csi-controller ended: {ended:?}\n{}",
                self.controller_log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "csi-controller does not get ready: {ready:?}\n{}",
            self.controller_log()
        );
    }

    pub(crate) async fn kill(&mut self) {
        self.controller.take().unwrap().kill().await.unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) {
        let mut child = self.controller.take().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        assert!(ended.is_ok(), "it lives on\n{}", self.controller_log());
    }

    pub(crate) fn controller_log(&self) -> String {
        std::fs::read_to_string(self.path("controller.log")).unwrap_or_default()
    }

    pub(crate) fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
    }

    pub(crate) fn controller(&self) -> ControllerClient<Channel> {
        ControllerClient::new(self.channel.clone())
    }

    pub(crate) fn groups(&self) -> GroupControllerClient<Channel> {
        GroupControllerClient::new(self.channel.clone())
    }

    /// A volume of some MiB.
    pub(crate) async fn create(&self, name: &str, mib: i64) -> String {
        let made = self.controller().create_volume(volume(name, mib)).await;
        made.unwrap().into_inner().volume.unwrap().volume_id
    }

    pub(crate) async fn publish(&self, id: &str, node: &str) -> Result<Context, Status> {
        let answer = self
            .controller()
            .controller_publish_volume(publication(id, node))
            .await?;
        Ok(answer.into_inner().publish_context)
    }

    pub(crate) async fn unpublish(&self, id: &str, node: &str) -> Result<(), Status> {
        let (volume_id, node_id) = (id.to_owned(), node.to_owned());
        let request = ControllerUnpublishVolumeRequest {
            volume_id,
            node_id,
            ..Default::default()
        };
        self.controller()
            .controller_unpublish_volume(request)
            .await
            .map(drop)
    }

    pub(crate) async fn delete(&self, id: &str) -> Result<(), Status> {
        let request = DeleteVolumeRequest {
            volume_id: id.to_owned(),
            ..Default::default()
        };
        self.controller().delete_volume(request).await.map(drop)
    }

    pub(crate) async fn published(&self, id: &str) -> Vec<String> {
        let request = ControllerGetVolumeRequest {
            volume_id: id.to_owned(),
        };
        let answer = self
            .controller()
            .controller_get_volume(request)
            .await
            .unwrap();
        answer.into_inner().status.unwrap().published_node_ids
    }

    /// Daemons of the engine, records of csi-controller, and images: nothing may be left.
    pub(crate) async fn leaks(&self) -> Vec<String> {
        let mut left = Vec::new();
        for dir in [
            "s/daemons",
            "state/volumes",
            "b/images",
            "b/catalogue/volumes",
            "b/catalogue/files",
        ] {
            // Images go in the background.
            for _ in 0..200 {
                left = entries(&self.path(dir));
                if left.is_empty() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if !left.is_empty() {
                break;
            }
        }
        for dpu in &self.dpus {
            left.extend(dpu.attached().await);
        }
        left
    }
}

pub(crate) type Context = std::collections::BTreeMap<String, String>;

fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().path().display().to_string());
    names
        .filter(|name| !name.rsplit('/').next().unwrap().starts_with('.'))
        .collect()
}

pub(crate) fn capability(block: bool, mode: Mode) -> VolumeCapability {
    let access = if block {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume::default())
    };
    VolumeCapability {
        access_type: Some(access),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}

pub(crate) fn volume(name: &str, mib: i64) -> CreateVolumeRequest {
    CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(CapacityRange {
            required_bytes: mib * MIB,
            limit_bytes: 0,
        }),
        volume_capabilities: vec![capability(false, Mode::SingleNodeWriter)],
        ..CreateVolumeRequest::default()
    }
}

pub(crate) fn publication(id: &str, node: &str) -> ControllerPublishVolumeRequest {
    ControllerPublishVolumeRequest {
        volume_id: id.to_owned(),
        node_id: node.to_owned(),
        volume_capability: Some(capability(false, Mode::SingleNodeWriter)),
        ..ControllerPublishVolumeRequest::default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.controller_log();
            let engine = std::fs::read_to_string(self.path("engine.log")).unwrap_or_default();
            eprintln!("{log}\n--- engine\n{engine}");
        }
        if let Some(mut engine) = self.engine.take() {
            let _ = engine.start_kill();
        }
        // The daemons are ours alone, by the directory in their names: end those that a failed test left.
        let ours = format!("{}/", self.dir.path().display());
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("qemu-storage-daemon") && line.contains(&ours) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
        let exports = self.dir.path().join("exports");
        for host in entries(&exports) {
            for file in entries(Path::new(&host)) {
                let _ = nix::mount::umount2(Path::new(&file), nix::mount::MntFlags::MNT_DETACH);
            }
        }
    }
}
