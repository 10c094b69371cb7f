//! A mount namespace, the program in it, and disks.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proto::csi::v1::node_client::NodeClient;
use tempfile::TempDir;
use tonic::transport::Channel;
use uuid::Uuid;

pub(crate) const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// A process that is ended with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program says on its standard output, once it ended well.
pub(crate) fn out(command: &mut Command) -> String {
    let output = command.output().expect("missing: run `make setup`");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Waits for a condition of the kernel's.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "never: {what}");
}

/// A node. The order of the fields is the order of their end.
pub(crate) struct World {
    program: Option<Process>,
    /// Keeps the namespace while the program is away.
    namespace: Process,
    log: Arc<Mutex<String>>,
    home: TempDir,
}

impl World {
    /// With the program running.
    pub(crate) async fn new() -> Self {
        let mut world = Self::without_program().await;
        world.start(&[], None).await;
        world
    }

    pub(crate) async fn without_program() -> Self {
        let home = tempfile::Builder::new()
            .prefix("csi-node-")
            .tempdir()
            .unwrap();
        for dir in ["exports", "kubelet", "registry"] {
            fs::create_dir(home.path().join(dir)).unwrap();
        }
        let mut namespace = Command::new("unshare");
        namespace.args(["--mount", "--propagation", "private", "cat"]);
        let namespace = namespace
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let world = Self {
            program: None,
            namespace: Process(namespace.expect("missing: run `make setup`")),
            log: Arc::default(),
            home,
        };
        let own = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let comm = format!("/proc/{}/comm", world.pid());
        eventually("a mount namespace", || {
            own(&world.pid()) != own("self")
                && fs::read_to_string(&comm).is_ok_and(|comm| comm.trim() == "cat")
        })
        .await;
        // As kubelet's root directory on a node.
        let kubelet = world.home.path().join("kubelet").display().to_string();
        world.sh(&format!(
            "mount --bind {kubelet} {kubelet}; mount --make-rshared {kubelet}"
        ));
        world
    }

    fn pid(&self) -> String {
        self.namespace.0.id().to_string()
    }

    /// Starts the program. It dies at the step, if one is given.
    pub(crate) async fn start(&mut self, flags: &[&str], kill_at: Option<&str>) {
        self.program = None;
        let home = self.home.path();
        let socket = self.socket();
        let _ = fs::remove_file(&socket);
        let mut command = self.inside(env!("CARGO_BIN_EXE_csi-node-host"));
        command
            .args([
                "run",
                "--node-name",
                "node-1",
                "--admin-address",
                "127.0.0.1:0",
            ])
            .args(["--log", "trace,h2=warn,hyper=warn,tower=warn"])
            .arg("--endpoint")
            .arg(&socket)
            .arg("--exports-dir")
            .arg(home.join("exports"))
            .arg("--run-dir")
            .arg(home.join("run"))
            .arg("--kubelet-root")
            .arg(home.join("kubelet"))
            .args(flags)
            .stderr(Stdio::piped());
        if let Some(step) = kill_at {
            command.env("OUTBOARD_KILL_AT", step);
        }
        let mut child = command.spawn().unwrap();
        let (stderr, log) = (child.stderr.take().unwrap(), Arc::clone(&self.log));
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        self.program = Some(Process(child));
        eventually("the program serves", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
        .await;
    }

    /// Returns once the program has died by itself.
    pub(crate) async fn died(&mut self) {
        let mut program = self.program.take().unwrap();
        let died = tokio::time::timeout(PATIENCE, async {
            while program.0.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(died.await.is_ok(), "the program lives");
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("csi.sock")
    }

    pub(crate) fn client(&self) -> NodeClient<Channel> {
        NodeClient::new(proto::uds::channel(self.socket()))
    }

    /// All that the program has said.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--mount", "--", program]);
        command
    }

    /// Runs a script in the namespace.
    pub(crate) fn sh(&self, script: &str) -> String {
        out(self.inside("sh").args(["-ec", script]))
    }

    /// Keeps a process in a copy of the namespace that hears of nothing.
    pub(crate) fn bystander(&self) -> Process {
        let mut command = self.inside("unshare");
        command.args(["--mount", "--propagation", "private", "cat"]);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Process(child)
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// A path below kubelet's root.
    pub(crate) fn path(&self, name: &str) -> String {
        self.home
            .path()
            .join("kubelet")
            .join(name)
            .display()
            .to_string()
    }

    /// A directory below kubelet's root.
    pub(crate) fn dir(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// How the namespace sees a path.
    pub(crate) fn seen(&self, path: &str) -> PathBuf {
        format!("/proc/{}/root{path}", self.pid()).into()
    }

    /// The mounts below kubelet's root and of the program itself.
    pub(crate) fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{}/mountinfo", self.pid())).unwrap();
        let home = format!("{}/", self.home.path().display());
        let points = text.lines().filter_map(|line| line.split(' ').nth(4));
        let kubelet = self.path("");
        points
            .filter(|point| point.starts_with(&home) && *point != kubelet.trim_end_matches('/'))
            .map(str::to_owned)
            .collect()
    }

    /// A new disk, attached.
    pub(crate) fn disk(&self, bytes: u64) -> Disk {
        let disk = self.file(bytes);
        disk.attach()
    }

    /// A new disk that is not attached yet.
    pub(crate) fn file(&self, bytes: u64) -> Disk {
        let uuid = Uuid::new_v4();
        let file = self.home.path().join("exports").join(uuid.to_string());
        File::create(&file).unwrap().set_len(bytes).unwrap();
        Disk {
            uuid,
            bytes,
            file,
            node: None,
        }
    }
}

/// Whatever was done, no secret is in the log.
impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(!self.log().contains(super::request::SECRET));
        }
    }
}

/// A volume's disk: a file under a loop device.
pub(crate) struct Disk {
    pub(crate) uuid: Uuid,
    pub(crate) bytes: u64,
    pub(crate) file: PathBuf,
    /// In /dev.
    pub(crate) node: Option<String>,
}

impl Disk {
    pub(crate) fn id(&self) -> String {
        format!("v1.local.{}", self.uuid)
    }

    pub(crate) fn attach(mut self) -> Self {
        self.node = Some(attach(&self.file));
        self
    }

    pub(crate) fn node(&self) -> &str {
        self.node.as_deref().unwrap()
    }

    pub(crate) fn detach(&mut self) {
        if let Some(node) = self.node.take() {
            out(Command::new("losetup").args(["-d", &node]));
        }
    }

    /// Fills the disk by a program that gets its path as last argument.
    pub(crate) fn with(self, program: &str, args: &[&str]) -> Self {
        out(Command::new(program).args(args).arg(self.node()));
        self
    }
}

/// A loop device over a file.
pub(crate) fn attach(file: &Path) -> String {
    out(Command::new("losetup").args(["--find", "--show"]).arg(file))
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            let _ = Command::new("losetup").args(["-d", &node]).output();
        }
    }
}
