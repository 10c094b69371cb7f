//! The engine as its clients see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jsonrpc::{Client as Peer, Dialect, Error as RpcError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::Watch;
use crate::wire::{Daemon, IdParams, Info, ListParams, NoParams, Put, PutParams, code};

/// The first pause after an engine that did not answer; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// What is left of a deadline for the answer itself.
const MARGIN: Duration = Duration::from_millis(200);

/// A handle to the engine: cheap to clone, connects when it is used, and again when the engine was restarted. Every call
/// may be repeated safely, and is until its deadline while the engine does not answer.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<PathBuf>,
    peer: Arc<Mutex<Option<Peer>>>,
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No answer before the deadline. Whether the call was carried out is unknown: ask again.
    #[error("engine {}: no answer before the deadline ({why}); is outboard-engine running?", .socket.display())]
    Unreachable {
        /// The engine's socket.
        socket: PathBuf,
        /// What happened last.
        why: String,
    },
    /// The engine can't at present; try again later.
    #[error("engine: {0}")]
    Unavailable(String),
    /// The id belongs to another owner.
    #[error("engine: {0}")]
    Owned(String),
    /// The recipe is not the one that was read: read it again.
    #[error("engine: {0}")]
    Conflict(String),
    /// The call is wrong, or the engine is of another release.
    #[error("engine: {0}")]
    Invalid(String),
}

impl Client {
    /// The engine at this socket. Nothing is sent yet.
    #[must_use]
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Client {
            socket: Arc::new(socket.into()),
            peer: Arc::default(),
        }
    }

    /// The engine's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Makes sure that there is a daemon with this recipe, and waits for the end of its start. If there is one with
    /// another recipe, the recipe is replaced and the daemon is not touched: change it by its monitor afterwards, unless
    /// [`Daemon::applied`] says that it was started with the new one already.
    ///
    /// # Errors
    /// See [`Error`]. A start that fails is none: look at [`Daemon::state`].
    pub async fn put(&self, put: &Put, deadline: Instant) -> Result<Daemon, Error> {
        self.put_expecting(put, None, deadline).await
    }

    /// The same, if the recipe still is that of a revision, from which this one was made; 0: if there is none. Several who keep
    /// parts of a recipe change it so.
    ///
    /// # Errors
    /// [`Error::Conflict`]: somebody else was faster. See [`Error`] for others.
    pub async fn put_if(
        &self,
        put: &Put,
        revision: u64,
        deadline: Instant,
    ) -> Result<Daemon, Error> {
        self.put_expecting(put, Some(revision), deadline).await
    }

    async fn put_expecting(
        &self,
        put: &Put,
        expected: Option<u64>,
        deadline: Instant,
    ) -> Result<Daemon, Error> {
        let params = || {
            let left = deadline.saturating_duration_since(Instant::now() + MARGIN);
            PutParams {
                put: put.clone(),
                settle_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
                expected,
            }
        };
        self.call("put", params, deadline).await
    }

    /// Ends a daemon and forgets its recipe; returns when both are gone. Of an unknown id there is nothing to do.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn remove(&self, id: &str, deadline: Instant) -> Result<(), Error> {
        self.call("remove", || IdParams { id: id.to_owned() }, deadline)
            .await
    }

    /// A daemon; `None` if there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, id: &str, deadline: Instant) -> Result<Option<Daemon>, Error> {
        self.call("get", || IdParams { id: id.to_owned() }, deadline)
            .await
    }

    /// All daemons, or those of one owner, by id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self, owner: Option<&str>, deadline: Instant) -> Result<Vec<Daemon>, Error> {
        let params = || ListParams {
            owner: owner.map(str::to_owned),
        };
        self.call("list", params, deadline).await
    }

    /// What the engine says of itself.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn info(&self, deadline: Instant) -> Result<Info, Error> {
        self.call("info", || NoParams {}, deadline).await
    }

    /// All daemons and their changes, on a connection of its own.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch::new(Arc::clone(&self.socket))
    }

    async fn call<P, R>(
        &self,
        method: &str,
        params: impl Fn() -> P,
        deadline: Instant,
    ) -> Result<R, Error>
    where
        P: Serialize,
        R: DeserializeOwned,
    {
        let mut pause = PAUSE;
        loop {
            let why = match self.peer().await {
                Ok(peer) => match peer.call(method, params(), deadline).await {
                    Ok(result) => return Ok(result),
                    Err(RpcError::Remote { error, .. }) => {
                        return Err(match error.code {
                            Some(code::OWNED) => Error::Owned(error.message),
                            Some(code::UNAVAILABLE) => Error::Unavailable(error.message),
                            Some(code::CONFLICT) => Error::Conflict(error.message),
                            _ => Error::Invalid(error.message),
                        });
                    }
                    Err(why @ RpcError::Decode { .. }) => {
                        return Err(Error::Invalid(format!(
                            "{why}; the engine and its client must be of one release"
                        )));
                    }
                    Err(why) => {
                        self.forget();
                        why.to_string()
                    }
                },
                Err(why) => why.to_string(),
            };
            if Instant::now() + pause >= deadline {
                let socket = self.socket.to_path_buf();
                return Err(Error::Unreachable { socket, why });
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn peer(&self) -> std::io::Result<Peer> {
        if let Some(peer) = self.held().clone() {
            return Ok(peer);
        }
        let stream = UnixStream::connect(&*self.socket).await?;
        let (peer, _) = Peer::start(stream, Dialect::V2);
        *self.held() = Some(peer.clone());
        Ok(peer)
    }

    fn forget(&self) {
        *self.held() = None;
    }

    /// No code under the lock can panic half-way.
    fn held(&self) -> std::sync::MutexGuard<'_, Option<Peer>> {
        self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects and asks for everything; the answer and the notifications to come.
pub(crate) async fn subscribe(
    socket: &Path,
    patience: Duration,
) -> Result<(Peer, jsonrpc::Incoming, Vec<Daemon>), String> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|why| why.to_string())?;
    let (peer, incoming) = Peer::start(stream, Dialect::V2);
    let daemons = peer
        .call("watch", json!({}), Instant::now() + patience)
        .await;
    Ok((peer, incoming, daemons.map_err(|why| why.to_string())?))
}
