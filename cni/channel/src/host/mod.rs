//! The host's side: one session with its DPU, for ever, and the calls in it.
//!
//! [`keep`] (which DPU, how often) → [`dial`] (a connection, Hello) → [`session`] (full sets, heartbeats, the end) ; [`call`] and
//! [`attaching`] use the session that is there.

mod attaching;
mod call;
mod dial;
mod keep;
mod session;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use attaching::Attaching;
#[cfg(test)]
pub(crate) use dial::over;
use session::Session;

use crate::hello::Dialect;
use crate::metrics::HostMetrics;
use crate::proto::{Attachment, Epoch, SyncedAttachment, Trouble};

/// Which DPU serves this host, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pairing {
    /// The DPU's node, which its certificate must name.
    pub dpu: String,
    /// Of its channel.
    pub address: SocketAddr,
}

/// Who the host is.
pub struct LinkConfig {
    /// The host's node.
    pub node: String,
    /// Where `tls.key`, `tls.crt` and `ca.crt` lie, read anew for each connection.
    pub identity: PathBuf,
    /// Of the program, for people.
    pub release: &'static str,
    /// Of this process.
    pub epoch: Epoch,
    /// Everything that the host has attached or is about to: an attachment is in it from before its [`Link::attach`] on, and not any more
    /// when [`Link::detach`] is called or its [`Attaching`] is dropped. Must answer at once: async code calls it.
    pub set: Arc<dyn Fn() -> Vec<Attachment> + Send + Sync>,
    /// What keeps the host from serving an ADD, for the DPU to know.
    pub troubles: watch::Receiver<Vec<Trouble>>,
    /// What is counted.
    pub metrics: HostMetrics,
}

/// How it stands between the host and its DPU.
#[derive(Debug, Clone, PartialEq)]
pub enum LinkState {
    /// No `Dpu` object names this host.
    Unpaired,
    /// There is no session.
    Connecting {
        /// The DPU's node.
        dpu: String,
        /// Why not: object and cause.
        why: String,
    },
    /// The DPU answers, and has taken the full set.
    Up {
        /// The DPU's node.
        dpu: String,
        /// Of the DPU's process.
        epoch: Epoch,
        /// Of the DPU's program, for people.
        release: String,
        /// What both sides can do.
        features: Vec<String>,
        /// What keeps the DPU from serving an ADD.
        troubles: Vec<Trouble>,
    },
}

impl LinkState {
    /// Why no call can be made; none while one can.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        match self {
            Self::Unpaired => Some("no Dpu object names this host".to_owned()),
            Self::Connecting { dpu, why } => Some(format!("no session with DPU {dpu}: {why}")),
            Self::Up { .. } => None,
        }
    }
}

/// The host's end of the channel. Cheap to clone; ends with the token that it was started with.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

/// What the session and the calls share.
pub(crate) struct Shared {
    config: LinkConfig,
    dialect: Dialect,
    state: watch::Sender<LinkState>,
    /// While the link is up.
    session: watch::Sender<Option<Arc<Session>>>,
    synced: watch::Sender<Arc<Vec<SyncedAttachment>>>,
    again: Notify,
}

impl Link {
    /// Keeps a session with the DPU of `pairing` from now on. Call it within a tokio runtime.
    #[must_use]
    pub fn start(
        config: LinkConfig,
        pairing: watch::Receiver<Option<Pairing>>,
        stop: CancellationToken,
    ) -> Self {
        Self::speaking(config, Dialect::default(), pairing, stop)
    }

    pub(crate) fn speaking(
        config: LinkConfig,
        dialect: Dialect,
        pairing: watch::Receiver<Option<Pairing>>,
        stop: CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared {
            config,
            dialect,
            state: watch::Sender::new(LinkState::Unpaired),
            session: watch::Sender::new(None),
            synced: watch::Sender::new(Arc::default()),
            again: Notify::new(),
        });
        tokio::spawn(keep::keep(Arc::clone(&shared), pairing, stop));
        Self(shared)
    }

    /// How it stands; changes at once.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.0.state.subscribe()
    }

    /// What became of the latest full set.
    #[must_use]
    pub fn synced(&self) -> watch::Receiver<Arc<Vec<SyncedAttachment>>> {
        self.0.synced.subscribe()
    }

    /// Says the full set again, in the same session: soon, and once if it is called often. Nothing without a session, for the next one
    /// begins with the full set.
    pub fn sync_now(&self) {
        if self.0.session.borrow().is_some() {
            self.0.again.notify_one();
        }
    }
}
