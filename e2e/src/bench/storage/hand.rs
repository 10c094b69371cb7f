//! The floor: a volume brought to a host by hand, without any program of ours.
//!
//! What is done is what outboard-engine has recorded for a volume that the chain attached: the same QMP commands, in one
//! go, to storage daemons that are just started; then losetup, blkid, mkfs or e2fsck, and the mounts.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use super::{Shape, Times};
use crate::storage::Chain;
use crate::{images, shell};

/// The engine answers from memory.
const LIMIT: Duration = Duration::from_secs(5);

/// What brings a volume to a host, recorded from the chain.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    program: String,
    /// Commands of each daemon; the target's is first.
    daemons: Vec<Vec<Value>>,
}

/// A volume that was brought to this machine by hand. Dropping it takes it away again.
pub(super) struct Hand {
    /// What a workload would see.
    pub(super) target: PathBuf,
    /// Where the first daemon serves, if it serves on a unix socket.
    pub(super) socket: PathBuf,
    pub(super) times: Times,
    mounts: Vec<PathBuf>,
    device: Option<String>,
    export: PathBuf,
    daemons: Vec<Daemon>,
}

struct Daemon {
    child: Child,
    /// Held open: it may still have to say something.
    _said: BufReader<ChildStdout>,
}

/// What a file system is made of, or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disk {
    /// Never used: a file system is made.
    New,
    /// With a file system: it is checked.
    Used,
}

impl Pattern {
    /// From a volume that is attached to a host now.
    pub(super) fn of(chain: &Chain, uuid: &str, host: usize) -> Result<Self> {
        let mut daemons = vec![recipe(&chain.engine_socket(0), &format!("v-{uuid}"))?];
        if host > 0 {
            daemons.push(recipe(&chain.engine_socket(host), &format!("c-{uuid}"))?);
        }
        Ok(Self {
            program: images::tool("qemu-storage-daemon")?,
            daemons,
        })
    }

    /// The same with a second export of the volume, by vhost-user-blk: its socket is [`Hand::socket`]. Of a volume without NBD.
    pub(super) fn with_vhost_user(mut self) -> Result<Self> {
        let steps = self.daemons.last_mut().context("a daemon")?;
        let fuse = steps.iter().find(|step| {
            step["execute"] == "block-export-add" && step["arguments"]["type"] == "fuse"
        });
        let node = fuse.context("the volume has no FUSE export")?["arguments"]["node-name"].clone();
        let address = json!({"type": "unix", "path": "filled in"});
        steps.push(json!({"execute": "block-export-add", "arguments": {
            "type": "vhost-user-blk", "id": "vhost", "node-name": node, "writable": true, "num-queues": 1, "addr": address,
        }}));
        Ok(self)
    }

    /// How many commands that are.
    pub(super) fn commands(&self) -> usize {
        self.daemons.iter().map(Vec::len).sum()
    }

    /// Does it for another image. `place` is made, and belongs to the volume.
    pub(super) fn attach(
        &self,
        image: &Path,
        place: &Path,
        shape: Shape,
        disk: Disk,
    ) -> Result<Hand> {
        fs::create_dir_all(place.join("staging"))?;
        fs::create_dir_all(place.join("target"))?;
        let export = place.join("export");
        File::create(&export)?;
        let fill = Fill {
            image,
            export: &export,
            socket: &place.join("nbd.sock"),
            port: &free_port()?,
        };
        let daemons = self.daemons.iter();
        let daemons: Vec<Vec<Value>> = daemons
            .map(|steps| steps.iter().map(|step| fill.value("", step)).collect())
            .collect();
        let mut hand = Hand {
            target: PathBuf::new(),
            socket: place.join("nbd.sock"),
            times: Times::default(),
            mounts: Vec::new(),
            device: None,
            export: export.clone(),
            daemons: Vec::new(),
        };
        let begun = Instant::now();
        for (n, steps) in daemons.iter().enumerate() {
            let log = place.join(format!("daemon-{n}.log"));
            hand.daemons
                .push(Daemon::start(&self.program, steps, &log)?);
        }
        let file = export.display().to_string();
        let device = shell::run(&["losetup", "--find", "--show", "--direct-io=on", &file])?;
        hand.device = Some(device.clone());
        hand.times.publish = begun.elapsed();
        match shape {
            Shape::Block => hand.target = device.into(),
            Shape::Ext4 => hand.mount(&device, place, disk)?,
        }
        Ok(hand)
    }
}

impl Hand {
    fn mount(&mut self, device: &str, place: &Path, disk: Disk) -> Result<()> {
        let (staging, target) = (place.join("staging"), place.join("target"));
        let begun = Instant::now();
        // Its exit code is 2 for a blank disk.
        let _ = Command::new("blkid")
            .args(["-p", "-o", "export", device])
            .output()
            .context("cannot run blkid")?;
        let options = ["-q", "-m", "0", "-E", "nodiscard", device];
        match disk {
            Disk::New => shell::run(&[&["mkfs.ext4"], &options[..]].concat())?,
            Disk::Used => shell::run(&["e2fsck", "-p", device])?,
        };
        let none: Option<&str> = None;
        mount(Some(device), &staging, Some("ext4"), MsFlags::empty(), none)?;
        self.mounts.push(staging.clone());
        self.times.stage = begun.elapsed();
        let begun = Instant::now();
        mount(Some(&staging), &target, none, MsFlags::MS_BIND, none)?;
        self.mounts.push(target.clone());
        self.times.bind = begun.elapsed();
        self.target = target;
        Ok(())
    }

