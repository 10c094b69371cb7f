//! From rows to the database: one transaction for many units, fewer if it refuses.

use super::prepare::{Handover, Prepared};
use super::report::waits_for;
use super::{End, Engine};
use crate::ipam::Pool;
use crate::metrics::Outcome;
use crate::plan::plan;
use crate::rows::{DesiredRow, Problem, RowId, Unit};
use fail::fail_point;
use ovsdb::{Condition, Datum, Mutation, RefusalKind, TransactError, Transaction};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// A transaction that has no answer by then counts as lost.
const DEADLINE: Duration = Duration::from_secs(10);
/// Pause after the server itself could not.
const SERVER_PAUSE: Duration = Duration::from_secs(1);
/// Keys in Logical_Switch.external_ids with the cursors of the pools, IPv4 and IPv6.
pub(super) const CURSORS: [&str; 2] = ["outboard-next-v4", "outboard-next-v6"];

/// How a transaction ended, as far as the loop cares.
enum Sent {
    Done,
    /// The database does not want it: none of it happened.
    Refused(String),
    /// Perhaps; the replica will tell once it is in step again.
    Unclear,
    Guarded,
}

impl Engine {
    /// Plans the next units and carries the plan out.
    pub(super) async fn work(&mut self) -> Result<(), End> {
        let batch = self.queue.take();
        if batch.is_empty() {
            return Ok(());
        }
        let batch = self.remove_chassis(batch).await;
        let prepared = self.prepare(batch);
        for handover in prepared.iter().flat_map(|unit| &unit.handed_over) {
            self.handed_over(handover);
        }
        self.cursors.extend(self.ports.take_touched());
        let mut subnets = self.cursors.clone();
        let mut parts = VecDeque::from([prepared]);
        while let Some(part) = parts.pop_front() {
            self.part(part, &mut parts).await?;
        }
        // Addresses came back when their rows were gone: perhaps nothing else happens for a while.
        let released = self.ports.take_touched();
        subnets.extend(released.iter().cloned());
        self.cursors.extend(released);
        self.report_states(&subnets);
        // Long planning must not keep the watchers and the connection from running.
        tokio::task::yield_now().await;
        Ok(())
    }

    /// One transaction. What it refuses is put back into `parts` by halves, down to the one unit
    /// that is at fault.
    async fn part(
        &mut self,
        mut part: Vec<Prepared>,
        parts: &mut VecDeque<Vec<Prepared>>,
    ) -> Result<(), End> {
        let desired: Vec<(Unit, Vec<DesiredRow>)> = part
            .iter_mut()
            .filter_map(|unit| Some((unit.unit.clone(), unit.rows.clone()?)))
            .collect();
        let plan = plan(&self.observed, &desired);
        for (unit, missing) in plan.blocked {
            if let Some(unit) = part.iter_mut().find(|prepared| prepared.unit == unit) {
                unit.rows = None;
                unit.problems.push(waits_for(&missing));
            }
        }
        let mut transaction = plan.transaction;
        let cursors = self.cursor_mutations(&mut transaction);
        let sent = if transaction.is_empty() {
            Sent::Done
        } else {
            fail_point!("controller-before-transact");
            let sent = self.send(transaction, part.len()).await;
            fail_point!("controller-after-transact");
            sent
        };
        match sent {
            Sent::Done => {
                for subnet in cursors {
                    self.cursors.remove(&subnet);
                }
                for unit in part {
                    self.settle(unit);
                }
                Ok(())
            }
            Sent::Refused(why) if part.len() == 1 => {
                for mut unit in part {
                    unit.rows = None;
                    unit.problems.push(Problem::new(
                        "DatabaseRefused",
                        format!("the northbound database refuses the rows of {}: {why}; it is tried again every 10 s", unit.unit),
                    ));
                    self.settle(unit);
                }
                Ok(())
            }
            Sent::Refused(why) => {
                tracing::debug!(units = part.len(), why, "a batch was refused and is split");
                let second = part.split_off(part.len() / 2);
                parts.push_front(second);
                parts.push_front(part);
                Ok(())
            }
            Sent::Unclear => {
                for unit in part.into_iter().chain(parts.drain(..).flatten()) {
                    self.queue.push(unit.unit);
                }
                self.resynced().await;
                Ok(())
            }
            Sent::Guarded => {
                self.observed.drain(&self.replica, &mut self.changes);
                let fence = self.fence.as_ref();
                let lost = fence.is_some_and(|fence| fence.is_lost(&self.observed));
                Err(if lost { End::Fenced } else { End::MarkGone })
            }
        }
    }

