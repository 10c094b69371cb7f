//! From no process to one that serves.

use std::fs::DirBuilder;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fail::fail_point;
use qemu::Qmp;
use tokio::time::Instant;
use tracing::{Instrument, info_span};

use super::{Keeper, Next, Phase};
use crate::fuse;
use crate::process::Process;
use crate::recipe::{Failure, Recipe};
use crate::record::Served;
use crate::storage_daemon;
use crate::wire::State;

/// How long a daemon may take to say its greeting: a machine that starts hundreds of them is slow.
const GREETING: Duration = Duration::from_secs(60);
/// How long after the loss of its monitor the end of a daemon may come.
const LAST_BREATH: Duration = Duration::from_millis(200);

impl Keeper {
    pub(super) async fn launch(&mut self) -> Phase {
        self.show(State::Starting, None, None);
        let span = info_span!("start", id = self.id);
        let started = Instant::now();
        let log = std::fs::metadata(self.place.log()).map_or(0, |about| about.len());
        let process = match self.start_process().instrument(span.clone()).await {
            Ok(Some(process)) => process,
            Ok(None) => {
                let why = self.last_words("the storage daemon ended at once", log);
                return self.failed(why);
            }
            Err(why) => return self.failed(why),
        };
        let phase = self.serve(process, log).instrument(span).await;
        if matches!(phase, Phase::Up { .. }) {
            self.engine
                .metrics
                .starts
                .observe(started.elapsed().as_secs_f64());
        }
        phase
    }

    /// Starts the launcher and waits until it has become the daemon; `None` if it ended before it could be seen.
    async fn start_process(&self) -> Result<Option<Process>, String> {
        let engine = &self.engine;
        let _permit = engine.launches.acquire().await;
        fail_point!("start::launching");
        let mut made = DirBuilder::new();
        made.recursive(true).mode(0o700);
        let dir = self.place.dir();
        made.create(dir)
            .map_err(|why| format!("can't make {}: {why}", dir.display()))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("launch")
            .arg("--dir")
            .arg(dir)
            .arg("--storage-daemon")
            .arg(&engine.storage_daemon)
            .arg("--cgroup")
            .arg(&engine.cgroup)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let launched = tokio::task::spawn_blocking(move || run(command)).await;
        let mut child = launched
            .map_err(io::Error::other)
            .flatten()
            .map_err(|why| format!("can't start the storage daemon: {why}"))?;
        fail_point!("start::launched");
        // An earlier engine's launcher may have been faster: then that one's daemon is found.
        let found = Process::find(&self.place, &engine.boot).map_err(|why| why.to_string())?;
        if found.is_none() {
            // It has ended, and must not stay as a zombie.
            let _ = tokio::task::spawn_blocking(move || child.wait()).await;
        }
        Ok(found)
    }

    /// Runs the recipe; answers questions meanwhile.
    async fn serve(&mut self, process: Process, log: u64) -> Phase {
        let Some(record) = self.record.clone() else {
            return Phase::Remove;
        };
        let applied = record.revision;
        let socket = self.place.qmp();
        let served = async {
            let recipe = record.recipe;
            let clearing = recipe.clone();
            // A dead mount answers slowly at times.
            let _ = tokio::task::spawn_blocking(move || fuse::clear(&clearing)).await;
            run_recipe(&recipe, &socket).await
        };
        tokio::pin!(served);
        let why = loop {
            tokio::select! {
                done = &mut served => match done {
                    Ok(()) => break None,
                    // Its end may be heard of first by this way.
                    Err(why) if !why.lost => break Some(why.sentence),
                    Err(why) => match tokio::time::timeout(LAST_BREATH, process.ended()).await {
                        Ok(how) => break Some(self.last_words(&format!("the storage daemon {how}"), log)),
                        Err(_) => break Some(why.sentence),
                    },
                },
                how = process.ended() => {
                    let why = self.last_words(&format!("the storage daemon {how}"), log);
                    return self.failed(why);
                }
                ask = self.asks.recv() => match self.answer_if(ask).await {
                    // The start goes on with the recipe that it began with; `applied` tells.
                    Next::Stay | Next::Retry => {}
                    Next::Remove => return Phase::Remove,
                },
            }
        };
        let written = why.map_or(Ok(()), Err).and_then(|()| {
            fail_point!("start::served");
            let epoch = process.epoch.clone();
            let served = Served {
                epoch,
                revision: applied,
            };
            let written = served.write(&self.place);
            written.map_err(|why| format!("can't write in {}: {why}", self.place.dir().display()))
        });
        match written {
            Ok(()) => {
                tracing::info!(id = self.id, pid = process.pid, "storage daemon serves");
                Phase::Up { process, applied }
            }
            // Half a recipe must serve nobody.
            Err(why) => {
                process.kill();
                process.ended().await;
                self.failed(why)
            }
        }
    }
}

async fn run_recipe(recipe: &Recipe, socket: &std::path::Path) -> Result<(), Failure> {
    let qmp = Qmp::connect(socket, Instant::now() + GREETING).await;
    let qmp = qmp.map_err(|why| Failure {
        sentence: why.to_string(),
        lost: true,
    })?;
    storage_daemon::check(qmp.version().qemu).map_err(|sentence| Failure {
        sentence,
        lost: false,
    })?;
    recipe.run(&qmp).await
}

/// Runs the launcher to its exec. Its error is what it says.
fn run(mut command: Command) -> io::Result<Child> {
    let mut child = command.spawn()?;
    let mut said = String::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_string(&mut said)?;
    }
    if said.is_empty() {
        return Ok(child);
    }
    child.wait()?;
    Err(io::Error::other(said.trim().to_owned()))
}
