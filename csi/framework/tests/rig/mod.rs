//! A real outboard-engine (this test program run as it), real daemons, real NBD clients (`qemu-io`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use framework::conformance::{Disk, Harness};
use framework::local::{Config, Local};
use framework::{Access, Backend, CreateVolume, Error, Host, NbdAddress, Target, Volume};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// The program as the engine, if it was started as that.
pub(crate) fn as_engine() -> Option<std::process::ExitCode> {
    let first = std::env::args().nth(1);
    matches!(first.as_deref(), Some("run" | "launch")).then(engine::main)
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(4)
        .build()
        .unwrap()
}

pub(crate) fn run(test: impl Future<Output = ()>) {
    runtime().block_on(test);
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

/// A directory, an engine, and a backend over them.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Config,
    engine: Mutex<Option<Child>>,
    current: tokio::sync::Mutex<Option<Arc<Local>>>,
    /// A restart before every call.
    pub(crate) restless: bool,
    /// Client certificates, by host.
    pub(crate) tls: Option<PathBuf>,
}

impl Rig {
    pub(crate) async fn new(configure: impl FnOnce(&Path, &mut Config)) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("of")
            .tempdir_in("/tmp")
            .unwrap();
        let root = dir.path().to_owned();
        let mut config = Config::new(root.join("b"), root.join("r/e.sock"));
        config.reserve = 1 << 20;
        configure(&root, &mut config);
        let rig = Self {
            dir,
            config,
            engine: Mutex::new(None),
            current: tokio::sync::Mutex::new(None),
            restless: false,
            tls: None,
        };
        rig.start_engine().await;
        rig
    }

    pub(crate) fn client(&self) -> engine::Client {
        engine::Client::new(self.config.engine_socket.clone())
    }

    pub(crate) async fn start_engine(&self) {
        let mut options = std::fs::File::options();
        options.append(true).create(true);
        let log = options.open(self.dir.path().join("engine.log")).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["run", "--cgroup", "", "--admin-address", "127.0.0.1:0"])
            .arg("--state")
            .arg(self.dir.path().join("s"))
            .arg("--socket")
            .arg(&self.config.engine_socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        *self.engine.lock().unwrap() = Some(child);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let info = self.client().info(deadline).await;
        assert!(info.is_ok(), "{info:?}\n{}", self.engine_log());
    }

    pub(crate) fn engine_log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("engine.log")).unwrap_or_default()
    }

    #[allow(dead_code, reason = "not in every test program")]
    pub(crate) async fn kill_engine(&self) {
        let child = self.engine.lock().unwrap().take();
        child.unwrap().kill().await.unwrap();
    }

    /// Lets go of the backend, as its process would.
    #[allow(dead_code, reason = "not in every test program")]
    pub(crate) async fn close(&self) {
        *self.current.lock().await = None;
    }

    pub(crate) async fn open(&self) -> Arc<Local> {
        let mut current = self.current.lock().await;
        if let Some(local) = &*current {
            return Arc::clone(local);
        }
        let local = self.reopen().await;
        *current = Some(Arc::clone(&local));
        local
    }

    async fn reopen(&self) -> Arc<Local> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        loop {
            match Local::open(self.config.clone()).await {
                Ok(local) => return Arc::new(local),
                // The old one's last task is still about to end.
                Err(Error::Unavailable { .. }) if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(why) => panic!("{why}"),
            }
        }
    }

    pub(crate) fn images(&self) -> Vec<String> {
        let names = std::fs::read_dir(self.config.dir.join("images")).unwrap();
        names
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    pub(crate) async fn daemons(&self) -> Vec<engine::Daemon> {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        self.client().list(None, deadline).await.unwrap()
    }

    pub(crate) async fn connect(
        &self,
        target: &Target,
        host: &Host,
        reconnect: u32,
    ) -> Result<QemuIo, String> {
        let Target::Nbd {
            address,
            export,
            tls,
        } = target
        else {
            panic!("not over NBD: {target:?}")
        };
        let server = match address {
            NbdAddress::Unix { path } => format!("server.type=unix,server.path={}", path.display()),
            NbdAddress::Tcp { host, port } => {
                format!("server.type=inet,server.host={host},server.port={port}")
            }
        };
        let mut options =
            format!("driver=nbd,{server},export={export},reconnect-delay={reconnect}");
        let mut command = Command::new("qemu-io");
        if *tls {
            let dir = self.tls.as_ref().unwrap().join(&host.name);
            command.arg("--object");
            command.arg(format!(
                "tls-creds-x509,id=t,endpoint=client,dir={}",
                dir.display()
            ));
            options.push_str(",tls-creds=t");
        }
        command.args(["-t", "none", "--image-opts", &options]);
        QemuIo::start(command).await
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.engine_log());
        }
        // The daemons are ours alone, by the directory in their names: end those that a failed test left.
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let ours = format!("{}/", self.dir.path().display());
            if line.contains("qemu-storage-daemon") && line.contains(&ours) {
                if let Some(mut engine) = self.engine.lock().unwrap().take() {
                    let _ = engine.start_kill();
                }
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// A volume of 8 MiB, and the first host's disk, which waits for a daemon that was killed.
pub(crate) async fn attached(rig: &Rig, name: &str) -> (Volume, QemuIo) {
    let local = rig.open().await;
    let volume = local
        .create(CreateVolume::blank(name, 8 << 20))
        .await
        .unwrap();
    let disk = exported(rig, &volume).await;
    (volume, disk)
}

/// The first host's disk of a volume, as of [`attached`].
pub(crate) async fn exported(rig: &Rig, volume: &Volume) -> QemuIo {
    let (local, host) = (rig.open().await, rig.host(0));
    let target = local.export(&volume.id, &host, Access::ReadWrite, false);
    rig.connect(&target.await.unwrap(), &host, 20)
        .await
        .unwrap()
}

/// A volume of 1 MiB that the target's own node uses, as host `here`.
#[allow(dead_code, reason = "not in every test program")]
pub(crate) async fn used_here(rig: &Rig) -> Volume {
    let local = rig.open().await;
    let volume = local
        .create(CreateVolume::blank("a", 1 << 20))
        .await
        .unwrap();
    let host = Host {
        name: "here".into(),
        dn: None,
        engine: Some(rig.config.engine_id.clone()),
    };
    let target = local.export(&volume.id, &host, Access::ReadWrite, false);
    target.await.unwrap();
    volume
}

#[allow(dead_code, reason = "not in every test program")]
pub(crate) fn kill(pid: u32) {
    assert!(killed(pid), "{pid} is no more");
}

/// The same; false if there is no such process any more.
#[allow(dead_code, reason = "not in every test program")]
pub(crate) fn killed(pid: u32) -> bool {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).is_ok()
}