    /// Sends a transaction behind the fence, and takes over what it changed.
    async fn send(&mut self, transaction: Transaction, units: usize) -> Sent {
        let Some(fence) = &self.fence else {
            return Sent::Guarded;
        };
        let mut guarded = Transaction::new();
        guarded.wait(fence.guard());
        guarded.append(transaction);
        let start = Instant::now();
        let result = self.nb.transact(guarded, start + DEADLINE).await;
        self.metrics
            .transaction_duration
            .observe(start.elapsed().as_secs_f64());
        self.metrics.transaction_units.observe(units as f64);
        let (sent, outcome) = match result {
            Ok(_) => (Sent::Done, "done"),
            Err(error) => match (&error, error.refusal().map(|refusal| refusal.kind)) {
                (_, Some(RefusalKind::Guard)) => (Sent::Guarded, "fenced"),
                (_, Some(RefusalKind::Server)) => {
                    tracing::warn!("{error}");
                    (Sent::Unclear, "refused")
                }
                (_, Some(_)) => (Sent::Refused(error.to_string()), "refused"),
                (TransactError::NotConnected { .. }, None) => (Sent::Unclear, "unsent"),
                (_, None) => {
                    tracing::warn!("{error}; the database is read again");
                    (Sent::Unclear, "unknown")
                }
            },
        };
        self.metrics
            .transactions
            .get_or_create(&Outcome { outcome })
            .inc();
        if let Sent::Done = sent {
            // What this transaction changed arrived before its answer. It needs no second look;
            // what somebody else changed at that moment gets one with the next resync.
            let touched = self.observed.drain(&self.replica, &mut self.changes);
            if touched.all {
                // The connection was lost just after the answer, and everything was read anew.
                self.push_everything();
            }
        }
        sent
    }

    /// Returns when the replica is in step with the database again: when a transaction that was
    /// sent after the unclear one has been answered. (A new session asks for the replica's contents
    /// before it sends transactions, and answers come in order.)
    async fn resynced(&mut self) {
        self.checks
            .nb
            .not_ready("the connection to the northbound database is lost");
        while let Some(fence) = &self.fence {
            let mut barrier = Transaction::new();
            barrier.wait(fence.guard());
            let answer = self.nb.transact(barrier, Instant::now() + DEADLINE).await;
            match answer.as_ref().map_err(TransactError::refusal) {
                // It is out of room or the like: do not ask it in a loop.
                Err(Some(refusal)) if refusal.kind == RefusalKind::Server => {
                    tokio::time::sleep(SERVER_PAUSE).await;
                }
                // Refused by the fence: the next transaction will be too.
                Ok(_) | Err(Some(_)) => break,
                Err(None) => {}
            }
        }
        self.checks.nb.ready();
        // A cluster may carry the lost transaction out even now: look at everything soon.
        self.queue.resync_soon();
    }

    /// A unit's rows stand (or cannot): gives addresses back, says what is wrong.
    fn settle(&mut self, done: Prepared) {
        let Prepared {
            unit,
            rows,
            released,
            handed_over: _,
            migrating,
            problems,
        } = done;
        self.count_migrating(&unit, migrating);
        if rows.is_some() {
            for port in &released {
                self.ports.release(&unit, port);
            }
            if !released.is_empty() {
                self.retry_blocked();
            }
            if let Some(seen) = self.seen.remove(&unit)
                && !self.ports.of(&unit).is_empty()
            {
                self.observe_creation(&unit, seen);
            }
        }
        if let Unit::Vpc(name) = &unit {
            self.report_vpc(name);
        }
        let is_well = problems.is_empty();
        self.report_problems(&unit, problems);
        if is_well && matches!(unit, Unit::Vpc(_) | Unit::Subnet(_)) {
            self.retry_waiting();
        }
    }

    /// A machine's port is its next pod's: that one's unit writes it. It is no new one, and its time nobody's measure.
    fn handed_over(&mut self, Handover { from, to, lsp }: &Handover) {
        tracing::info!(%lsp, %from, %to, "a machine's port goes to its next pod");
        self.metrics.handed_over.inc();
        self.seen.remove(to);
        self.queue.push(to.clone());
    }

    fn count_migrating(&mut self, unit: &Unit, ports: usize) {
        match ports {
            0 => drop(self.migrating.remove(unit)),
            ports => drop(self.migrating.insert(unit.clone(), ports)),
        }
        let all = self.migrating.values().sum::<usize>();
        let all = i64::try_from(all).unwrap_or(i64::MAX);
        self.metrics.migrating.set(all);
    }

    /// Writes the cursors that the database does not have yet, of switches that it has. Gives the
    /// subnets whose cursors stand once the transaction is carried out.
    fn cursor_mutations(&self, transaction: &mut Transaction) -> Vec<String> {
        let mut written = Vec::new();
        for subnet in &self.cursors {
            let Some(pool) = self.ports.pool(subnet) else {
                written.push(subnet.clone());
                continue;
            };
            let Some(switch) = self.observed.find(&RowId::new("Logical_Switch", subnet)) else {
                continue;
            };
            written.push(subnet.clone());
            let ids = switch.get("external_ids");
            let differs = |(key, value): &(&str, String)| {
                ids.and_then(|ids| ids.get_str(key)) != Some(value.as_str())
            };
            let differing: BTreeMap<&str, String> =
                cursor_keys(pool).into_iter().filter(differs).collect();
            if differing.is_empty() {
                continue;
            }
            let change = [
                Mutation::delete("external_ids", Datum::set(differing.keys().copied())),
                Mutation::insert("external_ids", Datum::map(differing)),
            ];
            transaction.mutate("Logical_Switch", [Condition::uuid(switch.uuid())], change);
        }
        written
    }
}

fn cursor_keys(pool: &Pool) -> Vec<(&'static str, String)> {
    let families = [false, true].into_iter().zip(CURSORS);
    families
        .filter_map(|(v6, key)| Some((key, pool.cursor(v6)?.to_string())))
        .collect()
}
