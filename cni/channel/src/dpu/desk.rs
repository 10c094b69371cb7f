//! Who is served, and which session counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use mtls::Peer;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status};

use super::refusal::Refusals;
use super::{HostState, Ports};
use crate::Failure;
use crate::code::{REFUSED, TRY_AGAIN_LATER};
use crate::hello::Dialect;
use crate::metrics::DpuMetrics;
use crate::proto::{Epoch, Hello, Reason};

/// A host has 250 pods, and each may be asked for twice at once; who has more than this under way is not in its senses.
pub(crate) const CALLS: usize = 512;

/// What all connections share.
pub(crate) struct Desk {
    pub(crate) node: String,
    pub(crate) dialect: Dialect,
    pub(crate) release: &'static str,
    pub(crate) epoch: Epoch,
    pub(crate) ports: Arc<dyn Ports>,
    pub(crate) refusals: Refusals,
    pub(crate) metrics: DpuMetrics,
    host: watch::Receiver<Option<String>>,
    seen: watch::Sender<HostState>,
    current: Mutex<Option<Arc<Current>>>,
    /// One full set at a time, whichever session's.
    pub(crate) syncing: tokio::sync::Mutex<()>,
    /// Sessions and full sets.
    pub(crate) tasks: TaskTracker,
}

/// A session.
pub(crate) struct Current {
    pub(crate) id: String,
    pub(crate) host: String,
    pub(crate) peer: Peer,
    pub(crate) ended: CancellationToken,
    why: Mutex<String>,
    /// Those of this session that are under way.
    pub(crate) calls: TaskTracker,
    pub(crate) room: Arc<Semaphore>,
    /// Calls of former sessions that had not ended when this one began.
    pub(crate) former: Vec<TaskTracker>,
}

impl Current {
    /// The first reason counts.
    pub(crate) fn end(&self, why: String) {
        let mut known = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.ended.is_cancelled() {
            *known = why;
            self.ended.cancel();
            self.calls.close();
        }
    }

    /// For who still waits for something of it.
    pub(crate) fn gone(&self) -> Failure {
        let remedy = "the host's cni-node begins a session and asks again";
        Failure::new(Reason::NoSession, TRY_AGAIN_LATER, self.why(), remedy)
    }

    pub(crate) fn why(&self) -> String {
        self.why
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What [`Desk::new`] takes from the server's description.
pub(crate) struct Parts {
    pub(crate) host: watch::Receiver<Option<String>>,
    pub(crate) seen: watch::Sender<HostState>,
    pub(crate) refusals: Refusals,
    pub(crate) metrics: DpuMetrics,
    pub(crate) ports: Arc<dyn Ports>,
}

impl Desk {
    pub(crate) fn new(
        node: String,
        dialect: Dialect,
        release: &'static str,
        epoch: Epoch,
        parts: Parts,
    ) -> Self {
        Self {
            node,
            dialect,
            release,
            epoch,
            ports: parts.ports,
            refusals: parts.refusals,
            metrics: parts.metrics,
            host: parts.host,
            seen: parts.seen,
            current: Mutex::default(),
            syncing: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Is this the host that is served?
    #[allow(clippy::result_large_err, reason = "an answer")]
    pub(crate) fn host(&self, peer: &Peer) -> Result<String, Status> {
        let node = &self.node;
        let Some(host) = self.host.borrow().clone() else {
            let cause = format!("no Dpu object pairs DPU {node} with a host");
            return Err(self.denied("unpaired", peer, cause, Code::FailedPrecondition));
        };
        if peer.node() == Some(&*host) {
            return Ok(host);
        }
        let cause = format!("DPU {node} serves host {host}, not {}", name(peer));
        Err(self.denied("other_host", peer, cause, Code::PermissionDenied))
    }

    fn denied(&self, reason: &'static str, peer: &Peer, cause: String, code: Code) -> Status {
        self.refusals.refuse(reason, name(peer), cause.clone());
        let code_of_cni = match code {
            Code::PermissionDenied => REFUSED,
            _ => TRY_AGAIN_LATER,
        };
        let remedy = "name the host in the Dpu object of this DPU, if it is the right one";
        Failure::new(Reason::NoSession, code_of_cni, cause, remedy).status(code)
    }

    /// May be asked at any time; true as long as nothing changes.
    pub(crate) fn paired(&self, peer: &Peer) -> bool {
        peer.node().is_some() && self.host.borrow().as_deref() == peer.node()
    }

    /// Begins a session, and ends the one before.
    #[allow(clippy::result_large_err, reason = "an answer")]
    pub(crate) fn begin(&self, peer: &Peer, hello: &Hello) -> Result<Arc<Current>, Status> {
        let mut current = self.current();
        // Under the lock, as the end of sessions of hosts that are not served any more.
        let host = self.host(peer)?;
        let mut former = Vec::new();
        if let Some(old) = current.take() {
            self.suspect(&old, peer);
            old.end(format!("host {host} has begun a newer session"));
            former.extend(old.former.iter().filter(|calls| !calls.is_empty()).cloned());
            former.push(old.calls.clone());
        }
        let new = Arc::new(Current {
            id: uuid::Uuid::new_v4().to_string(),
            host: host.clone(),
            peer: peer.clone(),
            ended: CancellationToken::new(),
            why: Mutex::default(),
            calls: TaskTracker::new(),
            room: Arc::new(Semaphore::new(CALLS)),
            former,
        });
        *current = Some(Arc::clone(&new));
        self.metrics.session();
        self.metrics.up(true);
        self.seen.send_modify(|seen| {
            let same = seen.host.as_ref() == Some(&host);
            seen.sessions = if same { seen.sessions + 1 } else { 1 };
            if !seen.alive || !same {
                seen.since = SystemTime::now();
            }
            seen.host = Some(host);
            seen.alive = true;
            seen.why = String::new();
            seen.epoch = hello.epoch.clone();
            seen.release = hello.release.clone();
            seen.troubles = Vec::new();
        });
        Ok(new)
    }

    /// A host that begins anew has lost its former session. One that has not, and is elsewhere, may be somebody with its certificate.
    fn suspect(&self, old: &Current, peer: &Peer) {
        let place = |peer: &Peer| peer.address().map(|address| address.ip());
        let (then, now) = (place(&old.peer), place(peer));
        if !old.ended.is_cancelled()
            && then != now
            && let (Some(then), Some(now)) = (then, now)
        {
            let host = &old.host;
            let sentence = format!(
                "host {host} began a session at {now} while that at {then} was alive: if it was not moved, its certificate is stolen"
            );
            self.refusals.refuse("two_places", host.clone(), sentence);
        }
    }

    /// A session has ended, for whatever reason.
    pub(crate) fn over(&self, session: &Arc<Current>) {
        let current = self.current();
        if !current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, session))
        {
            return;
        }
        // It stays here, ended: the session that comes next waits for its calls.
        if !session.ended.is_cancelled() {
            session.end("it has ended".to_owned());
        }
        self.lost(session.why());
    }

    /// What the host says of itself.
    pub(crate) fn troubles(&self, session: &Arc<Current>, troubles: Vec<crate::proto::Trouble>) {
        let current = self.current();
        let counts = current
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, session));
        if counts {
            self.seen.send_if_modified(|seen| {
                let new = seen.troubles != troubles;
                seen.troubles = troubles;
                new
            });
        }
    }

