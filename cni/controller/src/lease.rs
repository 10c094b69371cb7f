//! Who should write: a Lease in Kubernetes.
//!
//! It decides between live processes only; that a replaced one really stops is the business of
//! [`crate::fence`]. A holder that cannot renew gives its turn up before anybody else may take the
//! Lease, so that two live processes do not quarrel over the database: all times are fractions of
//! the Lease's duration, and both sides round to the safe side (the holder counts from before it
//! asked, the others from after they saw).

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

/// The Lease of all cni-controllers of a cluster.
pub(crate) const NAME: &str = "cni-controller";

/// Looks at a Lease that somebody changes before it is written, in one round.
const ATTEMPTS: u32 = 5;

/// Since when, at least, the API server has said that this process should write; none if another
/// one should, or if the API server has not said so again in time.
pub type Turn = Option<Instant>;

/// Who wants the Lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Name of the Lease, in [`SYSTEM_NAMESPACE`].
    pub lease: String,
    /// Name of this process, unlike that of any other one before or after it.
    pub identity: String,
    /// Whoever's identity starts so was a former process of this pod, and is no more: its Lease is
    /// taken at once, a restarted container need not wait until it has run out.
    pub predecessors: Option<String>,
    /// Who does not renew for this long is replaced.
    pub duration: Duration,
}

impl Candidate {
    /// Time between two looks at the Lease.
    fn period(&self) -> Duration {
        self.duration * 2 / 15
    }

    /// A request that takes longer has failed.
    fn timeout(&self) -> Duration {
        self.duration / 3
    }

    /// A holder that was not confirmed for this long stops.
    fn patience(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// Whether the turn is still this process's: one that slept may find that it has run out.
    pub fn is_current(&self, turn: Turn) -> bool {
        turn.is_some_and(|since| since.elapsed() < self.patience())
    }
}

/// The Lease and what is known of it.
struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    /// The holder's last sign of life and when it was seen: clocks of two machines are not
    /// compared.
    seen: Option<(LeaseSpec, Instant)>,
}

/// Takes part in the election until the token is cancelled; then gives the Lease back.
pub async fn run(
    client: Client,
    candidate: Candidate,
    turn: watch::Sender<Turn>,
    stop: CancellationToken,
) {
    let mut election = Election {
        api: Api::namespaced(client, SYSTEM_NAMESPACE),
        candidate,
        seen: None,
    };
    while !stop.is_cancelled() {
        election.turn(&turn, &stop).await;
    }
    if turn.borrow().is_some() {
        let timeout = election.candidate.timeout();
        // It ends by itself too, only later.
        let _ = tokio::time::timeout(timeout, election.release()).await;
    }
}

impl Election {
    /// One look at the Lease, what follows from it, and the time until the next one.
    async fn turn(&mut self, turn: &watch::Sender<Turn>, stop: &CancellationToken) {
        let asked = Instant::now();
        let (period, timeout) = (self.candidate.period(), self.candidate.timeout());
        let mut end = turn.borrow().map(|since| since + self.candidate.patience());
        let limit = end.map_or(asked + timeout, |end| end.min(asked + timeout));
        let lease = format!("Lease {SYSTEM_NAMESPACE}/{}", self.candidate.lease);
        match tokio::time::timeout_at(limit, self.round()).await {
            Ok(Ok(Some(true))) => {
                // Every confirmation counts: after having been fenced off only a later one does.
                turn.send_replace(Some(asked));
                end = Some(asked + self.candidate.patience());
            }
            // Neither confirmed nor lost; soon it is asked again.
            Ok(Ok(None)) => {}
            Ok(Ok(Some(false))) => {
                turn.send_if_modified(|turn| turn.take().is_some());
                end = None;
            }
            Ok(Err(error)) => {
                let error = anyhow::Error::from(error);
                tracing::warn!("{lease} not renewed: {error:#}");
            }
            Err(_) => {
                tracing::warn!("{lease} not renewed: the API server does not answer");
            }
        }
        let next = asked + period;
        let next = end.map_or(next, |end| end.min(next));
        tokio::select! {
            () = stop.cancelled() => return,
            // A little even if the answer took long: a server in trouble is not asked in a loop.
            () = tokio::time::sleep_until(next.max(Instant::now() + period / 8)) => {}
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            turn.send_if_modified(|turn| turn.take().is_some());
            tracing::error!(
                "{lease} could not be renewed in time: this process stops writing until the API server confirms it"
            );
        }
    }

    /// Whether this process should write; none if the Lease changes all the time.
    async fn round(&mut self) -> Result<Option<bool>, kube::Error> {
        // Somebody else may have changed the Lease between look and write. A second look tells
        // whether that was a candidate or a label.
        for _ in 0..ATTEMPTS {
            let ours = self.attempt().await?;
            if ours.is_some() {
                return Ok(ours);
            }
        }
        Ok(None)
    }

    /// Whether this process should write; none if the Lease changed meanwhile.
    async fn attempt(&mut self) -> Result<Option<bool>, kube::Error> {
        let name = self.candidate.lease.as_str();
        let Some(lease) = self.api.get_opt(name).await? else {
            let metadata = ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            };
            let spec = Some(self.spec(&LeaseSpec::default()));
            let lease = Lease { metadata, spec };
            return taken(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let predecessor = self.candidate.predecessors.as_deref();
        let is_predecessor = predecessor.is_some_and(|prefix| holder.starts_with(prefix));
        let seen = self.seen.as_ref();
        let alive = seen.is_some_and(|(_, since)| since.elapsed() < self.validity(&spec))
            && !is_predecessor;
        if holder != self.candidate.identity && !holder.is_empty() && alive {
            return Ok(Some(false));
        }
        let lease = Lease {
            spec: Some(self.spec(&spec)),
            ..lease
        };
        taken(self.api.replace(name, &PostParams::default(), &lease).await)
    }

    /// How long the holder may be silent: what it promised, or what is usual here if that is longer.
    fn validity(&self, spec: &LeaseSpec) -> Duration {
        let promised = spec.lease_duration_seconds.unwrap_or_default();
        let promised = Duration::from_secs(u64::try_from(promised).unwrap_or_default());
        promised.max(self.candidate.duration)
    }

    /// What the Lease says once this process holds it.
    fn spec(&self, before: &LeaseSpec) -> LeaseSpec {
        let Candidate {
            identity, duration, ..
        } = &self.candidate;
        let now = MicroTime(Timestamp::now());
        let ours = before.holder_identity.as_deref() == Some(identity);
        let acquired = before.acquire_time.clone().filter(|_| ours);
        let transitions = before.lease_transitions.unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(identity.clone()),
            lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
            acquire_time: acquired.or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), kube::Error> {
        let name = self.candidate.lease.as_str();
        let Some(mut lease) = self.api.get_opt(name).await? else {
            return Ok(());
        };
        if let Some(spec) = lease.spec.as_mut()
            && spec.holder_identity.as_ref() == Some(&self.candidate.identity)
        {
            spec.holder_identity = None;
            self.api
                .replace(name, &PostParams::default(), &lease)
                .await?;
        }
        Ok(())
    }
}

/// A conflict says that somebody else was faster.
fn taken(result: Result<Lease, kube::Error>) -> Result<Option<bool>, kube::Error> {
    match result {
        Ok(_) => Ok(Some(true)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}
