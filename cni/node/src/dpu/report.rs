//! What Kubernetes is told: the status of the Dpu, and Events of what was refused.
//!
//! Nothing waits for it. Without a token, or without an API server, the ports work all the same, and /readyz says so. Of the status
//! only the fields and the one condition that are the DPU's are written, by server-side apply.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use api::dpu::{Dpu, HEARTBEAT_SECONDS, HOST_SEEN};
use api::pairing::Pairing;
use channel::{HostState, Refusal};
use daemon::readiness::Check;
use jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::ports::HostPorts;

const MANAGER: &str = "cni-node-dpu";
const CONTROLLER: &str = "iaas.yusur.io/cni-node";
/// The longest time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(HEARTBEAT_SECONDS);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// One call of the API server.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the status is made of.
pub(super) struct Reporter {
    pub(super) node_name: String,
    /// Of this process.
    pub(super) epoch: String,
    pub(super) pairing: watch::Receiver<Option<Pairing>>,
    pub(super) host: watch::Receiver<HostState>,
    pub(super) ports: Arc<HostPorts>,
    pub(super) check: Check,
    /// How the API server is spoken to first; none = as the pod's service account, or KUBECONFIG.
    pub(super) client: Option<Client>,
}

/// What one status says; the heartbeat apart.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    dpu: String,
    seen: bool,
    why: String,
    since: Timestamp,
    functions: Option<(u32, u32)>,
    host_epoch: Option<String>,
    dpu_epoch: String,
}

/// The object that is ours.
#[derive(Debug, Clone, PartialEq)]
struct Ours {
    name: String,
    uid: String,
}

/// Tells until the stop.
pub(super) async fn run(
    mut reporter: Reporter,
    mut refused: broadcast::Receiver<Refusal>,
    stop: CancellationToken,
) {
    let mut client = reporter.client.take();
    let mut ours: Option<Ours> = None;
    let mut told: Option<Said> = None;
    loop {
        let waits = match reporter.tell(&mut client, &mut ours, &mut told).await {
            Ok(()) => {
                reporter.check.ready();
                HEARTBEAT
            }
            Err(why) => {
                reporter.check.not_ready(format!(
                    "the status of this node's Dpu is not written: {why:#}; the host's pods have their network all the same"
                ));
                // A token that was renewed, or another address.
                (client, ours, told) = (None, None, None);
                RETRY
            }
        };
        let until = Instant::now() + waits;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => break,
                changed = reporter.host.changed() => {
                    if changed.is_err() {
                        return stop.cancelled().await;
                    }
                    if told.as_ref().is_some_and(|told| told.is_old(&reporter.host.borrow_and_update())) {
                        break;
                    }
                }
                changed = reporter.pairing.changed() => {
                    if changed.is_err() {
                        return stop.cancelled().await;
                    }
                    break;
                }
                refusal = refused.recv() => match refusal {
                    Ok(refusal) => reporter.event(client.as_ref(), ours.as_ref(), &refusal).await,
                    Err(broadcast::error::RecvError::Lagged(lost)) => debug!(lost, "refusals were too many for Events"),
                    Err(broadcast::error::RecvError::Closed) => return stop.cancelled().await,
                },
            }
        }
    }
}

impl Said {
    /// Whether the host comes or goes since, or is another one: that does not wait for the next heartbeat.
    fn is_old(&self, host: &HostState) -> bool {
        self.seen != host.alive || self.host_epoch != host.epoch.as_ref().map(channel::epoch::text)
    }
}

impl Reporter {
    /// Writes the status, at once if it says something new.
    async fn tell(
        &mut self,
        client: &mut Option<Client>,
        ours: &mut Option<Ours>,
        told: &mut Option<Said>,
    ) -> anyhow::Result<()> {
        let Some(pairing) = self.pairing.borrow_and_update().clone() else {
            *ours = None;
            anyhow::bail!("no Dpu names this node");
        };
        let host = self.host.borrow_and_update().clone();
        let client = match client {
            Some(client) => client.clone(),
            None => {
                let config = kube::Config::infer()
                    .await
                    .context("no Kubernetes API to tell it to (no token is mounted?)")?;
                client.insert(Client::try_from(config)?).clone()
            }
        };
        let dpus: Api<Dpu> = Api::all(client);
        let dpu = match ours.as_ref().filter(|ours| ours.uid == pairing.uid) {
            Some(ours) => ours.clone(),
            None => ours.insert(find(&dpus, &pairing).await?).clone(),
        };
        let functions = self.functions(&pairing).await;
        let said = said(&dpu, &host, functions, self.epoch.clone());
        let since = match told.as_ref() {
            Some(told) if told.seen == said.seen => told.since,
            _ => said.since,
        };
        let said = Said { since, ..said };
        let patch = Patch::Apply(document(&said, Timestamp::now()));
        let parameters = PatchParams::apply(MANAGER).force();
        let patching = dpus.patch_status(&dpu.name, &parameters, &patch);
        tokio::time::timeout(PATIENCE, patching)
            .await
            .context("the API server does not answer")?
            .with_context(|| format!("Dpu {}", dpu.name))?;
        *told = Some(said);
        Ok(())
    }

