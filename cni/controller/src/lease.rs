//! Who should write: a Lease in Kubernetes.
//!
//! It decides between live processes only; that a replaced one really stops is the business of
//! [`crate::fence`]. So an API server that does not answer ends nobody's turn: nobody else can
//! take the Lease from a server that does not answer, and if one can after all, the fence holds.

use api::names::SYSTEM_NAMESPACE;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const NAME: &str = "cni-controller";
/// Who does not renew for this long is replaced.
const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(2);
const TIMEOUT: Duration = Duration::from_secs(5);

/// Since when, at least, the API server has said that this process should write; none if another
/// one should.
pub type Turn = Option<Instant>;

/// The Lease and what is known of it.
struct Election {
    api: Api<Lease>,
    identity: String,
    /// Whoever's identity starts so was a former process of this pod, and is no more.
    predecessors: Option<String>,
    /// The holder's last sign of life and when it was seen: clocks of two machines are not
    /// compared.
    seen: Option<(LeaseSpec, Instant)>,
}

/// Takes part in the election until the token is cancelled; then gives the Lease back. A Lease whose
/// holder starts with `predecessors` is taken at once: a restarted container need not wait for its
/// own Lease to run out.
pub(crate) async fn run(
    client: Client,
    identity: String,
    predecessors: Option<String>,
    turn: watch::Sender<Turn>,
    stop: CancellationToken,
) {
    let mut election = Election {
        api: Api::namespaced(client, SYSTEM_NAMESPACE),
        identity,
        predecessors,
        seen: None,
    };
    loop {
        let asked = Instant::now();
        match tokio::time::timeout(TIMEOUT, election.round(asked)).await {
            Ok(Ok(true)) => {
                // Every confirmation counts: after having been fenced off only a later one does.
                turn.send_replace(Some(asked));
            }
            Ok(Ok(false)) => {
                turn.send_if_modified(|turn| turn.take().is_some());
            }
            Ok(Err(error)) => {
                let error = anyhow::Error::from(error);
                tracing::warn!("Lease {SYSTEM_NAMESPACE}/{NAME} not renewed: {error:#}");
            }
            Err(_) => tracing::warn!(
                "Lease {SYSTEM_NAMESPACE}/{NAME} not renewed: no answer in {TIMEOUT:?}"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RENEW) => {}
        }
    }
    if turn.borrow().is_some() {
        // It ends by itself too, only later.
        let _ = tokio::time::timeout(TIMEOUT, election.release()).await;
    }
}

impl Election {
    /// Whether this process should write.
    async fn round(&mut self, now: Instant) -> Result<bool, kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            };
            let spec = Some(self.spec(&LeaseSpec::default()));
            let lease = Lease { metadata, spec };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), now));
        }
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let predecessor = self.predecessors.as_deref();
        let is_predecessor = predecessor.is_some_and(|prefix| holder.starts_with(prefix));
        let seen = self.seen.as_ref();
        let alive = seen.is_some_and(|(_, since)| since.elapsed() < DURATION) && !is_predecessor;
        if holder != self.identity && !holder.is_empty() && alive {
            return Ok(false);
        }
        let lease = Lease {
            spec: Some(self.spec(&spec)),
            ..lease
        };
        taken(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    /// What the Lease says once this process holds it.
    fn spec(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.holder_identity.as_deref() == Some(&*self.identity);
        let acquired = before.acquire_time.clone().filter(|_| ours);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: acquired.or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.api.get_opt(NAME).await? else {
            return Ok(());
        };
        if let Some(spec) = lease.spec.as_mut()
            && spec.holder_identity.as_deref() == Some(&*self.identity)
        {
            spec.holder_identity = None;
            self.api
                .replace(NAME, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }
}

/// A conflict says that another process was faster.
fn taken(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}
