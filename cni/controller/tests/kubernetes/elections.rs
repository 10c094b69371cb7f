//! The Lease: who may lead, from when and until when.

use crate::proxy::Proxy;
use crate::site::{DEADLINE, SYSTEM, client, fresh, site, until};
use cni_controller::Turn;
use cni_controller::lease::{self, Candidate};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Of the Leases here.
const DURATION: Duration = Duration::from_secs(3);

/// A candidate that takes part.
struct Process {
    turn: watch::Receiver<Turn>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Process {
    fn start(client: Client, lease: &str, identity: &str, predecessors: Option<&str>) -> Self {
        let (sender, turn) = watch::channel(None);
        let stop = CancellationToken::new();
        let candidate = Candidate {
            lease: lease.to_owned(),
            identity: identity.to_owned(),
            predecessors: predecessors.map(str::to_owned),
            duration: DURATION,
        };
        let task = tokio::spawn(lease::run(client, candidate, sender, stop.clone()));
        Self { turn, stop, task }
    }

    /// When it is (or no longer is) its turn.
    async fn leads(&self, should: bool) -> Instant {
        let mut turn = self.turn.clone();
        let wait = turn.wait_for(|turn| turn.is_some() == should);
        let wait = tokio::time::timeout(DEADLINE, wait).await;
        wait.expect("the turn did not change").unwrap();
        Instant::now()
    }

    fn is_leading(&self) -> bool {
        self.turn.borrow().is_some()
    }

    /// Ends it as a signal would.
    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn renewals(lease: &Lease) -> Option<(i32, String)> {
    let spec = lease.spec.as_ref()?;
    let renewed = spec.renew_time.as_ref()?.0.to_string();
    Some((spec.lease_transitions?, renewed))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leads_and_the_other_follows_when_it_is_gone() {
    let site = site();
    let name = fresh("lease");
    let client = || client(&site.server.url(), "admin");
    let a = Process::start(client(), &name, "a", None);
    let b = Process::start(client(), &name, "b", None);
    let (leader, other) = tokio::select! {
        _ = a.leads(true) => (a, b),
        _ = b.leads(true) => (b, a),
    };
    let leases: Api<Lease> = Api::namespaced(client(), SYSTEM);
    let first = until(&leases, &name, "held", |lease| lease.spec.is_some()).await;
    let renewed = |lease: &Lease| renewals(lease) > renewals(&first);
    until(&leases, &name, "renewed", renewed).await;
    assert!(leader.is_leading() && !other.is_leading());

    // Killed: it renews no more, and gives nothing back. The watch channel's last value is the
    // last turn that it had.
    let last = leader.turn.clone();
    leader.task.abort();
    let _ = leader.task.await;
    let taken = other.leads(true).await;
    let silent = taken - last.borrow().unwrap();
    assert!(silent >= DURATION, "taken from a live one after {silent:?}");

    // Stopped: it gives the Lease back, and nobody waits until it has run out.
    let third = Process::start(client(), &name, "c", None);
    let held = until(&leases, &name, "renewed", |l| {
        renewals(l) > renewals(&first)
    })
    .await;
    other.stop().await;
    let given_back = Instant::now();
    let taken = third.leads(true).await;
    assert!(taken - given_back < DURATION);
    let transitions = |lease: &Lease| renewals(lease).map(|(transitions, _)| transitions);
    let now = leases.get(&name).await.unwrap();
    assert_eq!(transitions(&now), transitions(&held).map(|n| n + 1));

    // Its container restarts.
    third.task.abort();
    let _ = third.task.await;
    let killed = Instant::now();
    let fourth = Process::start(client(), &name, "c2", Some("c"));
    assert!(fourth.leads(true).await - killed < DURATION);
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cannot_renew_stops_before_another_may_begin() {
    let site = site();
    let name = fresh("lease");
    let proxy = Proxy::to(&site.server.url()).await;
    let cut_off = Process::start(client(&proxy.url(), "admin"), &name, "cut-off", None);
    cut_off.leads(true).await;
    let other = Process::start(client(&site.server.url(), "admin"), &name, "other", None);
    // No refusal, no end: just silence, on every connection.
    proxy.silence();
    let (ended, begun) = tokio::join!(cut_off.leads(false), other.leads(true));
    assert!(ended < begun, "two led for {:?}", ended - begun);
    // It comes back to find that it was replaced.
    proxy.open(&site.server.url());
    proxy.cut();
    let leases: Api<Lease> = Api::namespaced(site.admin(), SYSTEM);
    let now = leases.get(&name).await.unwrap();
    until(&leases, &name, "renewed", |lease| {
        renewals(lease) > renewals(&now)
    })
    .await;
    assert!(other.is_leading() && !cut_off.is_leading());
    cut_off.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_somebody_touches_is_not_lost() {
    let site = site();
    let name = fresh("lease");
    let leader = Process::start(client(&site.server.url(), "admin"), &name, "leader", None);
    leader.leads(true).await;
    let leases: Api<Lease> = Api::namespaced(site.admin(), SYSTEM);
    let mut turn = leader.turn.clone();
    let mut last = renewals(&leases.get(&name).await.unwrap());
    let (mut touched, mut renewed) = (0, 0);
    while renewed < 5 {
        touched += 1;
        let label = json!({"metadata": {"labels": {"touched": touched.to_string()}}});
        let lease = leases
            .patch(&name, &PatchParams::default(), &Patch::Merge(&label))
            .await
            .unwrap();
        renewed += usize::from(renewals(&lease) != last);
        last = renewals(&lease);
        assert!(
            turn.borrow_and_update().is_some(),
            "lost by label {touched}"
        );
        assert!(touched < 100_000);
    }
    assert_eq!(last.map(|(transitions, _)| transitions), Some(1));
    leader.stop().await;
}