    /// The session of a call: the current one, over its own connection.
    #[allow(clippy::result_large_err, reason = "an answer")]
    pub(crate) fn session(&self, peer: &Peer, id: &str) -> Result<Arc<Current>, Status> {
        let host = self.host(peer)?;
        let current = self.current().clone();
        let found = current.filter(|current| {
            !current.ended.is_cancelled()
                && current.id == id
                && current.host == host
                && current.peer.connection() == peer.connection()
        });
        found.ok_or_else(|| {
            let cause = format!(
                "the session of this call of host {host} has ended, or never was on this connection"
            );
            self.refusals
                .refuse("no_session", name(peer), cause.clone());
            let remedy = "the host's cni-node begins a session and asks again";
            Failure::new(Reason::NoSession, TRY_AGAIN_LATER, cause, remedy).into()
        })
    }

    /// Is it the connection of the session that counts?
    pub(crate) fn in_session(&self, peer: &Peer) -> bool {
        let current = self.current();
        current.as_ref().is_some_and(|current| {
            !current.ended.is_cancelled() && current.peer.connection() == peer.connection()
        })
    }

    /// Ends the session of a host that is not served any more, whenever that changes, and every session when the server stops.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        let mut host = self.host.clone();
        loop {
            let paired = host.borrow_and_update().clone();
            self.repaired(paired);
            tokio::select! {
                changed = host.changed() => if changed.is_err() {
                    stop.cancelled().await;
                },
                () = stop.cancelled() => {}
            }
            if stop.is_cancelled() {
                if let Some(current) = &*self.current() {
                    current.end(format!("cni-node of DPU {} ends", self.node));
                }
                return;
            }
        }
    }

    fn repaired(&self, paired: Option<String>) {
        let current = self.current();
        if let Some(current) = &*current
            && paired.as_ref() != Some(&current.host)
        {
            let now = paired.as_deref().unwrap_or("no host");
            current.end(format!("DPU {} serves {now} now", self.node));
        }
        let fresh = HostState::default();
        self.seen.send_if_modified(|seen| {
            let other = seen.host != paired;
            if other {
                *seen = HostState {
                    host: paired,
                    ..fresh
                };
            }
            other
        });
    }

    fn lost(&self, why: String) {
        self.metrics.up(false);
        self.metrics.heard().nobody();
        self.seen.send_if_modified(|seen| {
            let was = seen.alive;
            if was {
                seen.alive = false;
                seen.since = SystemTime::now();
                seen.why = why;
                seen.troubles = Vec::new();
            }
            was
        });
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Current>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For sentences.
pub(crate) fn name(peer: &Peer) -> String {
    match (peer.node(), peer.address()) {
        (Some(node), _) => node.to_owned(),
        (None, Some(address)) => format!("{address} ({})", peer.names().join(", ")),
        (None, None) => peer.names().join(", "),
    }
}
