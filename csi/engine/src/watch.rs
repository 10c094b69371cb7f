//! What happens to daemons, as it happens.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonrpc::{Call, Client as Peer, Incoming};

use crate::client::subscribe;
use crate::wire::Daemon;

/// How long the engine may take for the first answer.
const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// All daemons and their changes. It connects again by itself.
#[derive(Debug)]
pub struct Watch {
    socket: Arc<PathBuf>,
    link: Option<(Peer, Incoming)>,
}

/// What a [`Watch`] tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// All daemons, at first and whenever changes may have been missed.
    All(Vec<Daemon>),
    /// One daemon that changed; [`State::Stopped`](crate::State::Stopped) if it was removed.
    One(Box<Daemon>),
}

impl Watch {
    pub(crate) fn new(socket: Arc<PathBuf>) -> Self {
        Watch { socket, link: None }
    }

    /// The next change; waits for the engine as long as it takes. Cancel safe.
    pub async fn next(&mut self) -> Change {
        let mut pause = Duration::from_millis(20);
        loop {
            if let Some((_, incoming)) = &mut self.link {
                match incoming.recv().await {
                    Some(Call::Notification { method, params }) if method == "changed" => {
                        match params.decode() {
                            Ok(daemon) => return Change::One(Box::new(daemon)),
                            Err(why) => {
                                tracing::warn!("a change of the engine's can't be read: {why}");
                            }
                        }
                    }
                    // "lost", or the end of the connection: begin anew.
                    _ => self.link = None,
                }
                continue;
            }
            match subscribe(&self.socket, PATIENCE).await {
                Ok((peer, incoming, daemons)) => {
                    self.link = Some((peer, incoming));
                    return Change::All(daemons);
                }
                Err(why) => {
                    tracing::debug!(socket = %self.socket.display(), "engine not reached: {why}");
                    tokio::time::sleep(pause).await;
                    pause = (2 * pause).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
