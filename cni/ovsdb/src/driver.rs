//! Keeps a session up: connects, runs it, and connects again.

use crate::client::Status;
use crate::config::Config;
use crate::connect;
use crate::follow::Monitor;
use crate::replica::Shared;
use crate::schema::Schema;
use crate::server::Seen;
use crate::session::{End, Session};
use jsonrpc::Raw;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// What handles ask of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Transact(Job),
    Monitor(Arc<Shared>),
    /// The conditions of a replica changed.
    Condition(u64),
    /// A replica's last handle was dropped.
    Cancel(u64),
}

/// A transaction on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) params: Box<RawValue>,
    pub(crate) ticket: Ticket,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// What became of a [`Job`].
#[derive(Debug)]
pub(crate) enum Answer {
    Result(Raw, Arc<Schema>),
    Refused(jsonrpc::RemoteError),
    Lost(String),
}

/// Settles between caller and driver whether a transaction was sent: exactly one of the two moves
/// it from waiting to sent or to revoked.
#[derive(Debug, Clone)]
pub(crate) struct Ticket(Arc<AtomicU8>);

const WAITING: u8 = 0;
const SENT: u8 = 1;
const REVOKED: u8 = 2;

pub(crate) struct Revoke(Ticket);

impl Drop for Revoke {
    fn drop(&mut self) {
        self.0.settle(REVOKED);
    }
}

impl Ticket {
    pub(crate) fn new() -> Self {
        Ticket(Arc::new(AtomicU8::new(WAITING)))
    }

    pub(crate) fn revoke_on_drop(&self) -> Revoke {
        Revoke(self.clone())
    }

    pub(crate) fn was_sent(&self) -> bool {
        self.0.load(Ordering::Acquire) == SENT
    }

    /// True if the transaction may be sent: the caller still wants it.
    pub(crate) fn send(&self) -> bool {
        self.settle(SENT)
    }

    fn settle(&self, state: u8) -> bool {
        self.0
            .compare_exchange(WAITING, state, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn is_revoked(&self) -> bool {
        self.0.load(Ordering::Acquire) == REVOKED
    }
}

/// The pause after the first failed round; it doubles from there.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Driver {
    config: Config,
    inbox: UnboundedReceiver<Command>,
    status: watch::Sender<Status>,
    schema: watch::Sender<Option<Arc<Schema>>>,
    monitors: BTreeMap<u64, Monitor>,
    /// Transactions that wait for a session.
    backlog: VecDeque<Job>,
    /// The remote to try next.
    next: usize,
    /// Attempts that failed since a session last held.
    failures: u32,
    /// The cluster's newest state that was seen: members that are behind it are passed over.
    seen: Seen,
}

impl Driver {
    pub(crate) fn new(
        config: Config,
        inbox: UnboundedReceiver<Command>,
        status: watch::Sender<Status>,
        schema: watch::Sender<Option<Arc<Schema>>>,
    ) -> Self {
        Driver {
            config,
            inbox,
            status,
            schema,
            monitors: BTreeMap::new(),
            backlog: VecDeque::new(),
            next: 0,
            failures: 0,
            seen: Seen::default(),
        }
    }

    /// Runs until all handles are dropped.
    pub(crate) async fn run(mut self) {
        loop {
            let Some(connected) = self.connect().await else {
                return;
            };
            let (reason, advance) = match connected {
                Err(reason) => (reason, true),
                Ok(session) => match self.serve(session).await {
                    End::Dropped => return,
                    End::Lost { reason, advance } => (reason, advance),
                },
            };
            self.failures = self.failures.saturating_add(1);
            self.disconnected(reason);
            if advance {
                self.next = (self.next + 1) % self.config.remotes.len().max(1);
            }
            if self.pause().await.is_none() {
                return;
            }
        }
    }

    /// `None` when all handles were dropped.
    async fn connect(&mut self) -> Option<Result<Session, String>> {
        let config = self.config.clone();
        let Some(remote) = config.remotes.get(self.next).cloned() else {
            return Some(Err(format!(
                "no remotes are configured for {}",
                config.database
            )));
        };
        let seen = self.seen.clone();
        let attempt = async {
            let link = connect::open(&config, &remote);
            let link = bounded(config.connect_timeout, link).await?;
            // A server that composes a large reply for somebody else answers nobody meanwhile.
            let patience = config.connect_timeout.max(config.probe_interval * 2);
            bounded(patience, connect::establish(link, &config, &remote, seen)).await
        };
        let attempt = async { attempt.await.map_err(|error| format!("{remote}: {error}")) };
        self.meanwhile(attempt).await
    }

    /// Pauses after a round of failures; only a moment, by chance, after the first of a round.
    async fn pause(&mut self) -> Option<()> {
        let remotes = u32::try_from(self.config.remotes.len().max(1)).unwrap_or(u32::MAX);
        let round = self.failures / remotes;
        let full = if round == 0 {
            FIRST_PAUSE / 4
        } else {
            let doubled = FIRST_PAUSE.saturating_mul(1 << (round - 1).min(16));
            doubled.min(self.config.max_backoff)
        };
        let pause = full.mul_f64(rand::random_range(0.5..=1.0));
        self.meanwhile(tokio::time::sleep(pause)).await
    }

    /// Takes in what handles ask while something else is awaited; `None` when all were dropped.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                command = self.inbox.recv() => match command? {
                    Command::Transact(job) => {
                        while self.backlog.front().is_some_and(|job| job.ticket.is_revoked()) {
                            self.backlog.pop_front();
                        }
                        self.backlog.push_back(job);
                    }
                    Command::Monitor(shared) => {
                        self.monitors.insert(shared.id, Monitor::new(shared));
                    }
                    // The next session asks for the rows with the conditions of then.
                    Command::Condition(_) => {}
                    Command::Cancel(id) => {
                        self.monitors.remove(&id);
                    }
                },
            }
        }
    }

    async fn serve(&mut self, mut session: Session) -> End {
        let started = Instant::now();
        let remote = session.remote().clone();
        tracing::info!(database = self.config.database, %remote, "connected");
        self.schema.send_replace(Some(session.schema().clone()));
        self.status.send_modify(|status| {
            status.connected = true;
            status.remote = Some(remote);
            status.since = started;
        });
        let backlog = std::mem::take(&mut self.backlog);
        let end = session
            .run(&mut self.monitors, backlog, &mut self.inbox, &self.status)
            .await;
        self.seen = session.seen();
        // A session that held is not a failure that makes the pauses longer.
        if started.elapsed() > self.config.max_backoff {
            self.failures = 0;
        }
        end
    }

    fn disconnected(&mut self, reason: String) {
        let database = &self.config.database;
        let held = self.status.borrow().connected;
        if held {
            tracing::warn!(database, reason, "disconnected");
        } else if self.status.borrow().last_error.as_deref() != Some(&reason) {
            tracing::warn!(database, reason, "cannot connect");
        } else {
            tracing::debug!(database, reason, "cannot connect");
        }
        for monitor in self.monitors.values_mut() {
            monitor.disconnected();
        }
        self.status.send_modify(|status| {
            if held {
                status.since = Instant::now();
            }
            status.connected = false;
            status.synced = false;
            status.remote = None;
            status.last_error = Some(reason);
        });
    }
}

async fn bounded<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = |_| format!("no answer within {limit:?}");
    tokio::time::timeout(limit, work).await.map_err(late)?
}
