//! One task per daemon: the only one that starts, ends or looks for it.
//!
//! ```text
//!            put                 not there            served
//!   Idle ──────────► Find ─────────────────► Launch ─────────► Up
//!    ▲                │ there, has served              died │   │ died soon again,
//!    │                └────────────────────► Up    ◄────────┘   ▼ or no start
//!    └─ Remove ◄── remove, from everywhere             Find ◄── Wait (backoff; a put ends it)
//! ```

mod backoff;
mod launch;
mod remove;

use std::sync::Arc;

use fail::fail_point;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::Recipe;
use crate::keeper::backoff::Backoff;
use crate::place::Place;
use crate::process::Process;
use crate::record::{Record, Served, last_line};
use crate::registry::Engine;
use crate::wire::{Daemon, Refusal, State, code};

/// A question to a keeper.
#[derive(Debug)]
pub(crate) enum Ask {
    Put {
        owner: String,
        recipe: Recipe,
        expected: Option<u64>,
        reply: oneshot::Sender<Result<Arc<Daemon>, Refusal>>,
    },
    Remove {
        reply: Remover,
    },
}

type Remover = oneshot::Sender<Result<(), Refusal>>;

/// Where a daemon is in its life.
#[derive(Debug)]
pub(crate) enum Phase {
    /// There is nothing.
    Idle,
    /// There is a record; whether there is a process must be seen.
    Find,
    /// There is no process.
    Launch,
    /// The process serves.
    Up { process: Process, applied: u64 },
    /// The next attempt is not yet due.
    Wait { why: String, until: Instant },
    /// It is to go.
    Remove,
}

/// What a question led to.
enum Next {
    Stay,
    Retry,
    Remove,
}

pub(crate) struct Keeper {
    engine: Arc<Engine>,
    id: String,
    place: Place,
    asks: UnboundedReceiver<Ask>,
    show: watch::Sender<Option<Arc<Daemon>>>,
    record: Option<Record>,
    backoff: Backoff,
    removers: Vec<Remover>,
}

impl Keeper {
    pub(crate) fn new(
        engine: Arc<Engine>,
        id: String,
        place: Place,
        asks: UnboundedReceiver<Ask>,
        show: watch::Sender<Option<Arc<Daemon>>>,
    ) -> Self {
        let record = engine.journal.get(&id).map(|record| record.value.clone());
        let keeper = Keeper {
            engine,
            id,
            place,
            asks,
            show,
            record,
            backoff: Backoff::default(),
            removers: Vec::new(),
        };
        // Who asks right after a restart must not think that there is none.
        if keeper.record.is_some() {
            keeper.show(State::Starting, None, None);
        }
        keeper
    }

    /// Keeps the daemon until it is removed. `found` is dropped once the daemon of an earlier engine was looked for.
    pub(crate) async fn run(mut self, mut phase: Phase, mut found: Option<mpsc::Sender<()>>) {
        loop {
            let next = match phase {
                Phase::Idle => {
                    let Some(ask) = self.engine.next_or_retire(&self.id, &mut self.asks) else {
                        return;
                    };
                    match self.answer(ask).await {
                        Next::Stay => Phase::Idle,
                        Next::Retry => Phase::Find,
                        Next::Remove => Phase::Remove,
                    }
                }
                Phase::Find => self.find().await,
                Phase::Launch => self.launch().await,
                Phase::Up { process, applied } => self.up(process, applied).await,
                Phase::Wait { why, until } => self.wait(why, until).await,
                Phase::Remove => self.remove().await,
            };
            drop(found.take());
            phase = next;
        }
    }

