//! What the host's calls do on the DPU: the channel's [`Ports`] over the node's attachments.
//!
//! The host says which sandbox and which function; everything else comes from its row in the southbound database. A step that
//! fails, or is given up by the host, is undone here; what a kill leaves, by the reconcile loop and by the host's next full set.

use std::sync::Arc;

use api::pairing::Pairing;
use channel::proto::{self, Reason};
use channel::{Failure, Ports};
use cni_bin::code;
use fail::fail_point;
use ovsdb::Uuid;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::asked::{self, Asked, failure};
use super::claims::{Claims, Refused, Taken};
use super::metrics::Metrics;
use super::prepare::Prepared;
use super::representor::Provider;
use super::{plugging, sync};
use crate::attach::installed::installed;
use crate::attachment::{AttachmentId, Record};
use crate::node::{Node, UNDO};
use crate::stages::{Stages, timed};

/// The ports of this DPU's host.
pub(super) struct HostPorts {
    pub(super) node: Arc<Node>,
    pub(super) representors: Arc<dyn Provider>,
    pub(super) pairing: watch::Receiver<Option<Pairing>>,
    pub(super) claims: Claims,
    pub(super) troubles: watch::Receiver<Vec<proto::Trouble>>,
    pub(super) metrics: Metrics,
}

/// What ends an Attach before its time.
struct Abandoned<'a> {
    /// Something younger has it, or it was detached.
    lost: &'a CancellationToken,
    /// By the host.
    given_up: &'a CancellationToken,
}

impl Abandoned<'_> {
    /// Does what may be dropped at any moment, unless the attempt is abandoned meanwhile.
    async fn or<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let (reason, why) = tokio::select! {
            biased;
            done = work => return done,
            () = self.lost.cancelled() => (Reason::OldAttempt, "a later attempt or a DEL of it came"),
            () = self.given_up.cancelled() => (Reason::Unspecified, "the host gave it up"),
        };
        Err(Failure::new(
            reason,
            code::TRY_AGAIN_LATER,
            format!("The DPU has stopped attaching: {why}."),
            "The runtime tries again by itself.",
        ))
    }
}

#[async_trait::async_trait]
impl Ports for HostPorts {
    async fn sync(&self, host: &str, set: Vec<proto::Attachment>) -> Vec<proto::SyncedAttachment> {
        sync::sync(self, host, set).await
    }

    async fn attach(
        &self,
        host: &str,
        attachment: proto::Attachment,
        wiring: oneshot::Sender<proto::Wiring>,
        deadline: Instant,
        given_up: CancellationToken,
    ) -> Result<(), Failure> {
        let started = Instant::now();
        let mut stages = Stages::default();
        let asked = Asked::of(host, attachment).map_err(|(_, failure)| failure)?;
        let done = self
            .claim_and_attach(&asked, wiring, &mut stages, deadline, &given_up)
            .await;
        self.log("attach", &asked.id, asked.attempt, started, &stages, &done);
        done
    }

    async fn detach(
        &self,
        host: &str,
        key: proto::AttachmentKey,
        attempt: u64,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let (started, mut stages) = (Instant::now(), Stages::default());
        let id = AttachmentId::of_host(host, &key.sandbox, &key.ifname);
        let done = self.end(&id, attempt, &mut stages, deadline).await;
        self.log("detach", &id, attempt, started, &stages, &done);
        done
    }

    async fn check(
        &self,
        host: &str,
        key: proto::AttachmentKey,
        attempt: u64,
        deadline: Instant,
    ) -> Result<proto::Wiring, Failure> {
        let started = Instant::now();
        let id = AttachmentId::of_host(host, &key.sandbox, &key.ifname);
        let done = self.look(host, &id, attempt, deadline).await;
        self.metrics
            .request("check", done.is_err(), started.elapsed());
        done
    }

    fn troubles(&self) -> watch::Receiver<Vec<proto::Trouble>> {
        self.troubles.clone()
    }
}

