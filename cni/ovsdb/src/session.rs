//! One connection in use: sends what handles ask, takes in what the server sends.

use crate::client::Status;
use crate::config::Remote;
use crate::driver::{Answer, Command, Job};
use crate::follow::{Method, Monitor, blocking};
use crate::schema::Schema;
use crate::server::{Seen, Server};
use jsonrpc::{Link, Message, Raw, RemoteError};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Why a session is over.
#[derive(Debug)]
pub(crate) enum End {
    /// All handles were dropped.
    Dropped,
    /// Connect again: to the next remote if `advance`, else to the same.
    Lost { reason: String, advance: bool },
}

impl End {
    #[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
    pub(crate) fn lost<R: ToString>(reason: R) -> Self {
        End::Lost {
            reason: reason.to_string(),
            advance: true,
        }
    }
}

/// What an answer is to be used for.
pub(crate) enum Pending {
    Transact(oneshot::Sender<Answer>),
    Monitor {
        id: u64,
        method: Method,
    },
    Condition {
        id: u64,
    },
    /// An echo or a monitor_cancel: that there is an answer is all.
    Nothing,
}

pub(crate) type Monitors = BTreeMap<u64, Monitor>;

pub(crate) struct Session {
    link: Link,
    remote: Remote,
    pub(crate) schema: Arc<Schema>,
    pub(crate) server: Server,
    /// The best way to ask for replicas that the server is known to have.
    pub(crate) method: Method,
    pending: HashMap<u64, Pending>,
    probe_interval: Duration,
    probed: Option<Instant>,
}

impl Session {
    pub(crate) fn new(
        link: Link,
        remote: Remote,
        schema: Arc<Schema>,
        server: Server,
        probe_interval: Duration,
    ) -> Self {
        Session {
            link,
            remote,
            schema,
            server,
            method: Method::CondSince,
            pending: HashMap::new(),
            probe_interval,
            probed: None,
        }
    }

    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    pub(crate) fn seen(&self) -> Seen {
        self.server.seen()
    }

    pub(crate) async fn run(
        &mut self,
        monitors: &mut Monitors,
        backlog: VecDeque<Job>,
        inbox: &mut UnboundedReceiver<Command>,
        status: &watch::Sender<Status>,
    ) -> End {
        let Err(end) = self.serve(monitors, backlog, inbox, status).await;
        let reason = match &end {
            End::Lost { reason, .. } => reason.as_str(),
            End::Dropped => "the client ended",
        };
        for (_, pending) in self.pending.drain() {
            if let Pending::Transact(reply) = pending {
                let _ = reply.send(Answer::Lost(format!("connection lost: {reason}")));
            }
        }
        match end {
            End::Lost { reason, advance } => End::Lost {
                reason: format!("{}: {reason}", self.remote),
                advance,
            },
            End::Dropped => End::Dropped,
        }
    }

    async fn serve(
        &mut self,
        monitors: &mut Monitors,
        backlog: VecDeque<Job>,
        inbox: &mut UnboundedReceiver<Command>,
        status: &watch::Sender<Status>,
    ) -> Result<std::convert::Infallible, End> {
        for monitor in monitors.values_mut() {
            self.ask(monitor)?;
        }
        for job in backlog {
            self.transact(job)?;
        }
        loop {
            let synced = monitors.values().all(Monitor::is_synced);
            status.send_if_modified(|s| std::mem::replace(&mut s.synced, synced) != synced);
            let next_probe = self.next_probe();
            tokio::select! {
                inbound = self.link.recv() => {
                    let inbound = inbound.map_err(End::lost)?;
                    let message = if inbound.is_large() {
                        blocking(move || inbound.parse()).await?
                    } else {
                        inbound.parse()
                    };
                    self.take(message.map_err(End::lost)?, monitors).await?;
                }
                command = inbox.recv() => {
                    self.command(command.ok_or(End::Dropped)?, monitors)?;
                }
                () = tokio::time::sleep_until(next_probe) => self.probe()?,
            }
        }
    }

