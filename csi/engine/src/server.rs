//! The engine's socket.

use std::sync::Arc;
use std::time::Duration;

use daemon::socket::Socket;
use jsonrpc::{Call, Client as Peer, Dialect, Raw};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

use crate::registry::Engine;
use crate::wire::{IdParams, Info, ListParams, NoParams, PutParams, Refusal, code};

/// The longest that an answer waits for a start.
const SETTLE: Duration = Duration::from_secs(300);
/// Time for answers under way when the program is told to end.
const GRACE: Duration = Duration::from_secs(2);

/// Serves until told to stop.
pub(crate) async fn run(engine: Arc<Engine>, info: Info, socket: Socket, stop: CancellationToken) {
    let info = Arc::new(info);
    let tasks = tokio_util::task::TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let server = Server {
                    engine: Arc::clone(&engine),
                    info: Arc::clone(&info),
                    tasks: tasks.clone(),
                };
                tokio::spawn(server.connection(stream));
            }
            Err(why) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!("cannot accept a connection on the engine's socket: {why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    // What is cut off is recorded, and goes on after the next start.
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

#[derive(Clone)]
struct Server {
    engine: Arc<Engine>,
    info: Arc<Info>,
    tasks: tokio_util::task::TaskTracker,
}

impl Server {
    async fn connection(self, stream: UnixStream) {
        let us = nix::unistd::geteuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == us || peer.uid() == 0 => {}
            Ok(peer) => return tracing::warn!("user {} is no client of the engine", peer.uid()),
            Err(why) => return tracing::warn!("the engine's client cannot be told: {why}"),
        }
        let (peer, mut incoming) = Peer::start(stream, Dialect::V2);
        while let Some(call) = incoming.recv().await {
            match call {
                Call::Request { id, method, params } => {
                    let (server, peer) = (self.clone(), peer.clone());
                    let tasks = self.tasks.clone();
                    tasks.spawn(async move { server.request(&peer, &id, &method, &params).await });
                }
                Call::Notification { method, .. } => {
                    tracing::debug!(method, "a notification is ignored");
                }
            }
        }
    }

    async fn request(&self, peer: &Peer, id: &str, method: &str, params: &Raw) {
        let started = Instant::now();
        let (method, done) = self.dispatch(peer, method, params).await;
        let refused = done.is_err();
        self.engine
            .metrics
            .request(method, refused, started.elapsed());
        let sent = match &done {
            Ok(result) => peer.reply(id, result),
            Err(refusal) => {
                tracing::warn!(method, "refused: {}", refusal.message);
                peer.refuse(id, refusal)
            }
        };
        if let Err(why) = sent {
            tracing::error!(method, "the answer can't be written: {why}");
        }
    }

    async fn dispatch(
        &self,
        peer: &Peer,
        method: &str,
        params: &Raw,
    ) -> (&'static str, Result<Value, Refusal>) {
        match method {
            "put" => ("put", self.put(params).await),
            "remove" => ("remove", self.remove(params).await),
            "get" => ("get", self.get(params)),
            "list" => ("list", self.list(params)),
            "watch" => ("watch", self.watch(peer, params)),
            "info" => {
                let info = decode::<NoParams>(params).and_then(|NoParams {}| encode(&*self.info));
                ("info", info)
            }
            other => {
                let refusal = Refusal {
                    code: code::METHOD,
                    message: format!(
                        "there is no method {other:?}: put, remove, get, list, watch, info"
                    ),
                };
                ("unknown", Err(refusal))
            }
        }
    }

    async fn put(&self, params: &Raw) -> Result<Value, Refusal> {
        let PutParams {
            put,
            settle_ms,
            expected,
        } = decode(params)?;
        let span = info_span!("put", id = put.id, owner = put.owner);
        let settle = Duration::from_millis(settle_ms).min(SETTLE);
        encode(
            &*self
                .engine
                .put(put, expected, settle)
                .instrument(span)
                .await?,
        )
    }

    async fn remove(&self, params: &Raw) -> Result<Value, Refusal> {
        let IdParams { id } = decode(params)?;
        self.engine.remove(&id).await?;
        Ok(Value::Null)
    }

    fn get(&self, params: &Raw) -> Result<Value, Refusal> {
        let IdParams { id } = decode(params)?;
        encode(&self.engine.get(&id).as_deref())
    }

    fn list(&self, params: &Raw) -> Result<Value, Refusal> {
        let ListParams { owner } = decode(params)?;
        let daemons = self.engine.list(owner.as_deref());
        encode(&daemons.iter().map(|daemon| &**daemon).collect::<Vec<_>>())
    }

    /// Subscribes before it reads: a change may be told twice, but none is missed.
    fn watch(&self, peer: &Peer, params: &Raw) -> Result<Value, Refusal> {
        let NoParams {} = decode(params)?;
        let mut changes = self.engine.changes.subscribe();
        let daemons = self.engine.list(None);
        let list = encode(&daemons.iter().map(|daemon| &**daemon).collect::<Vec<_>>())?;
        let peer = peer.clone();
        tokio::spawn(async move {
            loop {
                match changes.recv().await {
                    // Fails when the connection has ended.
                    Ok(daemon) => {
                        if peer.notify("changed", &*daemon).is_err() {
                            return;
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!(missed, "a watcher is too slow: it must begin anew");
                        drop(peer.notify("lost", &missed));
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        });
        Ok(list)
    }
}

fn decode<T: DeserializeOwned>(params: &Raw) -> Result<T, Refusal> {
    params.decode().map_err(|why| Refusal {
        code: code::PARAMS,
        message: format!("the parameters are not of the expected form: {why}"),
    })
}

fn encode<T: Serialize>(value: &T) -> Result<Value, Refusal> {
    serde_json::to_value(value).map_err(|why| Refusal {
        code: code::UNAVAILABLE,
        message: format!("the answer can't be written: {why}"),
    })
}