#[async_trait]
impl Harness for Rig {
    async fn backend(&self) -> Arc<dyn Backend> {
        if self.restless {
            return self.restart().await;
        }
        self.open().await
    }

    async fn restart(&self) -> Arc<dyn Backend> {
        let mut current = self.current.lock().await;
        let old = current.take();
        // Another call of the test still has it: then it can't be killed, since all is one process.
        if let Some(old) = old.filter(|old| Arc::strong_count(old) > 1) {
            *current = Some(Arc::clone(&old));
            return old;
        }
        let local = self.reopen().await;
        *current = Some(Arc::clone(&local));
        local
    }

    fn host(&self, number: usize) -> Host {
        let name = format!("host-{number}");
        Host {
            dn: Some(format!("CN={name}")),
            engine: None,
            name,
        }
    }

    async fn connect(&self, target: &Target, host: &Host) -> Result<Box<dyn Disk>, String> {
        let disk = Rig::connect(self, target, host, 0).await?;
        Ok(Box::new(disk))
    }

    async fn leaks(&self) -> Vec<String> {
        let local = self.open().await;
        local.tidy().await;
        let daemons = self.daemons().await;
        let mut leaks = self.images();
        leaks.extend(daemons.into_iter().map(|daemon| daemon.id));
        for kind in ["volumes", "snapshots", "groups", "files"] {
            let records = std::fs::read_dir(self.config.dir.join("catalogue").join(kind)).unwrap();
            let names = records.map(|e| e.unwrap().file_name().into_string().unwrap());
            leaks.extend(names.filter(|name| !name.starts_with('.')));
        }
        leaks
    }
}

/// `qemu-io`, a command at a time.
pub(crate) struct QemuIo {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl QemuIo {
    /// Writes without asking that it be durable.
    #[allow(dead_code, reason = "not in every test program")]
    pub(crate) async fn write_back(
        &mut self,
        offset: u64,
        length: u64,
        value: u8,
    ) -> Result<(), String> {
        let command = format!("write -P {value} {offset} {length}");
        self.run(&command, |line| line.contains("ops;"))
            .await
            .map(drop)
    }

    async fn start(mut command: Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("run qemu-io (`make setup` installs it)");
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut disk = Self {
            child,
            stdin,
            stdout,
        };
        match disk
            .run("length", |line| {
                line.contains("iB") || line.contains("bytes")
            })
            .await
        {
            Ok(_) => Ok(disk),
            Err(_) => {
                let mut why = String::new();
                let mut stderr = disk.child.stderr.take().unwrap();
                let _ = stderr.read_to_string(&mut why).await;
                Err(why)
            }
        }
    }

    /// The lines up to the one that ends the command's answer.
    async fn run(&mut self, command: &str, last: fn(&str) -> bool) -> Result<Vec<String>, String> {
        let sent = self
            .stdin
            .write_all(format!("{command}\n").as_bytes())
            .await;
        sent.map_err(|why| why.to_string())?;
        let mut lines = Vec::new();
        loop {
            let line = tokio::time::timeout(Duration::from_secs(40), self.stdout.next_line());
            let line = line
                .await
                .map_err(|_| format!("{command}: no answer in 40 s"))?;
            let line = line.ok().flatten().ok_or("qemu-io ended")?;
            if line.contains("failed") || line.contains("rror") {
                return Err(line);
            }
            let over = last(&line);
            lines.push(line);
            if over {
                return Ok(lines);
            }
        }
    }
}

#[async_trait]
impl Disk for QemuIo {
    async fn write(&mut self, offset: u64, length: u64, value: u8) -> Result<(), String> {
        let command = format!("write -f -P {value} {offset} {length}");
        self.run(&command, |line| line.contains("ops;"))
            .await
            .map(drop)
    }

    async fn read(&mut self, offset: u64) -> Result<u8, String> {
        let command = format!("read -v {offset} 512");
        let lines = self.run(&command, |line| line.contains("ops;")).await?;
        let dump: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.trim_start_matches("qemu-io> ").split_once(":  "))
            .flat_map(|(_, bytes)| bytes.split_ascii_whitespace().take(16))
            .collect();
        assert_eq!(dump.len(), 512, "{lines:?}");
        assert!(
            dump.iter().all(|byte| *byte == dump[0]),
            "512 bytes that differ: {lines:?}"
        );
        u8::from_str_radix(dump[0], 16).map_err(|why| why.to_string())
    }

    async fn close(mut self: Box<Self>) {
        let _ = self.stdin.write_all(b"quit\n").await;
        let ended = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
        if ended.is_err() {
            let _ = self.child.kill().await;
        }
    }
}
