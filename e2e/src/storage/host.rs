//! One host of a chain, and its processes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

use super::namespace::Namespace;
use super::place::{HostPlace, Place};
use super::program::Program;

/// Lines of a log at the end of an error.
const LINES: usize = 25;

/// A host. The processes end before the namespace goes.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: &'static str,
    pub(super) place: HostPlace,
    running: BTreeMap<Program, Child>,
    pub(super) namespace: Namespace,
    /// The TCP port of its csi-node-dpu, where there is TLS.
    pub(super) listen: Option<u16>,
    /// Volumes that it takes; 0: any number.
    pub(super) limit: usize,
    pub(super) out_of_service: bool,
}

impl Host {
    pub(super) fn new(place: &Place, name: &'static str, tls: bool) -> Result<Self> {
        let own = place.host(name);
        for dir in own.prepared() {
            fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let namespace = Namespace::new(&own.kubelet())?;
        let listen = tls.then(free_port).transpose()?;
        Ok(Self {
            name,
            place: own,
            running: BTreeMap::new(),
            namespace,
            listen,
            limit: 0,
            out_of_service: false,
        })
    }

    /// The log of a program.
    fn log(&self, place: &Place, program: Program) -> std::path::PathBuf {
        place
            .logs()
            .join(format!("{}-{}.log", self.name, program.name()))
    }

    /// Starts a prepared command as `program`.
    pub(super) fn start(
        &mut self,
        place: &Place,
        program: Program,
        command: &mut Command,
    ) -> Result<()> {
        let path = self.log(place, program);
        let log = File::options().append(true).create(true).open(&path);
        let log = log.with_context(|| format!("cannot open {}", path.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {} of {}", program.name(), self.name))?;
        self.running.insert(program, child);
        Ok(())
    }

    /// Whether it was started and neither killed nor waited for since.
    pub(super) fn has(&self, program: Program) -> bool {
        self.running.contains_key(&program)
    }

    pub(super) fn pid(&self, program: Program) -> Result<u32> {
        let child = self.running.get(&program);
        let child = child.with_context(|| self.absent(program))?;
        Ok(child.id())
    }

    fn absent(&self, program: Program) -> String {
        format!(
            "{} of {} was not started, or was killed",
            program.name(),
            self.name
        )
    }

    /// How it ended, if it did by itself.
    pub(super) fn ended(&mut self, program: Program) -> Result<Option<ExitStatus>> {
        match self.running.get_mut(&program) {
            Some(child) => Ok(child.try_wait()?),
            None => bail!(self.absent(program)),
        }
    }

    /// SIGKILL, and waits. Not running: nothing.
    pub(super) fn kill(&mut self, program: Program) -> Result<()> {
        if let Some(mut child) = self.running.remove(&program) {
            // It may have ended by itself.
            let _ = child.kill();
            child.wait()?;
        }
        Ok(())
    }

    /// All of them.
    pub(super) fn kill_all(&mut self) {
        let programs: Vec<_> = self.running.keys().copied().collect();
        for program in programs {
            let _ = self.kill(program);
        }
    }

    /// What the program said last.
    pub(super) fn tail(&self, place: &Place, program: Program) -> String {
        tail(&self.log(place, program))
    }
}

fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no TCP port is free")?;
    Ok(listener.local_addr()?.port())
}