    async fn find(&mut self) -> Phase {
        self.show(State::Starting, None, None);
        let process = match Process::find(&self.place, &self.engine.boot) {
            Ok(None) => return Phase::Launch,
            Ok(Some(process)) => process,
            Err(why) => return self.failed(why.to_string()),
        };
        match Served::read(&self.place) {
            Some(served) if served.epoch == process.epoch => {
                tracing::info!(id = self.id, pid = process.pid, "storage daemon found");
                self.engine.metrics.found.inc();
                let applied = served.revision;
                Phase::Up { process, applied }
            }
            // An engine ended before it had run the whole recipe. How far it came is not known.
            _ => {
                tracing::warn!(
                    id = self.id,
                    pid = process.pid,
                    "a storage daemon that was never ready is started anew"
                );
                process.kill();
                process.ended().await;
                Phase::Launch
            }
        }
    }

    async fn up(&mut self, process: Process, applied: u64) -> Phase {
        self.show(State::Running, Some(&process), Some(applied));
        self.backoff.is_up(Instant::now());
        loop {
            let why = tokio::select! {
                why = process.ended() => why,
                ask = self.asks.recv() => match self.answer_if(ask).await {
                    Next::Remove => return Phase::Remove,
                    Next::Stay | Next::Retry => continue,
                },
            };
            let why = self.last_words(&why, 0);
            tracing::warn!(id = self.id, pid = process.pid, "storage daemon {why}");
            self.engine.metrics.deaths.inc();
            fail_point!("dead::seen");
            let delay = self.backoff.next(Instant::now());
            if delay.is_zero() {
                return Phase::Launch;
            }
            let until = Instant::now() + delay;
            return Phase::Wait { why, until };
        }
    }

