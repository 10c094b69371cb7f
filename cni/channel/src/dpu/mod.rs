//! The DPU's side: one host's session, and its calls.
//!
//! [`serve`] (connections) → [`service`] (the calls of gRPC) → [`desk`] (who is served, which session counts) → [`session`] (heartbeats, full
//! sets), [`call`] (attach, detach, check) → [`Ports`] (does it). [`refusal`]: who was sent away.

mod call;
mod desk;
mod refusal;
mod serve;
mod service;
mod session;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use daemon::readiness::Check;
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use refusal::Refusal;
pub use serve::serve;
#[cfg(test)]
pub(crate) use serve::speaking;

use crate::Failure;
use crate::metrics::DpuMetrics;
use crate::proto::{Attachment, AttachmentKey, Epoch, SyncedAttachment, Trouble, Wiring};

/// What a DPU does for its host. The channel has looked at who asks and at the shape of every field; whether a function is the host's,
/// which logical port a pod has, and which of two attempts is the younger one is decided here.
///
/// Every call is run to its end, also when the host has gone, but for a process that ends. All of them are async code of one runtime: what
/// blocks belongs elsewhere.
#[async_trait::async_trait]
pub trait Ports: Send + Sync + 'static {
    /// Makes the host's attachments those of the set: unplugs what is not in it, plugs what is not there. One at a time, in order of arrival,
    /// and the first one of a session after the last call of the former session; calls of the same session go on beside it. Answers for each of
    /// the set, in no order, and does not wait for anything that is not there yet: the host says the set again.
    async fn sync(&self, host: &str, set: Vec<Attachment>) -> Vec<SyncedAttachment>;

    /// Plugs it, tells the wiring as soon as it is known, and returns when the flows are in place. `given_up` is cancelled when nobody wants
    /// the answer any more (the host has dropped the call, its session has ended, the deadline has passed): then what was done
    /// is undone, and whatever is answered is not heard.
    ///
    /// # Errors
    /// They go to kubelet as they are. By the deadline: code 11.
    async fn attach(
        &self,
        host: &str,
        attachment: Attachment,
        wiring: oneshot::Sender<Wiring>,
        deadline: Instant,
        given_up: CancellationToken,
    ) -> Result<(), Failure>;

    /// Unplugs it. Absent, or held by a later attempt: nothing is touched, and that is fine.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    async fn detach(
        &self,
        host: &str,
        key: AttachmentKey,
        attempt: u64,
        deadline: Instant,
    ) -> Result<(), Failure>;

    /// Is it still as attach left it?
    ///
    /// # Errors
    /// What is not; and as [`attach`](Self::attach).
    async fn check(
        &self,
        host: &str,
        key: AttachmentKey,
        attempt: u64,
        deadline: Instant,
    ) -> Result<Wiring, Failure>;

    /// What keeps the DPU from serving an ADD; goes to the host with each heartbeat, and at once when it changes.
    fn troubles(&self) -> watch::Receiver<Vec<Trouble>>;
}

/// Who the DPU is, and what it serves.
pub struct Server {
    /// The DPU's node.
    pub node: String,
    /// Where `tls.key`, `tls.crt` and `ca.crt` lie, read anew for each connection.
    pub identity: PathBuf,
    /// The host's node, as the `Dpu` object names it. Changes at run time: the session of the former host ends then.
    pub host: watch::Receiver<Option<String>>,
    /// Of the program, for people.
    pub release: &'static str,
    /// Of this process.
    pub epoch: Epoch,
    /// Does the work.
    pub ports: Arc<dyn Ports>,
    /// What is known of the host.
    pub seen: watch::Sender<HostState>,
    /// Who was refused: of each reason one a minute; the metric counts all.
    pub refusals: broadcast::Sender<Refusal>,
    /// What is counted.
    pub metrics: DpuMetrics,
    /// Content while somebody could connect: there is a certificate.
    pub check: Check,
}

/// What the DPU knows of its host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostState {
    /// The host's node; none while no `Dpu` object pairs this DPU.
    pub host: Option<String>,
    /// It is in a session, and was heard within 2.4 s.
    pub alive: bool,
    /// When `alive` became what it is.
    pub since: SystemTime,
    /// Why it is not alive: object and cause. Empty while it is.
    pub why: String,
    /// Of its process, in its latest session.
    pub epoch: Option<Epoch>,
    /// Of its program, for people.
    pub release: String,
    /// What keeps it from serving an ADD.
    pub troubles: Vec<Trouble>,
    /// How many sessions it has begun.
    pub sessions: u64,
}

impl Default for HostState {
    fn default() -> Self {
        Self {
            host: None,
            alive: false,
            since: SystemTime::now(),
            why: "the host was not seen yet".to_owned(),
            epoch: None,
            release: String::new(),
            troubles: Vec::new(),
            sessions: 0,
        }
    }
}
