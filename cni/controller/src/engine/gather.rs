//! What is to be planned next, and when.

use super::Engine;
use super::report::WAITING;
use crate::index::Index;
use crate::rows::{Problem, Unit};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// A transaction waits this long for more to come, …
const QUIET: Duration = Duration::from_millis(5);
/// … but no longer than this.
const WINDOW: Duration = Duration::from_millis(20);
/// Units that are planned together at most.
const BATCH: usize = 512;
/// Up to this size a batch of hot units is filled up with cold ones: they must get on under a
/// steady load, and what is hot must not wait for a look at hundreds of them.
const FILLED: usize = 64;
/// Units that could not have their rows are tried again after this, whatever happens.
const RETRY: Duration = Duration::from_secs(10);
/// All units are planned again after this, whatever happens.
const RESYNC: Duration = Duration::from_secs(600);
/// … or after this, if a transaction's fate is unknown.
const SOON: Duration = Duration::from_secs(5);

/// Units to plan.
#[derive(Debug)]
pub(super) struct Queue {
    /// Something has changed.
    hot: BTreeSet<Unit>,
    /// A look whether all is well.
    cold: BTreeSet<Unit>,
    retry: Instant,
    resync: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            hot: BTreeSet::new(),
            cold: BTreeSet::new(),
            retry: now + RETRY,
            resync: now + RESYNC,
        }
    }
}

impl Queue {
    /// To be planned with the next transaction.
    pub(super) fn push(&mut self, unit: Unit) {
        self.hot.insert(unit);
    }

    /// To be planned when nothing else is.
    pub(super) fn push_cold(&mut self, units: impl IntoIterator<Item = Unit>) {
        self.cold.extend(units);
    }

    /// Everything is to be planned again within seconds.
    pub(super) fn resync_soon(&mut self) {
        self.resync = self.resync.min(Instant::now() + SOON);
    }

    /// Nothing is to be planned.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn is_empty(&self) -> bool {
        self.hot.is_empty() && self.cold.is_empty()
    }

    /// The next units: VPCs and subnets, which others refer to, then the hot ones, filled up with
    /// cold ones.
    pub(super) fn take(&mut self) -> Vec<Unit> {
        let most = if self.hot.is_empty() { BATCH } else { FILLED };
        let mut batch = BTreeSet::new();
        while batch.len() < BATCH
            && (batch.len() < most || !self.hot.is_empty())
            && let Some(unit) = self.next()
        {
            self.cold.remove(&unit);
            batch.insert(unit);
        }
        batch.into_iter().collect()
    }

    fn next(&mut self) -> Option<Unit> {
        let is_referred_to = |unit: &&Unit| matches!(unit, Unit::Vpc(_) | Unit::Subnet(_));
        if self.cold.first().filter(is_referred_to).is_some() {
            return self.cold.pop_first();
        }
        self.hot.pop_first().or_else(|| self.cold.pop_first())
    }
}

impl Engine {
    /// Waits until there is something to plan, and then a little for more.
    pub(super) async fn gather(&mut self) {
        self.collect();
        let mut changed = self.replica.changed();
        while self.queue.is_empty() {
            let timer = self.queue.retry.min(self.queue.resync);
            tokio::select! {
                () = self.shared.dirtied() => {}
                _ = changed.changed() => {}
                () = tokio::time::sleep_until(timer) => {}
            }
            self.collect();
        }
        if self.queue.hot.is_empty() {
            return;
        }
        let end = Instant::now() + WINDOW;
        loop {
            let quiet = (Instant::now() + QUIET).min(end);
            tokio::select! {
                () = self.shared.dirtied() => {}
                () = tokio::time::sleep_until(quiet) => break,
            }
        }
        self.collect();
    }