    /// Takes it away in good order.
    pub(super) fn detach(mut self) -> Result<()> {
        while let Some(point) = self.mounts.pop() {
            umount2(&point, MntFlags::empty())
                .with_context(|| format!("cannot unmount {}", point.display()))?;
        }
        if let Some(device) = self.device.take() {
            shell::run(&["losetup", "--detach", &device])?;
        }
        // The card's daemon before the target's.
        while let Some(daemon) = self.daemons.pop() {
            daemon.quit()?;
        }
        Ok(())
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        while let Some(point) = self.mounts.pop() {
            let _ = umount2(&point, MntFlags::MNT_DETACH);
        }
        if let Some(device) = self.device.take() {
            let _ = shell::run(&["losetup", "--detach", &device]);
        }
        while let Some(mut daemon) = self.daemons.pop() {
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
            let _ = umount2(&self.export, MntFlags::MNT_DETACH);
        }
    }
}

impl Daemon {
    /// Starts one, and sends all commands without waiting for an answer; then all answers are read.
    fn start(program: &str, steps: &[Value], log: &Path) -> Result<Self> {
        // As any daemon has: the kernel schedules a session's processes together (sched_autogroup), and fio is in this one.
        let mut child = Command::new("setsid")
            .arg(program)
            .args(["--chardev", "stdio,id=m", "--monitor", "chardev=m"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let said = child.stdout.take().context("its output was asked for")?;
        let mut daemon = Self {
            child,
            _said: BufReader::new(said),
        };
        let done = daemon.command(steps);
        if let Err(error) = done {
            let _ = daemon.child.kill();
            let _ = daemon.child.wait();
            let log = fs::read_to_string(log).unwrap_or_default();
            return Err(error.context(log));
        }
        Ok(daemon)
    }

    fn command(&mut self, steps: &[Value]) -> Result<()> {
        let mut all = String::from("{\"execute\":\"qmp_capabilities\"}\n");
        for step in steps {
            all += &step.to_string();
            all.push('\n');
        }
        let input = self.child.stdin.as_mut().context("its input is open")?;
        input.write_all(all.as_bytes())?;
        input.flush()?;
        let mut answers = 0;
        while answers <= steps.len() {
            let mut line = String::new();
            ensure!(
                self._said.read_line(&mut line)? > 0,
                "the storage daemon has ended"
            );
            let said: Value = serde_json::from_str(&line)?;
            if let Some(error) = said.get("error") {
                bail!("{}: {error}", steps[answers.max(1) - 1]);
            }
            answers += usize::from(said.get("return").is_some());
        }
        Ok(())
    }

    fn quit(mut self) -> Result<()> {
        if let Some(input) = self.child.stdin.as_mut() {
            input.write_all(b"{\"execute\":\"quit\"}\n")?;
        }
        self.child.wait()?;
        Ok(())
    }
}

/// What differs between the recorded volume and another one.
struct Fill<'a> {
    image: &'a Path,
    export: &'a Path,
    socket: &'a Path,
    port: &'a str,
}

impl Fill<'_> {
    fn value(&self, key: &str, value: &Value) -> Value {
        match (key, value) {
            (_, Value::Object(members)) => members
                .iter()
                .map(|(key, value)| (key.clone(), self.value(key, value)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
            (_, Value::Array(items)) => items.iter().map(|item| self.value("", item)).collect(),
            ("filename", _) => json!(self.image),
            ("mountpoint", _) => json!(self.export),
            ("path", _) => json!(self.socket),
            ("port", _) => json!(self.port),
            _ => value.clone(),
        }
    }
}

/// The recipe of a daemon, asked of its engine.
fn recipe(socket: &Path, id: &str) -> Result<Vec<Value>> {
    let asked = || -> Result<Value> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "get", "params": {"id": id}});
        stream.write_all(call.to_string().as_bytes())?;
        let answers = serde_json::Deserializer::from_reader(BufReader::new(stream));
        let mut answers = answers.into_iter::<Value>();
        Ok(answers.next().context("no answer")??)
    };
    let answer = asked().with_context(|| format!("asking {}", socket.display()))?;
    let steps = answer["result"]["recipe"].as_array().cloned();
    steps.with_context(|| format!("the engine has no daemon {id}: {answer}"))
}

/// A TCP port that nobody listens on, for the target's daemon.
fn free_port() -> Result<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok(listener.local_addr()?.port().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_filled_in_for_another_volume() {
        let fill = Fill {
            image: Path::new("/i"),
            export: Path::new("/e"),
            socket: Path::new("/s"),
            port: "7",
        };
        let step = json!({"execute": "x", "arguments": {
            "file": {"filename": "/other", "aio": "io_uring"}, "mountpoint": "/other",
            "addr": {"type": "unix", "data": {"path": "/other"}},
            "server": {"host": "::1", "port": "1"}, "rules": [{"match": "CN=a"}]}});
        let wanted = json!({"execute": "x", "arguments": {
            "file": {"filename": "/i", "aio": "io_uring"}, "mountpoint": "/e",
            "addr": {"type": "unix", "data": {"path": "/s"}},
            "server": {"host": "::1", "port": "7"}, "rules": [{"match": "CN=a"}]}});
        assert_eq!(fill.value("", &step), wanted);
    }
}
