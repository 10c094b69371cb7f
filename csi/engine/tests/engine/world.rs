//! An engine in a directory of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use engine::{Client, Daemon, Put, Recipe, State};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use qemu::commands::{Address, BlockExportAdd, BlockdevAdd, Export, NbdServerStart, Node};
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) const OWNER: &str = "test";

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(crate) struct World {
    pub(crate) home: TempDir,
    pub(crate) admin: u16,
    engine: Mutex<Option<Child>>,
}

impl World {
    /// An engine that lives until it is killed, or dies at `step`.
    pub(crate) fn start(step: Option<&str>) -> Self {
        let world = World::without_engine();
        world.run(step);
        world
    }

    pub(crate) fn without_engine() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        World {
            home: tempfile::Builder::new().prefix("ob").tempdir().unwrap(),
            admin: listener.local_addr().unwrap().port(),
            engine: Mutex::new(None),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outboard-engine"));
        command.args(["run", "--cgroup", ""]);
        command.arg("--state").arg(self.home.path().join("s"));
        command.arg("--socket").arg(self.socket());
        command
            .arg("--admin-address")
            .arg(format!("127.0.0.1:{}", self.admin));
        command
    }

    pub(crate) fn run(&self, step: Option<&str>) {
        self.run_with(step, &[]);
    }

    pub(crate) fn run_with(&self, step: Option<&str>, flags: &[&str]) {
        let log = self.home.path().join("engine.log");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        let mut command = self.command();
        command.args(flags);
        if let Some(step) = step {
            command.env("OUTBOARD_KILL_AT", step);
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        *self.engine.lock().unwrap() = Some(child);
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("engine.log")).unwrap_or_default()
    }

    /// kill -9 of the engine.
    pub(crate) fn kill_engine(&self) {
        let mut engine = self.engine.lock().unwrap().take().unwrap();
        engine.kill().unwrap();
        engine.wait().unwrap();
    }

    /// Whether the engine has died; then it is started again.
    pub(crate) fn restart_if_dead(&self) -> bool {
        let mut engine = self.engine.lock().unwrap();
        let dead = engine.as_mut().unwrap().try_wait().unwrap().is_some();
        drop(engine);
        if dead {
            self.run(None);
        }
        dead
    }

    fn socket(&self) -> PathBuf {
        self.home.path().join("r/e.sock")
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.socket())
    }

    pub(crate) fn place(&self, id: &str) -> PathBuf {
        self.home.path().join("s/daemons").join(id)
    }

    /// Processes whose command line names our directory, but the engine: the daemons and what is about to be one.
    pub(crate) fn daemons(&self) -> Vec<i32> {
        let home = self.home.path().join("s/daemons");
        processes_of(&home)
    }

    /// A thin image.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        let path = self.home.path().join(format!("{name}.qcow2"));
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&path)
            .arg("64M")
            .status();
        assert!(
            made.expect("qemu-img is missing: run `make setup`")
                .success()
        );
        path
    }

    /// Serves an image over NBD in the daemon's directory.
    pub(crate) fn nbd(&self, id: &str, image: &Path) -> Put {
        let path = self.place(id).join("nbd.sock");
        let recipe = Recipe::default()
            .then(&BlockdevAdd(disk(image)))
            .and_then(|recipe| {
                recipe.then(&NbdServerStart {
                    addr: Address::Unix { path },
                    tls_creds: None,
                    tls_authz: None,
                    max_connections: Some(0),
                })
            })
            .and_then(|recipe| {
                recipe.then(&export(Export::Nbd {
                    name: Some("vol".into()),
                }))
            });
        put(id, recipe.unwrap())
    }

    /// One path of the admin server.
    pub(crate) fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.lock().unwrap().take() {
            let _ = engine.kill();
            let _ = engine.wait();
        }
        for pid in self.daemons() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // What a killed daemon leaves mounted.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let home = self.home.path().to_string_lossy().into_owned();
        for mount in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
            if mount.starts_with(&home) {
                let _ = nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- the engine's log:\n{}", self.log());
        }
    }
}

fn processes_of(dir: &Path) -> Vec<i32> {
    let dir = dir.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        let ours = command.contains("qemu-storage-daemon") || command.contains("launch");
        ours && command.contains(&dir)
    })
    .collect()
}

pub(crate) fn disk(image: &Path) -> Node {
    Node::qcow2("disk", Node::file("disk-file", image))
}

pub(crate) fn export(kind: Export) -> BlockExportAdd {
    BlockExportAdd {
        id: "export".into(),
        node_name: "disk".into(),
        kind,
        writable: Some(true),
        writethrough: None,
        iothread: None,
    }
}

pub(crate) fn put(id: &str, recipe: Recipe) -> Put {
    Put {
        id: id.into(),
        owner: OWNER.into(),
        recipe,
    }
}

/// A daemon that serves nothing.
pub(crate) fn idle(id: &str) -> Put {
    put(id, Recipe::default())
}

pub(crate) fn kill_daemon(daemon: &Daemon) {
    let pid = i32::try_from(daemon.pid.unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// The daemon once another process runs.
pub(crate) async fn replaced(client: &Client, before: &Daemon) -> Daemon {
    let mut watch = client.watch();
    loop {
        let daemons = match watch.next().await {
            engine::Change::All(daemons) => daemons,
            engine::Change::One(daemon) => vec![*daemon],
        };
        let found = daemons.into_iter().find(|daemon| {
            daemon.id == before.id && daemon.state == State::Running && daemon.epoch != before.epoch
        });
        if let Some(daemon) = found {
            return daemon;
        }
    }
}

/// A client of an export that reads and writes one request after the other.
pub(crate) struct Io {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Io {
    pub(crate) fn open(socket: &Path) -> Self {
        let options = format!(
            "driver=nbd,server.type=unix,server.path={},export=vol,reconnect-delay=30",
            socket.display()
        );
        let mut child = Command::new("qemu-io")
            .args(["--image-opts", &options])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("qemu-io is missing: run `make setup`");
        Io {
            commands: child.stdin.take().unwrap(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Runs a command and returns the first line of its answer.
    pub(crate) fn run(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        self.commands.flush().unwrap();
        loop {
            let mut line = String::new();
            assert!(
                self.answers.read_line(&mut line).unwrap() > 0,
                "qemu-io ended"
            );
            let line = line.trim_start_matches("qemu-io> ").trim().to_owned();
            // Every success has a second line with numbers of speed.
            if !line.is_empty() && !line.contains("ops;") {
                return line;
            }
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
