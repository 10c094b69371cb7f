//! The handle that programs hold.

use crate::config::{Config, Remote};
use crate::driver::{Answer, Command, Driver, Job, Ticket};
use crate::error::{Refusal, RefusalKind, TransactError};
use crate::monitor::MonitorSpec;
use crate::outcome::{self, Failure, Outcome};
use crate::replica::{Replica, Shared};
use crate::schema::Schema;
use crate::transaction::{Op, Transaction};
use serde::ser::{Serialize, SerializeSeq, Serializer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// A connection to one database, which renews itself. A cheap handle; the connection ends when
/// the last clone, and the last [`Replica`] of it, is dropped.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    database: String,
    commands: UnboundedSender<Command>,
    status: watch::Receiver<Status>,
    schema: watch::Receiver<Option<Arc<Schema>>>,
    next_replica: AtomicU64,
}

/// How a client is doing.
#[derive(Debug, Clone)]
pub struct Status {
    /// Whether there is a server that serves the database as the [`Config`] wants it.
    pub connected: bool,
    /// Whether it is connected and all replicas have caught up.
    pub synced: bool,
    /// That server.
    pub remote: Option<Remote>,
    /// Why the last connection ended or could not be made.
    pub last_error: Option<String>,
    /// Since when `connected` is what it is.
    pub since: Instant,
}

impl Client {
    /// Starts connecting and goes on until the last handle is dropped. Must be called in a tokio
    /// runtime.
    pub fn start(config: Config) -> Client {
        let (commands, inbox) = unbounded_channel();
        let (status, schema) = (Status::new(), None);
        let (status_sender, status) = watch::channel(status);
        let (schema_sender, schema) = watch::channel(schema);
        let database = config.database.clone();
        tokio::spawn(Driver::new(config, inbox, status_sender, schema_sender).run());
        let next_replica = AtomicU64::new(0);
        Client(Arc::new(Inner {
            database,
            commands,
            status,
            schema,
            next_replica,
        }))
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        &self.0.database
    }

    /// How it is doing, to be looked at and awaited.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.0.status.clone()
    }

    /// The database's schema; waits for the first connection.
    pub async fn schema(&self) -> Arc<Schema> {
        let mut schema = self.0.schema.clone();
        loop {
            if let Some(schema) = schema.borrow_and_update().as_ref() {
                return schema.clone();
            }
            if schema.changed().await.is_err() {
                // The runtime is shutting down, and this task with it.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Carries a transaction out. It waits for a connection if there is none. It is sent once, if
    /// at all; dropping the future before that takes it back.
    ///
    /// # Errors
    /// See [`TransactError`]. At the deadline the error is `NotConnected` if the transaction was
    /// not sent, else `Unknown`.
    pub async fn transact(
        &self,
        transaction: Transaction,
        deadline: Instant,
    ) -> Result<Outcome, TransactError> {
        let ops: Arc<[Op]> = transaction.ops.into();
        let params = Params {
            database: &self.0.database,
            ops: &ops,
        };
        let params = serde_json::value::to_raw_value(&params)
            .map_err(|error| self.refused("syntax error", &error.to_string()))?;
        let ticket = Ticket::new();
        let (reply, answer) = oneshot::channel();
        // Dropped with this future: what was not sent until then never will be.
        let revoke = ticket.revoke_on_drop();
        self.send(Command::Transact(Job {
            params,
            ticket: ticket.clone(),
            reply,
        }));
        let answer = match tokio::time::timeout_at(deadline, answer).await {
            Ok(answer) => answer.unwrap_or(Answer::Lost("the client ended".into())),
            Err(_) => Answer::Lost("no answer before the deadline".into()),
        };
        drop(revoke);
        match answer {
            Answer::Result(result, schema) => match outcome::read(result.get(), &ops, &schema) {
                Ok(outcome) => Ok(outcome),
                Err(Failure::Refused(refusal)) => Err(TransactError::Refused {
                    database: self.0.database.clone(),
                    refusal: Box::new(refusal),
                }),
                Err(Failure::Unknown(reason)) => Err(self.unknown(reason)),
            },
            // The server gives a transaction up when it drops the database or the client (RFC
            // 7047 §4.1.4); by then the cluster may have it.
            Answer::Refused(error) if error.message.starts_with("canceled") => {
                Err(self.unknown(error.message))
            }
            Answer::Refused(error) => Err(self.refused(&error.message, "")),
            Answer::Lost(reason) if ticket.was_sent() => Err(self.unknown(reason)),
            Answer::Lost(reason) => {
                let status = self.0.status.borrow();
                let error = status.last_error.clone().filter(|_| !status.connected);
                Err(TransactError::NotConnected {
                    database: self.0.database.clone(),
                    reason: error.unwrap_or(reason),
                })
            }
        }
    }

    /// Starts a replica; it fills itself as soon as there is a connection, and resumes after each
    /// reconnect.
    pub fn monitor(&self, spec: MonitorSpec) -> Replica {
        let id = self.0.next_replica.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared::new(id, spec));
        self.send(Command::Monitor(shared.clone()));
        Replica::new(self.clone(), shared)
    }

    pub(crate) fn send(&self, command: Command) {
        // The driver lives as long as a handle does, unless the runtime is shutting down.
        let _ = self.0.commands.send(command);
    }

    fn unknown(&self, reason: String) -> TransactError {
        TransactError::Unknown {
            database: self.0.database.clone(),
            reason,
        }
    }

    fn refused(&self, error: &str, details: &str) -> TransactError {
        let refusal = Refusal {
            op: None,
            table: None,
            kind: RefusalKind::of(error),
            error: error.to_owned(),
            details: details.to_owned(),
        };
        TransactError::Refused {
            database: self.0.database.clone(),
            refusal: Box::new(refusal),
        }
    }
}

impl Status {
    fn new() -> Self {
        Status {
            connected: false,
            synced: false,
            remote: None,
            last_error: None,
            since: Instant::now(),
        }
    }
}

/// `[<db-name>, <operation>*]`
struct Params<'a> {
    database: &'a str,
    ops: &'a [Op],
}

impl Serialize for Params<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.ops.len() + 1))?;
        seq.serialize_element(self.database)?;
        for op in self.ops {
            seq.serialize_element(op)?;
        }
        seq.end()
    }
}