    /// All and free ones; none while the card cannot be asked.
    async fn functions(&self, pairing: &Pairing) -> Option<(u32, u32)> {
        let (provider, controller) = (Arc::clone(&self.ports.representors), pairing.controller);
        let counting = self.ports.node.host.run(move || provider.count(controller));
        match counting.await {
            Ok(Ok(total)) => {
                let held = u32::try_from(self.ports.claims.len()).unwrap_or(u32::MAX);
                Some((total, total.saturating_sub(held)))
            }
            Ok(Err(why)) => {
                debug!("the card's functions are not known: {why}");
                None
            }
            Err(why) => {
                debug!("the card's functions are not known: {why}");
                None
            }
        }
    }

    /// An Event on the Dpu. The channel has thinned them out.
    async fn event(&self, client: Option<&Client>, ours: Option<&Ours>, refusal: &Refusal) {
        let (Some(client), Some(ours)) = (client, ours) else {
            return;
        };
        let event = event(&self.node_name, ours, refusal, Timestamp::now());
        let event = match serde_json::from_value(event) {
            Ok(event) => event,
            Err(why) => return warn!("an Event cannot be made: {why}"),
        };
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(client.clone(), "default");
        let parameters = PostParams::default();
        let posting = events.create(&parameters, &event);
        match tokio::time::timeout(PATIENCE, posting).await {
            Ok(Ok(_)) => {}
            Ok(Err(why)) => warn!("an Event on Dpu {} is lost: {why}", ours.name),
            Err(_) => warn!("an Event on Dpu {} is lost: no answer", ours.name),
        }
    }
}

/// The Dpu that the pairing came from.
async fn find(dpus: &Api<Dpu>, pairing: &Pairing) -> anyhow::Result<Ours> {
    // A chosen field: the heartbeats of all others are nobody's business here.
    let parameters = ListParams::default().fields(&format!("spec.dpuNode={}", pairing.dpu));
    let listing = dpus.list(&parameters);
    let all = tokio::time::timeout(PATIENCE, listing)
        .await
        .context("the API server does not answer")?
        .context("the Dpus cannot be listed")?;
    let ours = all
        .into_iter()
        .find(|dpu| dpu.metadata.uid.as_deref() == Some(&pairing.uid));
    let ours = ours.with_context(|| {
        format!(
            "the Dpu that pairs {} with {} is gone",
            pairing.dpu, pairing.host
        )
    })?;
    Ok(Ours {
        name: ours.name_any(),
        uid: pairing.uid.clone(),
    })
}

fn said(dpu: &Ours, host: &HostState, functions: Option<(u32, u32)>, dpu_epoch: String) -> Said {
    let since = Timestamp::try_from(host.since).unwrap_or(Timestamp::UNIX_EPOCH);
    Said {
        dpu: dpu.name.clone(),
        seen: host.alive,
        why: host.why.clone(),
        since: if since > Timestamp::UNIX_EPOCH {
            since
        } else {
            Timestamp::now()
        },
        functions,
        host_epoch: host.epoch.as_ref().map(channel::epoch::text),
        dpu_epoch,
    }
}

/// The document of a server-side apply: everything of ours, and nothing else.
fn document(said: &Said, now: Timestamp) -> Value {
    let (status, reason) = if said.seen {
        ("True", "Session")
    } else {
        ("False", "NoSession")
    };
    let message = match said.why.as_str() {
        _ if said.seen => "the host has a session with this DPU",
        "" => "the host has not been seen since cni-node started on the DPU",
        why => why,
    };
    let mut fields = json!({
        "conditions": [{
            "type": HOST_SEEN, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": second(said.since),
        }],
        "lastHeartbeat": second(now),
        "dpuEpoch": said.dpu_epoch,
    });
    if let Some((total, free)) = said.functions {
        fields["functions"] = json!({"total": total, "free": free});
    }
    if let Some(epoch) = &said.host_epoch {
        fields["hostEpoch"] = json!(epoch);
    }
    json!({
        "apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "metadata": {"name": said.dpu}, "status": fields,
    })
}

/// `Refused` + the reason in words: `RefusedOldAttempt`.
fn event(node: &str, ours: &Ours, refusal: &Refusal, now: Timestamp) -> Value {
    let reason: String = refusal.reason.split('_').map(capitalized).collect();
    let mut note = format!("{}: {}", refusal.peer, refusal.sentence);
    // events.k8s.io/v1: at most 1 kB.
    let most = (0..=1000).rev().find(|at| note.is_char_boundary(*at));
    note.truncate(most.unwrap_or(0));
    json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"generateName": format!("{}-", ours.name), "namespace": "default"},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        "type": "Warning", "reason": format!("Refused{reason}"), "action": "Refuse", "note": note,
        "regarding": {"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "name": ours.name, "uid": ours.uid},
        "reportingController": CONTROLLER, "reportingInstance": node,
    })
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// As metav1.Time is written: without fractions.
fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
