//! Which keeper has which id, and what keepers share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::Journal;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::keeper::{Ask, Keeper, Phase};
use crate::metrics::Metrics;
use crate::place::State as StateDir;
use crate::record::Record;
use crate::wire::{Daemon, Put, Refusal, State, code};

/// Changes that a watcher may be behind before it must begin anew.
const CHANGES: usize = 4096;

/// What keepers share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) state: StateDir,
    pub(crate) boot: String,
    pub(crate) journal: Journal<Record>,
    pub(crate) storage_daemon: PathBuf,
    pub(crate) cgroup: String,
    /// Daemons that may be in their first moments at a time: more of them would only wait for each other.
    pub(crate) launches: Semaphore,
    pub(crate) changes: broadcast::Sender<Arc<Daemon>>,
    pub(crate) metrics: Metrics,
    keepers: Mutex<BTreeMap<String, Handle>>,
}

#[derive(Debug, Clone)]
struct Handle {
    asks: UnboundedSender<Ask>,
    shown: watch::Receiver<Option<Arc<Daemon>>>,
}

impl Engine {
    pub(crate) fn new(
        state: StateDir,
        boot: String,
        journal: Journal<Record>,
        storage_daemon: PathBuf,
        cgroup: String,
        metrics: Metrics,
    ) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Engine {
            state,
            boot,
            journal,
            storage_daemon,
            cgroup,
            launches: Semaphore::new((2 * cpus).max(4)),
            changes: broadcast::Sender::new(CHANGES),
            metrics,
            keepers: Mutex::default(),
        }
    }

    /// Takes up what an earlier engine left. The receiver ends when every daemon has been looked for.
    pub(crate) fn recover(self: &Arc<Self>) -> mpsc::Receiver<()> {
        let (found, all_found) = mpsc::channel(1);
        let mut keepers = self.keepers();
        for (id, record) in self.journal.iter() {
            let phase = if record.value.removing {
                Phase::Remove
            } else {
                Phase::Find
            };
            match self.state.of(&id) {
                Ok(_) => {
                    let handle = self.spawn(&id, phase, Some(found.clone()));
                    keepers.insert(id, handle);
                }
                Err(why) => tracing::error!("a recorded daemon is left alone: {why}"),
            }
        }
        for id in self.orphans() {
            tracing::warn!(
                id,
                "a directory without a recipe is removed, and its daemon with it"
            );
            let handle = self.spawn(&id, Phase::Remove, Some(found.clone()));
            keepers.insert(id, handle);
        }
        all_found
    }

    /// Directories without a record: at most an interrupted removal leaves one.
    fn orphans(&self) -> Vec<String> {
        if !self.journal.quarantined().is_empty() {
            // Their recipes may be among those that could not be read.
            return Vec::new();
        }
        let entries = std::fs::read_dir(self.state.daemons());
        let names = entries.into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|id| self.state.of(id).is_ok() && self.journal.get(id).is_none())
            .collect()
    }

    fn spawn(self: &Arc<Self>, id: &str, phase: Phase, found: Option<mpsc::Sender<()>>) -> Handle {
        let (asks, asked) = unbounded_channel();
        let (show, shown) = watch::channel(None);
        if let Ok(place) = self.state.of(id) {
            let keeper = Keeper::new(Arc::clone(self), id.to_owned(), place, asked, show);
            tokio::spawn(keeper.run(phase, found));
        }
        Handle { asks, shown }
    }

    /// The next question to the keeper of `id`. If there is none the keeper has nothing to keep, and is forgotten.
    pub(crate) fn next_or_retire(
        &self,
        id: &str,
        asks: &mut UnboundedReceiver<Ask>,
    ) -> Option<Ask> {
        // Asking happens under the same lock: no question can come in between.
        let mut keepers = self.keepers();
        let ask = asks.try_recv().ok();
        if ask.is_none() {
            keepers.remove(id);
        }
        ask
    }

    /// Asks the keeper of `id`, which is made if there is none.
    fn ask(self: &Arc<Self>, id: &str, ask: Ask) -> watch::Receiver<Option<Arc<Daemon>>> {
        let mut keepers = self.keepers();
        let live = keepers.get(id).filter(|handle| !handle.asks.is_closed());
        let handle = match live {
            Some(handle) => handle.clone(),
            None => {
                // A closed one is of a keeper that panicked: the record says where to go on.
                let phase = match self.journal.get(id) {
                    None => Phase::Idle,
                    Some(record) if record.value.removing => Phase::Remove,
                    Some(_) => Phase::Find,
                };
                let handle = self.spawn(id, phase, None);
                keepers.insert(id.to_owned(), handle.clone());
                handle
            }
        };
        // A keeper that ends drops the question, and its asker learns it.
        let _ = handle.asks.send(ask);
        handle.shown
    }

    /// Records a wish, and waits at most `settle` for the end of the start that it may need.
    pub(crate) async fn put(
        self: &Arc<Self>,
        put: Put,
        expected: Option<u64>,
        settle: Duration,
    ) -> Result<Arc<Daemon>, Refusal> {
        self.place(&put.id)?;
        let Put { id, owner, recipe } = put;
        let (reply, answer) = oneshot::channel();
        let ask = Ask::Put {
            owner,
            recipe,
            expected,
            reply,
        };
        let mut shown = self.ask(&id, ask);
        let daemon = answer.await.unwrap_or_else(|_| Err(cut_off(&id)))?;
        let settled = shown.wait_for(|daemon| {
            daemon
                .as_ref()
                .is_some_and(|daemon| daemon.state != State::Starting)
        });
        // Settled or not, the answer is how it is then.
        let _ = tokio::time::timeout(settle, settled).await.is_ok();
        Ok(shown.borrow().clone().unwrap_or(daemon))
    }

    /// Removes a daemon; returns when it is gone.
    pub(crate) async fn remove(self: &Arc<Self>, id: &str) -> Result<(), Refusal> {
        self.place(id)?;
        let (reply, answer) = oneshot::channel();
        self.ask(id, Ask::Remove { reply });
        answer.await.unwrap_or_else(|_| Err(cut_off(id)))
    }

    /// A daemon as it is.
    pub(crate) fn get(&self, id: &str) -> Option<Arc<Daemon>> {
        let shown = self.keepers().get(id)?.shown.borrow().clone();
        shown.filter(|daemon| daemon.state != State::Stopped)
    }

    /// All daemons, or those of an owner.
    pub(crate) fn list(&self, owner: Option<&str>) -> Vec<Arc<Daemon>> {
        let keepers = self.keepers();
        let shown = keepers
            .values()
            .filter_map(|handle| handle.shown.borrow().clone());
        shown
            .filter(|daemon| daemon.state != State::Stopped)
            .filter(|daemon| owner.is_none_or(|owner| owner == daemon.owner))
            .collect()
    }

    fn place(&self, id: &str) -> Result<(), Refusal> {
        let refused = |message| Refusal {
            code: code::PARAMS,
            message,
        };
        self.state.of(id).map(drop).map_err(refused)
    }

    /// No code under the lock can panic half-way.
    fn keepers(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn cut_off(id: &str) -> Refusal {
    Refusal {
        code: code::UNAVAILABLE,
        message: format!("daemon {id}: its keeper ended in the middle; ask again"),
    }
}
