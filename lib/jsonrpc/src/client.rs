//! Calls with answers, over a [`Link`].

use crate::{Dialect, Error, Inbound, Link, LinkError, Message, Options, Raw, RemoteError, Sender};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

type Answer = Result<Result<Raw, RemoteError>, LinkError>;

/// A cheap handle to a connection. When the last clone is dropped the connection is closed.
#[derive(Debug, Clone)]
pub struct Client {
    sender: Sender,
    pending: Arc<Mutex<Pending>>,
    _alive: Arc<watch::Sender<()>>,
}

#[derive(Debug, Default)]
struct Pending {
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    /// Set once the link has ended: later calls fail at once.
    ended: Option<LinkError>,
}

/// What the peer sends of its own accord.
#[derive(Debug)]
pub enum Call {
    /// To be answered by [`Client::reply`] or [`Client::refuse`].
    Request {
        /// The id to answer to.
        id: String,
        /// The method's name.
        method: String,
        /// Its parameters.
        params: Raw,
    },
    /// Needs no answer.
    Notification {
        /// The method's name.
        method: String,
        /// Its parameters.
        params: Raw,
    },
}

/// The peer's requests and notifications in order. May be dropped if they are of no interest.
#[derive(Debug)]
pub struct Incoming(UnboundedReceiver<Call>);

impl Incoming {
    /// The next one; `None` when the connection has ended.
    pub async fn recv(&mut self) -> Option<Call> {
        self.0.recv().await
    }
}

impl Client {
    /// Speaks `dialect` over `io` with the default [`Options`].
    pub fn start<IO>(io: IO, dialect: Dialect) -> (Client, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        Client::start_with(io, &Options::new(dialect))
    }

    /// Speaks over `io` as `options` say. Must be called in a tokio runtime.
    pub fn start_with<IO>(io: IO, options: &Options) -> (Client, Incoming)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let link = Link::open(io, options);
        let (calls, incoming) = unbounded_channel();
        let (alive, handles) = watch::channel(());
        let pending = Arc::new(Mutex::new(Pending::default()));
        let client = Client {
            sender: link.sender().clone(),
            pending: pending.clone(),
            _alive: Arc::new(alive),
        };
        tokio::spawn(dispatch(link, pending, calls, handles));
        (client, Incoming(incoming))
    }

    /// Calls `method` and waits for its result, at most until `deadline`. Dropping the future
    /// gives up waiting; it does not take the call back.
    ///
    /// # Errors
    /// See [`Error`]. After `Timeout`, and after `Closed` of a call that was sent, whether the
    /// call was carried out is unknown.
    pub async fn call<P, R>(&self, method: &str, params: P, deadline: Instant) -> Result<R, Error>
    where
        P: Serialize,
        R: DeserializeOwned,
    {
        let raw = self.call_raw(method, &params, deadline).await?;
        raw.decode().map_err(|source| Error::Decode {
            method: method.to_owned(),
            what: "result",
            source,
        })
    }

    async fn call_raw<P: Serialize>(
        &self,
        method: &str,
        params: &P,
        deadline: Instant,
    ) -> Result<Raw, Error> {
        let closed = |reason| Error::Closed {
            method: method.to_owned(),
            reason,
        };
        let (reply, answer) = oneshot::channel();
        let id = self.sender.reserve();
        {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(reason) = &pending.ended {
                return Err(closed(reason.clone()));
            }
            pending.calls.insert(id, reply);
        }
        let _forget = Forget {
            pending: &self.pending,
            id,
        };
        self.sender
            .request_as(id, method, params)
            .map_err(|source| Error::Decode {
                method: method.to_owned(),
                what: "parameters",
                source,
            })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Err(_) => Err(Error::Timeout {
                method: method.to_owned(),
            }),
            Ok(Err(_)) => Err(closed(LinkError::Dropped)),
            Ok(Ok(Err(reason))) => Err(closed(reason)),
            Ok(Ok(Ok(Err(error)))) => Err(Error::Remote {
                method: method.to_owned(),
                error,
            }),
            Ok(Ok(Ok(Ok(result)))) => Ok(result),
        }
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// `params` cannot be written as JSON.
    pub fn notify<P: Serialize>(&self, method: &str, params: &P) -> Result<(), serde_json::Error> {
        self.sender.notify(method, params)
    }

    /// Answers a [`Call::Request`].
    ///
    /// # Errors
    /// `result` cannot be written as JSON.
    pub fn reply<R: Serialize>(&self, id: &str, result: &R) -> Result<(), serde_json::Error> {
        self.sender.reply(id, result)
    }

    /// Answers a [`Call::Request`] with an error.
    ///
    /// # Errors
    /// `error` cannot be written as JSON.
    pub fn refuse<E: Serialize>(&self, id: &str, error: &E) -> Result<(), serde_json::Error> {
        self.sender.refuse(id, error)
    }
}

/// Takes the entry of a call that is no longer waited for out of the table.
struct Forget<'a> {
    pending: &'a Mutex<Pending>,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .calls
            .remove(&self.id);
    }
}

async fn dispatch(
    mut link: Link,
    pending: Arc<Mutex<Pending>>,
    calls: UnboundedSender<Call>,
    mut handles: watch::Receiver<()>,
) {
    let reason = loop {
        let received = tokio::select! {
            received = link.recv() => received,
            _ = handles.changed() => break LinkError::Dropped,
        };
        if let Err(reason) = received.and_then(|inbound| route(inbound, &pending, &calls)) {
            break reason;
        }
    };
    let waiting = {
        let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.ended = Some(reason.clone());
        std::mem::take(&mut pending.calls)
    };
    for (_, reply) in waiting {
        let _ = reply.send(Err(reason.clone()));
    }
}

fn route(
    inbound: Inbound,
    pending: &Mutex<Pending>,
    calls: &UnboundedSender<Call>,
) -> Result<(), LinkError> {
    match inbound.parse()? {
        Message::Response { id, outcome } => {
            let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
            match id.and_then(|id| pending.calls.remove(&id)) {
                // A caller that gave up is not told.
                Some(reply) => drop(reply.send(Ok(outcome))),
                None => tracing::debug!(?id, "answer that nobody waits for"),
            }
        }
        Message::Request { id, method, params } => {
            drop(calls.send(Call::Request { id, method, params }));
        }
        Message::Notification { method, params } => {
            drop(calls.send(Call::Notification { method, params }));
        }
    }
    Ok(())
}
