//! An engine and a bridge in a directory of their own.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use proto::card::v1::card_client::CardClient;
use proto::card::v1::{
    CreateLocalDeviceRequest, CreateSourceRequest, DeleteLocalDeviceRequest, DeleteSourceRequest,
    GetDeviceRequest, GetDeviceResponse, LocalDevice, Source,
};
use proto::volume::v1::device::Address;
use proto::volume::v1::exposure::Kind as Exposed;
use proto::volume::v1::file_source::Format;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{
    self, Device, Exposure, FileSource, LocalBlockDevice, NbdSource, VhostUserBlk,
};
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Status;
use tonic::transport::Channel;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
const O_DIRECT: i32 = 0o40000;

pub(crate) struct World {
    pub(crate) home: TempDir,
    engine: Mutex<Option<Child>>,
    bridge: Mutex<Option<Child>>,
    flags: Vec<String>,
    /// The bridge has a mount namespace of its own, as in a container; `x` is shared with it.
    contained: bool,
}

/// A process that ends with the test.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

impl World {
    pub(crate) async fn start() -> Self {
        World::with(&[]).await
    }

    pub(crate) async fn with(flags: &[&str]) -> Self {
        World::made(flags, false).await
    }

    /// The bridge as in a container.
    pub(crate) async fn contained() -> Self {
        World::made(&[], true).await
    }

