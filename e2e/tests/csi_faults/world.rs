//! A chain under test: two hosts, the target's and another.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use e2e::storage::calls::{Map, Usage, Volume};
use e2e::storage::{Calls, Chain, ChainConfig, Daemon, Program};
use e2e::{run, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::Status;

use crate::harness::Ground;

pub(crate) const MIB: u64 = 1 << 20;
/// The target's host: volumes that it uses have no NBD between.
pub(crate) const NEAR: usize = 0;
/// A host that uses volumes over NBD.
pub(crate) const FAR: usize = 1;
/// For what is waited for outside of calls.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether a step is over.
const LOOK: Duration = Duration::from_millis(2);
/// Lines of the logs at the end of a failure.
const LINES: usize = 80;

/// The pod that has a volume.
pub(crate) const POD: &str = "a";

/// A volume in a pod.
#[derive(Debug)]
pub(crate) struct Up {
    /// Of ControllerPublishVolume.
    pub(crate) context: Map,
    /// Where the pod has it: a directory, or a disk.
    pub(crate) target: PathBuf,
    /// What a writer writes: a file there, or the disk.
    pub(crate) data: PathBuf,
}

/// A program that will die at a step.
#[derive(Debug)]
struct Armed {
    host: usize,
    program: Program,
    step: String,
    dead: bool,
}

/// The chain. What is dropped first stands first.
pub(crate) struct World {
    pub(crate) chain: Chain,
    armed: Vec<Armed>,
    runtime: Option<Runtime>,
    pub(crate) small: Option<Small>,
}

impl World {
    pub(crate) fn new(ground: Ground) -> Result<Self> {
        let small = (ground == Ground::Small).then(Small::new).transpose()?;
        let config = ChainConfig {
            hosts: vec!["n1", "n2"],
            tls: ground == Ground::Tls,
            backend_dir: small.as_ref().map(|small| small.dir()),
            ..ChainConfig::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        Ok(Self {
            chain: Chain::start(config)?,
            armed: Vec::new(),
            runtime: Some(runtime),
            small,
        })
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("it is there until the end")
    }

    /// Starts a program anew so that it dies by SIGKILL at a step.
    pub(crate) fn arm(&mut self, host: usize, program: Program, step: &str) -> Result<()> {
        self.restart(host, program, &[("OUTBOARD_KILL_AT", step)])?;
        let step = step.to_owned();
        self.armed.push(Armed {
            host,
            program,
            step,
            dead: false,
        });
        Ok(())
    }

    /// kill -9, and a new process with further variables.
    pub(crate) fn restart(
        &mut self,
        host: usize,
        program: Program,
        env: &[(&str, &str)],
    ) -> Result<()> {
        self.chain.kill(host, program)?;
        self.chain.spawn(host, program, env)
    }

    /// Starts again what has died as it should.
    fn revive(&mut self) -> Result<()> {
        for armed in self.armed.iter_mut().filter(|armed| !armed.dead) {
            if !self.chain.is_up(armed.host, armed.program) {
                armed.dead = true;
                let began = Instant::now();
                // Takes notice of its end.
                self.chain.kill(armed.host, armed.program)?;
                self.chain.spawn(armed.host, armed.program, &[])?;
                let took = began.elapsed();
                if took > Duration::from_secs(2) {
                    println!("  {}: {took:.1?} until it serves again", armed.step);
                }
            }
        }
        Ok(())
    }

    /// Everything that was armed has died, or does so in the background, and runs again.
    pub(crate) fn all_died(&mut self) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while self.armed.iter().any(|armed| !armed.dead) && Instant::now() < end {
            self.revive()?;
            std::thread::park_timeout(10 * LOOK);
        }
        let armed = std::mem::take(&mut self.armed);
        let alive: Vec<_> = armed.iter().filter(|armed| !armed.dead).collect();
        for armed in &alive {
            self.restart(armed.host, armed.program, &[])?;
        }
        ensure!(alive.is_empty(), "not reached: {alive:?}");
        Ok(())
    }

    /// Does a step as its caller does, again and again until it succeeds; starts again what dies meanwhile.
    pub(crate) fn step<T, F>(&mut self, what: &str, step: impl FnOnce(Calls) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        self.step_while(what, step, |_| Ok(()))
    }

    /// The same, while something happens.
    pub(crate) fn step_while<T, F>(
        &mut self,
        what: &str,
        step: impl FnOnce(Calls) -> F,
        meanwhile: impl FnOnce(&mut Self) -> Result<()>,
    ) -> Result<T>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let work = self.runtime().spawn(step(self.chain.clients()));
        meanwhile(self)?;
        while !work.is_finished() {
            self.revive()?;
            std::thread::park_timeout(LOOK);
        }
        let answer = self.runtime().block_on(work)?;
        answer.map_err(|status| {
            let armed: Vec<_> = self.armed.iter().map(|armed| &armed.step).collect();
            anyhow!(
                "{what}: {:?}: {} (armed: {armed:?})",
                status.code(),
                status.message()
            )
        })
    }

    /// Makes a call once; gives the answer, whatever it is.
    pub(crate) fn once<T, F>(&self, call: impl FnOnce(Calls) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        let call = self.runtime().spawn(call(self.chain.clients().once()));
        self.runtime().block_on(call).expect("no call panics")
    }

    /// A call that is refused, with this code and a sentence that has `says` in it.
    pub(crate) fn refused<T, F>(
        &self,
        what: &str,
        code: tonic::Code,
        says: &str,
        call: impl FnOnce(Calls) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<T, Status>> + Send + 'static,
        T: Send + 'static,
    {
        match self.once(call) {
            Err(status) if status.code() == code && status.message().contains(says) => Ok(()),
            Err(status) => bail!(
                "{what}: {code:?} with {says:?} was expected, and it is {:?}: {}",
                status.code(),
                status.message()
            ),
            Ok(_) => bail!("{what}: {code:?} was expected, and it succeeded"),
        }
    }

    /// Makes a volume appear in pod `a`: CreateVolume is done.
    pub(crate) fn up(&mut self, volume: &Volume, host: usize) -> Result<Up> {
        let it = volume.clone();
        let up = self.step("bringing a volume", async move |calls| {
            calls.up(&it, host, POD).await
        })?;
        let data = match volume.usage.file_system {
            None => up.target.clone(),
            Some(_) => up.target.join("data"),
        };
        Ok(Up {
            context: up.context,
            target: up.target,
            data,
        })
    }

    /// Takes it away again.
    pub(crate) fn down(&mut self, volume: &Volume, host: usize) -> Result<()> {
        let it = volume.clone();
        self.step("taking a volume away", async move |calls| {
            calls.down(&it, host, POD).await
        })
    }

    /// CreateVolume.
    pub(crate) fn create(&mut self, name: &str, bytes: u64, usage: &Usage) -> Result<Volume> {
        let (name, usage) = (name.to_owned(), usage.clone());
        self.step("CreateVolume", async move |calls| {
            calls.create_for(&name, bytes, usage).await
        })
    }

    /// NodePublishVolume once more, with what ControllerPublishVolume said at first: as kubelet does it.
    pub(crate) fn show_again(&mut self, volume: &Volume, host: usize, up: &Up) -> Result<()> {
        let (it, context) = (volume.clone(), up.context.clone());
        self.step("NodePublishVolume", async move |calls| {
            calls.node_publish(&it, host, &context, POD).await.map(drop)
        })
    }

    pub(crate) fn delete(&mut self, volume: &Volume) -> Result<()> {
        let it = volume.clone();
        self.step("DeleteVolume", async move |calls| calls.delete(&it).await)
    }

    /// The daemon of a volume at its target.
    pub(crate) fn target_daemon(&self, volume: &Volume) -> Result<i32> {
        self.daemon(NEAR, &format!("v-{}", volume.uuid()))
    }

    /// The daemon of a volume at the far host's card.
    pub(crate) fn card_daemon(&self, volume: &Volume) -> Result<i32> {
        self.daemon(FAR, &format!("c-{}", volume.uuid()))
    }

    /// Waits for it: it may be on its way back.
    fn daemon(&self, host: usize, id: &str) -> Result<i32> {
        until(&format!("daemon {id}"), LIMIT, || {
            let all = self.chain.daemons(host)?;
            let found = all.into_iter().find(|daemon: &Daemon| daemon.id == id);
            Ok(found.and_then(|daemon| daemon.pid))
        })
    }

    /// Waits until an engine keeps another process in the place of this one; starts the engine again where that shall die of it.
    pub(crate) fn died(&mut self, host: usize, pid: i32) -> Result<()> {
        let end = Instant::now() + LIMIT;
        loop {
            self.revive()?;
            let all = self.chain.daemons(host).unwrap_or_default();
            let running = all.iter().all(|daemon| daemon.pid.is_some());
            if !all.is_empty() && running && all.iter().all(|daemon| daemon.pid != Some(pid)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "process {pid} was not replaced: {all:?}"
            );
            std::thread::park_timeout(10 * LOOK);
        }
    }

    /// A shell script among a host's mounts; gives what it says.
    pub(crate) fn sh(&self, host: usize, script: &str, arguments: &[&Path]) -> Result<String> {
        let mut command = self.chain.command(host, "timeout");
        command.args(["--signal=KILL", "60", "sh", "-ec", script, "sh"]);
        let output = command.args(arguments).output()?;
        ensure!(
            output.status.success(),
            "`{script}`: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Everything runs, and nothing is left of any volume.
    pub(crate) fn sweep(&mut self) -> Result<()> {
        self.all_died()?;
        for host in [NEAR, FAR] {
            for program in Program::OF_HOST {
                ensure!(
                    self.chain.is_up(host, program),
                    "{} has ended",
                    program.name()
                );
            }
            self.chain.answers(host)?;
        }
        let left = self.chain.leaks()?;
        ensure!(left.is_empty(), "left over:\n{}", left.join("\n"));
        Ok(())
    }

    /// What the programs said last, in order of time.
    pub(crate) fn evidence(&self) -> String {
        let logs = self.chain.logs().unwrap_or_else(|why| why.to_string());
        let mut lines: Vec<_> = logs
            .lines()
            .filter(|line| line.starts_with("20") || line.starts_with("{\""))
            .filter(|line| !line.contains("DEBUG") && !line.contains("daemon::readiness"))
            .filter(|line| !line.contains("refused: there is no"))
            .collect();
        lines.sort_unstable();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) -> Result<()> {
    kill(Pid::from_raw(pid), signal).with_context(|| format!("{signal} to process {pid}"))
}

/// A loop device, from when it got its file until that was taken away.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) name: String,
    /// The kernel's number of this life of it.
    life: String,
}

impl Disk {
    /// That of a volume, by its file.
    pub(crate) fn of(volume: &Volume) -> Result<Self> {
        until("the loop device", LIMIT, || {
            for entry in std::fs::read_dir("/sys/block")? {
                let path = entry?.path();
                let file = std::fs::read_to_string(path.join("loop/backing_file"));
                if file.is_ok_and(|file| file.trim().ends_with(volume.uuid())) {
                    let name = path.file_name().unwrap_or_default();
                    let name = name.to_string_lossy().into_owned();
                    return Ok(Some(Self {
                        life: life(&name)?,
                        name,
                    }));
                }
            }
            Ok(None)
        })
    }

    /// It still has its file, whatever became of that: one that was unmounted has no name.
    pub(crate) fn is_left(&self) -> bool {
        let file = format!("/sys/block/{}/loop/backing_file", self.name);
        Path::new(&file).exists() && life(&self.name).is_ok_and(|life| life == self.life)
    }
}

fn life(name: &str) -> std::io::Result<String> {
    std::fs::read_to_string(format!("/sys/block/{name}/diskseq"))
}

/// A file system of 192 MiB.
pub(crate) struct Small {
    home: TempDir,
}

impl Small {
    fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("osm").tempdir_in("/tmp")?;
        let small = Self { home };
        let (image, dir) = (small.home.path().join("image"), small.dir());
        std::fs::File::create(&image)?.set_len(192 * MIB)?;
        std::fs::create_dir(&dir)?;
        let (image, dir) = (image.display().to_string(), dir.display().to_string());
        run(&["mkfs.ext4", "-q", "-m", "0", &image])?;
        run(&["mount", "-o", "loop", &image, &dir])?;
        Ok(small)
    }

    /// Where it is mounted.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("v")
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.dir()).status();
    }
}