    fn command(&mut self, command: Command, monitors: &mut Monitors) -> Result<(), End> {
        match command {
            Command::Transact(job) => self.transact(job),
            Command::Monitor(shared) => {
                let monitor = monitors.entry(shared.id).or_insert(Monitor::new(shared));
                self.ask(monitor)
            }
            Command::Condition(id) => match monitors.get_mut(&id) {
                Some(monitor) => self.ask_condition(monitor),
                None => Ok(()),
            },
            Command::Cancel(id) => match monitors.remove(&id) {
                Some(monitor) => {
                    self.request("monitor_cancel", &json!([monitor.name()]), Pending::Nothing)
                }
                None => Ok(()),
            },
        }
    }

    pub(crate) fn request<P: serde::Serialize + ?Sized>(
        &mut self,
        method: &str,
        params: &P,
        pending: Pending,
    ) -> Result<(), End> {
        let id = self
            .link
            .sender()
            .request(method, params)
            .map_err(End::lost)?;
        self.pending.insert(id, pending);
        Ok(())
    }

    fn transact(&mut self, job: Job) -> Result<(), End> {
        let Job {
            params,
            ticket,
            reply,
        } = job;
        if !ticket.send() {
            return Ok(());
        }
        self.request("transact", &*params, Pending::Transact(reply))
    }

    async fn take(&mut self, message: Message, monitors: &mut Monitors) -> Result<(), End> {
        match message {
            Message::Response { id, outcome } => {
                let Some(pending) = id.and_then(|id| self.pending.remove(&id)) else {
                    return Err(End::lost("an answer to nothing that was asked"));
                };
                self.take_answer(pending, outcome, monitors).await
            }
            Message::Notification { method, params } => match method.as_str() {
                "update" | "update2" | "update3" => self.take_update(params, monitors).await,
                "monitor_canceled" => {
                    let reason = "the server ended a monitor: the database was changed".to_owned();
                    Err(End::Lost {
                        reason,
                        advance: false,
                    })
                }
                _ => Ok(()),
            },
            Message::Request { id, method, .. } => {
                tracing::debug!(method, "refused the server's request");
                self.link
                    .sender()
                    .refuse(&id, "unknown method")
                    .map_err(End::lost)
            }
        }
    }

    async fn take_answer(
        &mut self,
        pending: Pending,
        outcome: Result<Raw, RemoteError>,
        monitors: &mut Monitors,
    ) -> Result<(), End> {
        match pending {
            Pending::Transact(reply) => {
                let answer = match outcome {
                    Ok(result) => Answer::Result(result, self.schema.clone()),
                    Err(error) => Answer::Refused(error),
                };
                // A caller that gave up has got its error already.
                let _ = reply.send(answer);
                Ok(())
            }
            Pending::Nothing => Ok(()),
            // A replica may be dropped while its answer is on the way.
            Pending::Condition { id } => match monitors.get_mut(&id) {
                Some(monitor) => self.take_condition(monitor, outcome),
                None => Ok(()),
            },
            Pending::Monitor { id, method } => match monitors.get_mut(&id) {
                Some(monitor) => self.take_contents(monitor, method, outcome).await,
                None => Ok(()),
            },
        }
    }

    fn next_probe(&self) -> Instant {
        self.probed
            .unwrap_or(Instant::now())
            .max(self.link.last_received())
            + self.probe_interval
    }

    /// The server was silent: ask it for a sign of life, once.
    fn probe(&mut self) -> Result<(), End> {
        let last = self.link.last_received();
        if last.elapsed() < self.probe_interval {
            self.probed = None;
            return Ok(());
        }
        match self.probed {
            Some(probed) if probed > last => {
                let silence = self.probe_interval;
                Err(End::lost(format!(
                    "no answer to an inactivity probe within {silence:?}"
                )))
            }
            _ => {
                self.probed = Some(Instant::now());
                self.request("echo", &Value::Array(Vec::new()), Pending::Nothing)
            }
        }
    }
}