    async fn made(flags: &[&str], contained: bool) -> Self {
        let world = World {
            home: tempfile::Builder::new()
                .prefix("obb")
                .tempdir_in("/tmp")
                .unwrap(),
            engine: Mutex::new(None),
            bridge: Mutex::new(None),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            contained,
        };
        if contained {
            let exports = world.path("x");
            std::fs::create_dir(&exports).unwrap();
            for how in [&["--bind"][..], &["--make-shared"]] {
                let mut mount = Command::new("mount");
                mount.args(how).arg(&exports);
                if how == ["--bind"] {
                    mount.arg(&exports);
                }
                assert!(mount.status().unwrap().success());
            }
        }
        let mut engine = Command::new(std::env::current_exe().unwrap());
        engine.args(["run", "--cgroup", "", "--admin-address", "127.0.0.1:0"]);
        engine
            .arg("--state")
            .arg(world.path("s"))
            .arg("--socket")
            .arg(world.path("e/e.sock"));
        *world.engine.lock().unwrap() = Some(world.spawn(engine));
        world.engine_client().info(soon()).await.unwrap();
        world.start_bridge(None);
        world.answers().await;
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn spawn(&self, mut command: Command) -> Child {
        let mut options = std::fs::File::options();
        let log = options
            .append(true)
            .create(true)
            .open(self.path("log"))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        command.spawn().unwrap()
    }

    pub(crate) fn start_bridge(&self, die_at: Option<&str>) {
        let program = env!("CARGO_BIN_EXE_opi-bridge");
        let mut bridge = Command::new(if self.contained { "unshare" } else { program });
        if self.contained {
            bridge.args(["--mount", "--propagation", "slave", program]);
        }
        bridge.args([
            "linux",
            "--node-name",
            "here",
            "--admin-address",
            "127.0.0.1:0",
        ]);
        bridge.arg("--socket").arg(self.path("b/b.sock"));
        bridge.arg("--state").arg(self.path("state"));
        bridge.arg("--engine").arg(self.path("e/e.sock"));
        bridge.arg("--exports-dir").arg(self.path("x"));
        bridge.arg("--credentials-dir").arg(self.path("c"));
        bridge.args(&self.flags);
        if let Some(step) = die_at {
            bridge.env("OUTBOARD_KILL_AT", step);
        }
        *self.bridge.lock().unwrap() = Some(self.spawn(bridge));
    }

    /// Whether the bridge has died.
    pub(crate) fn bridge_is_dead(&self) -> bool {
        self.bridge
            .lock()
            .unwrap()
            .as_mut()
            .unwrap()
            .try_wait()
            .unwrap()
            .is_some()
    }

    pub(crate) fn kill_bridge(&self) {
        let mut bridge = self.bridge.lock().unwrap().take().unwrap();
        let _ = bridge.kill();
        bridge.wait().unwrap();
    }

    pub(crate) fn channel(&self) -> Channel {
        proto::uds::channel(self.path("b/b.sock"))
    }

    pub(crate) fn card(&self) -> CardClient<Channel> {
        CardClient::new(self.channel())
    }

    pub(crate) async fn answers(&self) {
        let deadline = soon();
        while self
            .card()
            .inventory(proto::card::v1::InventoryRequest {})
            .await
            .is_err()
        {
            assert!(
                Instant::now() < deadline,
                "the bridge does not answer\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn engine_client(&self) -> engine::Client {
        engine::Client::new(self.path("e/e.sock"))
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A raw file of so many bytes.
    pub(crate) fn raw(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        std::fs::File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    pub(crate) async fn source(&self, id: &str, kind: Kind, uuid: &str) -> Result<Source, Status> {
        let request = CreateSourceRequest {
            source_id: id.into(),
            source: Some(v1::Source { kind: Some(kind) }),
            read_only: false,
            uuid: uuid.into(),
        };
        self.card()
            .create_source(request)
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn device(
        &self,
        id: &str,
        volume: &str,
        kind: Exposed,
    ) -> Result<Device, Status> {
        let request = CreateLocalDeviceRequest {
            local_device_id: id.into(),
            volume_name_ref: volume.into(),
            exposure: Some(Exposure { kind: Some(kind) }),
            read_only: false,
            serial: String::new(),
        };
        let made: LocalDevice = self.card().create_local_device(request).await?.into_inner();
        Ok(made.device.unwrap_or_default())
    }

    pub(crate) async fn get_device(&self, name: &str) -> Result<GetDeviceResponse, Status> {
        let request = GetDeviceRequest {
            name: name.into(),
            users: true,
        };
        self.card()
            .get_device(request)
            .await
            .map(tonic::Response::into_inner)
    }

    pub(crate) async fn delete_device(&self, name: &str, force: bool) -> Result<(), Status> {
        let request = DeleteLocalDeviceRequest {
            name: name.into(),
            force,
        };
        self.card().delete_local_device(request).await.map(drop)
    }

    pub(crate) async fn delete_source(&self, name: &str) -> Result<(), Status> {
        let request = DeleteSourceRequest { name: name.into() };
        self.card().delete_source(request).await.map(drop)
    }

    /// Loop devices whose files are in this world, by their files.
    pub(crate) fn loops(&self) -> Vec<String> {
        let entries = std::fs::read_dir("/sys/block").unwrap().flatten();
        let files = entries.filter_map(|entry| {
            std::fs::read_to_string(entry.path().join("loop/backing_file")).ok()
        });
        let home = self.home.path().to_string_lossy().into_owned();
        files.filter(|file| file.starts_with(&home)).collect()
    }

    fn mounts(&self) -> Vec<String> {
        let home = self.home.path().to_string_lossy().into_owned();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let shared = self.contained.then(|| format!("{home}/x"));
        points
            .filter(|point| point.starts_with(&home) && Some(*point) != shared.as_deref())
            .map(str::to_owned)
            .collect()
    }

    fn files(&self, dir: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(dir))
            .into_iter()
            .flatten()
            .flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| !name.starts_with('.') && name != "corrupt")
            .collect()
    }

    /// Nothing is left of any volume.
    pub(crate) async fn sweep(&self) {
        let none = Vec::<String>::new();
        assert_eq!(self.loops(), none, "loops");
        assert_eq!(self.mounts(), none, "mounts");
        assert_eq!(self.files("x"), none, "exports");
        assert_eq!(self.files("state/objects"), none, "journals of objects");
        let cards: Vec<_> = self
            .files("state/linux")
            .into_iter()
            .filter(|name| !name.starts_with("card"))
            .collect();
        assert_eq!(cards, none, "journals of the card");
        let daemons = self
            .engine_client()
            .list(Some("card"), soon())
            .await
            .unwrap();
        assert!(daemons.is_empty(), "{daemons:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log:\n{}", self.log());
        }
        for child in [&self.bridge, &self.engine] {
            if let Some(mut child) = child.lock().unwrap().take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        let home = self.home.path().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok())
            else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("qemu-storage-daemon") && line.contains(&home) {
                let _ = nix::sys::signal::kill(
                    nix::unistd::Pid::from_raw(pid),
                    nix::sys::signal::SIGKILL,
                );
            }
        }
        for file in self.loops() {
            let found = Command::new("losetup")
                .args([
                    "--associated",
                    file.trim(),
                    "--output",
                    "NAME",
                    "--noheadings",
                ])
                .output();
            for device in String::from_utf8_lossy(&found.unwrap().stdout).split_whitespace() {
                let _ = Command::new("losetup").args(["--detach", device]).status();
            }
        }
        let shared = self.contained.then(|| format!("{home}/x"));
        for mount in self.mounts().into_iter().chain(shared) {
            let _ = nix::mount::umount2(mount.as_str(), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

pub(crate) fn file(path: &Path) -> Kind {
    Kind::File(FileSource {
        path: path.to_string_lossy().into_owned(),
        format: Format::Raw.into(),
    })
}

pub(crate) fn nbd(socket: &Path) -> Kind {
    Kind::Nbd(NbdSource {
        address: Some(v1::nbd_source::Address::UnixPath(
            socket.to_string_lossy().into_owned(),
        )),
        export_name: "vol".into(),
        tls: None,
        reconnect_delay_seconds: 30,
    })
}

pub(crate) fn block() -> Exposed {
    Exposed::LocalBlockDevice(LocalBlockDevice::default())
}

pub(crate) fn vhost_user() -> Exposed {
    Exposed::VhostUserBlk(VhostUserBlk { queues: 1 })
}

pub(crate) fn path_of(device: &Device) -> PathBuf {
    match &device.address {
        Some(Address::Path(path) | Address::SocketPath(path)) => PathBuf::from(path),
        other => panic!("{other:?}"),
    }
}

/// A target: its own qemu-storage-daemon with an NBD export.
pub(crate) async fn target(image: &Path, socket: &Path) -> Ended {
    let _ = std::fs::remove_file(socket);
    let child = Command::new("qemu-storage-daemon")
        .arg("--blockdev")
        .arg(format!(
            "file,node-name=d,filename={},cache.direct=on",
            image.display()
        ))
        .arg("--nbd-server")
        .arg(format!(
            "addr.type=unix,addr.path={},max-connections=0",
            socket.display()
        ))
        .args(["--export", "nbd,id=e,node-name=d,name=vol,writable=on"])
        .spawn()
        .expect("qemu-storage-daemon is missing: run `make setup`");
    let ended = Ended(child);
    let begun = std::time::Instant::now();
    while std::os::unix::net::UnixStream::connect(socket).is_err() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "the target does not listen"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ended
}

/// Blocks of 4 KiB, each with its number in it, past the page cache.
#[derive(Debug)]
pub(crate) struct Disk(std::fs::File);

#[repr(align(4096))]
struct Block([u8; 4096]);

impl Disk {
    pub(crate) fn open(path: &Path) -> Self {
        let mut options = std::fs::File::options();
        Disk(
            options
                .read(true)
                .write(true)
                .custom_flags(O_DIRECT)
                .open(path)
                .unwrap(),
        )
    }

    fn block(number: u64) -> Block {
        let mut block = Block([0; 4096]);
        for (i, byte) in block.0.iter_mut().enumerate() {
            *byte = (number.wrapping_mul(31).wrapping_add(i as u64 * 7) % 251) as u8;
        }
        block
    }

    pub(crate) fn write(&self, number: u64) -> std::io::Result<()> {
        use std::os::unix::fs::FileExt;
        self.0.write_all_at(&Disk::block(number).0, number * 4096)
    }

    pub(crate) fn sync(&self) -> std::io::Result<()> {
        self.0.sync_all()
    }

    /// Whether the block is what was written.
    pub(crate) fn holds(&self, number: u64) -> std::io::Result<bool> {
        use std::os::unix::fs::FileExt;
        let mut block = Box::new(Block([0; 4096]));
        self.0.read_exact_at(&mut block.0, number * 4096)?;
        Ok(block.0 == Disk::block(number).0)
    }
}