impl HostPorts {
    async fn claim_and_attach(
        &self,
        asked: &Asked,
        wiring: oneshot::Sender<proto::Wiring>,
        stages: &mut Stages,
        deadline: Instant,
        given_up: &CancellationToken,
    ) -> Result<(), Failure> {
        let taken = self.claims.take(&asked.id, asked.attempt, asked.function);
        let taken = taken.map_err(|refused| told(asked, &refused))?;
        let _alone = self.node.locks.lock(&asked.id.host_link()).await;
        let abandoned = Abandoned {
            lost: &taken.lost,
            given_up,
        };
        let done = self
            .attach_alone(asked, &taken, wiring, stages, deadline, &abandoned)
            .await;
        if done.is_err() {
            self.undo(&asked.id).await;
            taken.give_back();
        }
        done
    }

    /// Row → the function is its own → wiring to the host → port, link up → flows in place, journal alongside. The caller holds the
    /// attachment's lock; that of an older one is taken inside it, so that no two can wait for each other.
    async fn attach_alone(
        &self,
        asked: &Asked,
        taken: &Taken<'_>,
        wiring: oneshot::Sender<proto::Wiring>,
        stages: &mut Stages,
        deadline: Instant,
        abandoned: &Abandoned<'_>,
    ) -> Result<(), Failure> {
        let mut found = self.find(vec![asked.function]).await;
        let none = || Err(asked::no_function(asked.function, None));
        let representor = found.remove(&asked.function).unwrap_or_else(none)?;
        let preparing = abandoned.or(self.prepare(asked, representor, deadline));
        let prepared = stages.measure("wait_row", preparing).await?;
        let displaced = taken.hold().map_err(|refused| told(asked, &refused))?;
        for other in &displaced {
            self.evict(other).await?;
        }
        // A host that has gone is noticed by the token.
        let _ = wiring.send(prepared.wiring.clone());
        fail_point!("dpu::begun");
        let there = self.node.store.get(&asked.id);
        let kept = there.as_ref() == Some(&prepared.record);
        if there.is_some() && !kept {
            self.remove(&asked.id, Instant::now() + UNDO).await?;
        }
        let plugged = self.plugged(&prepared.record).filter(|_| kept);
        let interface = match plugged {
            Some(interface) => interface,
            None => {
                // Driven to its end: a link that is left alone could come up after the undo.
                let plugging = self.plug(&prepared, deadline);
                stages.measure("ovs", plugging).await?
            }
        };
        let port = &prepared.record.port.iface_id;
        let flows = async {
            let installed = installed(&self.node, port, interface, deadline).await;
            installed.map_err(|error| failure(Reason::NotReady, error))
        };
        let journal = async {
            if kept {
                return Ok(());
            }
            let kept = self.node.store.insert(prepared.record.clone()).await;
            fail_point!("dpu::recorded");
            kept
        };
        let ((installed, time), (recorded, wrote)) =
            tokio::join!(timed(abandoned.or(flows)), timed(journal));
        stages.note("ovn_installed", time);
        stages.note("journal", wrote);
        installed?;
        recorded.map_err(|error| failure(Reason::Unspecified, error))?;
        fail_point!("dpu::installed");
        Ok(())
    }

    /// The Interface of a record, if it is in Open vSwitch as it was plugged.
    pub(super) fn plugged(&self, record: &Record) -> Option<Uuid> {
        let port = self.node.vswitch.port(&record.link())?;
        let right = port.id == record.id && port.iface_id == record.port.iface_id;
        right.then_some(port.interface)
    }

    pub(super) async fn plug(
        &self,
        prepared: &Prepared,
        deadline: Instant,
    ) -> Result<Uuid, Failure> {
        let Prepared { record, bridge, .. } = prepared;
        let far = record.far().expect("a host's attachment has a function");
        let plugged = plugging::plug(&self.node, *bridge, record, far, deadline).await;
        plugged.map_err(|error| failure(Reason::NotReady, error))
    }