    async fn wait(&mut self, why: String, until: Instant) -> Phase {
        self.show(State::Failed { why }, None, None);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Phase::Find,
                ask = self.asks.recv() => match self.answer_if(ask).await {
                    Next::Stay => {}
                    Next::Retry => {
                        self.show(State::Starting, None, None);
                        return Phase::Find;
                    }
                    Next::Remove => return Phase::Remove,
                },
            }
        }
    }

    fn failed(&mut self, why: String) -> Phase {
        tracing::warn!(id = self.id, "storage daemon not started: {why}");
        self.engine.metrics.failures.inc();
        let until = Instant::now() + self.backoff.next_after_failure();
        Phase::Wait { why, until }
    }

    /// How it ended, and its last line of what it wrote to its log from `start` on.
    fn last_words(&self, how: &str, start: u64) -> String {
        match last_line(&self.place.log(), start) {
            Some(line) => format!("{how}; the last line of its log: {line}"),
            None => how.to_owned(),
        }
    }

    async fn answer_if(&mut self, ask: Option<Ask>) -> Next {
        match ask {
            Some(ask) => self.answer(ask).await,
            // The registry lives as long as the program.
            None => std::future::pending().await,
        }
    }

    async fn answer(&mut self, ask: Ask) -> Next {
        match ask {
            Ask::Put {
                owner,
                recipe,
                expected,
                reply,
            } => {
                let done = self.put(owner, recipe, expected).await;
                let next = if done.is_ok() {
                    Next::Retry
                } else {
                    Next::Stay
                };
                // It is durable, whether or not somebody still waits.
                let _ = reply.send(done);
                next
            }
            Ask::Remove { reply } => {
                // Without a record there may be a daemon all the same: one whose record was lost.
                if let Some(record) = self.record.clone() {
                    let removing = Record {
                        removing: true,
                        ..record
                    };
                    if let Err(refusal) = self.store(removing, false).await {
                        let _ = reply.send(Err(refusal));
                        return Next::Stay;
                    }
                }
                self.removers.push(reply);
                fail_point!("remove::recorded");
                Next::Remove
            }
        }
    }

    /// Records the wish; the daemon is not touched.
    async fn put(
        &mut self,
        owner: String,
        recipe: Recipe,
        expected: Option<u64>,
    ) -> Result<Arc<Daemon>, Refusal> {
        fail_point!("put::begun");
        let present = self.record.as_ref();
        // What is as wished already may be this very call, repeated.
        if !present.is_some_and(|record| record.recipe == recipe) {
            let revision = present.map_or(0, |record| record.revision);
            self.is_expected(expected, revision)?;
        }
        let (revision, fresh) = match &self.record {
            Some(record) if record.owner != owner => {
                return Err(Refusal {
                    code: code::OWNED,
                    message: format!(
                        "daemon {} belongs to {:?}, not to {owner:?}: choose another id, or let its owner remove it",
                        self.id, record.owner
                    ),
                });
            }
            Some(record) if record.recipe == recipe => return Ok(self.shown()),
            Some(record) => (record.revision + 1, false),
            None => (self.first_revision(), true),
        };
        let record = Record {
            owner,
            recipe,
            revision,
            removing: false,
        };
        self.store(record, fresh).await?;
        if fresh {
            fail_point!("put::recorded");
            self.show(State::Starting, None, None);
        } else {
            fail_point!("put::replaced");
            let shown = self.shown();
            let changed = self.daemon(
                shown.state.clone(),
                shown.epoch.clone(),
                shown.pid,
                shown.applied,
            );
            self.publish(changed);
        }
        tracing::info!(id = self.id, revision, "recipe recorded");
        Ok(self.shown())
    }

    /// Above that of a process whose record was lost: it has not been through this recipe.
    fn first_revision(&self) -> u64 {
        Served::read(&self.place).map_or(1, |served| served.revision + 1)
    }

    fn is_expected(&self, expected: Option<u64>, revision: u64) -> Result<(), Refusal> {
        if expected.is_none_or(|expected| expected == revision) {
            return Ok(());
        }
        Err(Refusal {
            code: code::CONFLICT,
            message: format!(
                "daemon {}: its recipe was changed meanwhile (its revision is {revision}): read it again",
                self.id
            ),
        })
    }

    async fn store(&mut self, record: Record, fresh: bool) -> Result<(), Refusal> {
        let (engine, id, value) = (Arc::clone(&self.engine), self.id.clone(), record.clone());
        let written = tokio::task::spawn_blocking(move || {
            let journal = &engine.journal;
            let written = if fresh {
                journal.insert(&id, value)
            } else {
                journal.update(&id, value)
            };
            written.map(drop).map_err(anyhow::Error::new)
        });
        let written = written.await.map_err(anyhow::Error::new).flatten();
        written.map_err(|why| Refusal {
            code: code::UNAVAILABLE,
            message: format!("daemon {}: its recipe can't be recorded: {why:#}", self.id),
        })?;
        self.record = Some(record);
        Ok(())
    }

    fn show(&self, state: State, process: Option<&Process>, applied: Option<u64>) {
        let epoch = process.map(|process| process.epoch.clone());
        let pid = process.map(|process| process.pid);
        self.publish(self.daemon(state, epoch, pid, applied));
    }

    fn daemon(
        &self,
        state: State,
        epoch: Option<String>,
        pid: Option<u32>,
        applied: Option<u64>,
    ) -> Daemon {
        let record = self.record.clone();
        let (owner, recipe, revision) = record
            .map(|record| (record.owner, record.recipe, record.revision))
            .unwrap_or_default();
        Daemon {
            id: self.id.clone(),
            owner,
            recipe,
            revision,
            applied,
            state,
            epoch,
            pid,
            dir: self.place.dir().to_owned(),
        }
    }

    fn publish(&self, daemon: Daemon) {
        let before = self.show.borrow().clone();
        if before.as_deref() == Some(&daemon) {
            return;
        }
        let before = before.map(|before| before.state.clone());
        self.engine.metrics.moved(before.as_ref(), &daemon.state);
        let daemon = Arc::new(daemon);
        self.show.send_replace(Some(Arc::clone(&daemon)));
        // Without watchers nobody wants it.
        let _ = self.engine.changes.send(daemon);
    }

    fn shown(&self) -> Arc<Daemon> {
        let shown = self.show.borrow().clone();
        shown.unwrap_or_else(|| Arc::new(self.daemon(State::Starting, None, None, None)))
    }
}