    /// Takes over what has become dirty, in Kubernetes and in the database.
    fn collect(&mut self) {
        let touched = self.observed.drain(&self.replica, &mut self.changes);
        if touched.all {
            self.push_everything();
        }
        let touched = touched.units.iter().filter_map(|unit| unit.parse().ok());
        self.queue.push_cold(touched);

        let dirty = self.shared.take_dirty();
        let now = Instant::now();
        for unit in dirty.units {
            self.push_dirty(unit, now);
        }
        if !dirty.subnets.is_empty() {
            self.shared.read(|index| self.ports.sync(index));
            let holders = self.ports.units().filter(|(_, ports)| {
                ports
                    .iter()
                    .any(|port| dirty.subnets.contains(&*port.subnet))
            });
            let holders: Vec<Unit> = holders.map(|(unit, _)| unit.clone()).collect();
            self.queue.push_cold(holders);
        }
        if now >= self.queue.resync {
            self.queue.resync = now + RESYNC;
            self.push_everything();
        }
        if dirty.blocked || now >= self.queue.retry {
            self.queue.retry = now + RETRY;
            self.unfreeze();
            self.retry_blocked();
        }
    }

    fn push_dirty(&mut self, unit: Unit, now: Instant) {
        if matches!(unit, Unit::Pod { .. }) && self.ports.of(&unit).is_empty() {
            self.seen.entry(unit.clone()).or_insert(now);
        }
        self.queue.push(unit);
    }

    /// Plans what should have rows and has none yet. At the beginning of a term, in which whether
    /// all is well with the others is looked at after that.
    pub(super) fn push_waiting(&mut self) {
        let now = Instant::now();
        let Self {
            shared,
            observed,
            ports,
            ..
        } = self;
        let waits = |index: &Index, unit: &Unit| match unit {
            Unit::Pod { ns, name } => {
                let pod = index.pods.get(&(ns.clone(), name.clone()));
                let uid = pod.map(|pod| &*pod.uid);
                !ports.of(unit).iter().any(|port| Some(&*port.uid) == uid)
            }
            _ => observed.rows_of(unit).next().is_none(),
        };
        let waiting: Vec<Unit> =
            shared.read(|index| index.units().filter(|unit| waits(index, unit)).collect());
        for unit in waiting {
            self.push_dirty(unit, now);
        }
    }

    /// Plans the blocked units again.
    pub(super) fn retry_blocked(&mut self) {
        for unit in self.blocked.keys() {
            self.queue.push(unit.clone());
        }
    }

    /// Plans the units again that wait for rows of others.
    pub(super) fn retry_waiting(&mut self) {
        let waits = |problems: &[Problem]| problems.iter().any(|p| p.reason == WAITING);
        for (unit, _) in self.blocked.iter().filter(|(_, problems)| waits(problems)) {
            self.queue.push(unit.clone());
        }
    }

    /// Plans everything that should have rows, has rows, or has addresses.
    pub(super) fn push_everything(&mut self) {
        let Self { shared, queue, .. } = self;
        shared.read(|index| queue.push_cold(index.units()));
        self.queue.push_cold(self.observed.units());
        self.queue
            .push_cold(self.ports.units().map(|(unit, _)| unit.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(count: usize) -> impl Iterator<Item = Unit> {
        (0..count).map(|n| Unit::pod("ns", format!("p{n}")))
    }

    #[tokio::test]
    async fn what_is_hot_does_not_wait_for_a_look_at_everything() {
        let mut queue = Queue::default();
        let waiting = Unit::pod("ns", "waiting");
        queue.push_cold(pods(2 * BATCH));
        queue.push_cold([Unit::Vpc("default".into())]);
        queue.push(waiting.clone());
        let first = queue.take();
        assert_eq!(first.len(), FILLED);
        assert_eq!(first[0], Unit::Vpc("default".into()));
        assert!(first.contains(&waiting));
        // Nothing is hot any more.
        assert_eq!(queue.take().len(), BATCH);
    }

    #[tokio::test]
    async fn a_full_batch_of_hot_units_has_no_cold_ones() {
        let mut queue = Queue::default();
        queue.push_cold([Unit::pod("ns", "cold")]);
        pods(BATCH).for_each(|unit| queue.push(unit));
        let batch = queue.take();
        assert_eq!(batch.len(), BATCH);
        assert!(!batch.contains(&Unit::pod("ns", "cold")));
        assert_eq!(queue.take(), [Unit::pod("ns", "cold")]);
    }
}