    async fn end(
        &self,
        id: &AttachmentId,
        attempt: u64,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let later = |held: Option<u64>| held.is_some_and(|held| held > attempt);
        if !self.claims.end(id, attempt) {
            return Ok(());
        }
        let _alone = self.node.locks.lock(&id.host_link()).await;
        // A later attempt may have come in between.
        if later(self.claims.attempt(id)) {
            return Ok(());
        }
        fail_point!("dpu::del_begun");
        stages.measure("ovs", self.remove(id, deadline)).await
    }

    /// Removes everything of an attachment. The caller holds its lock.
    ///
    /// While Open vSwitch is down its port is left to the reconcile loop; its link, and with it its traffic, ends now.
    pub(super) async fn remove(&self, id: &AttachmentId, deadline: Instant) -> Result<(), Failure> {
        let link = self.node.store.get(id).map(|record| record.link());
        let patience = deadline.min(Instant::now() + UNDO);
        let unplugged = plugging::unplug(&self.node, id, link, patience).await;
        let left = unplugged.unwrap_or_else(|error| {
            warn!(
                sandbox = id.container,
                ifname = id.ifname,
                "port is removed later: {error}"
            );
            Vec::new()
        });
        fail_point!("dpu::unplugged");
        let forgotten = self.node.store.forget(id).await;
        forgotten.map_err(|error| failure(Reason::Unspecified, error))?;
        // Nobody waits for it: whoever plugs the link next waits by himself.
        tokio::spawn(plugging::let_go(Arc::clone(&self.node), left));
        fail_point!("dpu::forgotten");
        Ok(())
    }

    /// Removes an attachment whose function a younger one has taken.
    pub(super) async fn evict(&self, id: &AttachmentId) -> Result<(), Failure> {
        let _alone = self.node.locks.lock(&id.host_link()).await;
        info!(
            sandbox = id.container,
            ifname = id.ifname,
            "a later attachment has the function: the earlier one is removed"
        );
        self.remove(id, Instant::now() + UNDO).await
    }

    /// Takes back what a failed attempt has done.
    pub(super) async fn undo(&self, id: &AttachmentId) {
        if let Err(failure) = self.remove(id, Instant::now() + UNDO).await {
            warn!(
                sandbox = id.container,
                ifname = id.ifname,
                "undo is finished later: {failure}"
            );
        }
    }

    fn log(
        &self,
        op: &'static str,
        id: &AttachmentId,
        attempt: u64,
        started: Instant,
        stages: &Stages,
        done: &Result<(), Failure>,
    ) {
        let time = started.elapsed();
        self.metrics.request(op, done.is_err(), time);
        let record = self.node.store.get(id);
        let pod = record.as_ref().map(|record| record.pod.to_string());
        let lsp = record.as_ref().map(|record| record.port.iface_id.as_str());
        let (sandbox, ifname) = (&id.container, &id.ifname);
        let ms = time.as_secs_f64() * 1e3;
        match done {
            Ok(()) => {
                info!(op, pod, lsp, sandbox, ifname, attempt, %stages, "host's port: done in {ms:.1} ms");
            }
            Err(failure) => {
                warn!(op, sandbox, ifname, attempt, %stages, code = failure.code, "host's port: failed after {ms:.1} ms: {failure}");
            }
        }
    }
}

/// What the host is told of a refused claim.
fn told(asked: &Asked, refused: &Refused) -> Failure {
    match refused {
        Refused::Interface(later) => {
            let (ifname, sandbox) = (&asked.key.ifname, &asked.key.sandbox);
            let what = format!("Interface {ifname} of sandbox {sandbox}");
            asked::old_attempt(asked, &what, Some(*later))
        }
        Refused::Function(_) => {
            asked::old_attempt(asked, &format!("Function {}", asked.function), None)
        }
    }
}
