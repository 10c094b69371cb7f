//! The southbound database; chassis of removed nodes, and of nodes that became hosts of a DPU, go from it.
//!
//! Nobody else removes them when a node dies without saying goodbye, and a stale one keeps tunnels
//! and flows on every other node. A host never has one of its own: its removal concerns no chassis.
//! Reached by the listener that has no role: OVN's role lets a
//! chassis remove but its own.

use crate::engine::Engine;
use crate::rows::{Problem, Unit};
use api::{TAG_HOST, names};
use ovsdb::{Client, Condition, Row, Transaction};
use std::time::Duration;
use tokio::time::Instant;

/// Nodes are rarely removed; the engine waits this long for the southbound database.
const DEADLINE: Duration = Duration::from_secs(2);

/// The chassis in the southbound database.
#[derive(Clone, Debug)]
pub struct Chassis(Client);

impl Chassis {
    /// By this connection to the southbound database.
    pub fn new(sb: Client) -> Self {
        Self(sb)
    }

    /// The connection.
    pub(crate) fn client(&self) -> &Client {
        &self.0
    }

    /// Removes the chassis `name`, if it is there.
    pub async fn remove(&self, name: &str) -> Result<(), ovsdb::TransactError> {
        let mut transaction = Transaction::new();
        for table in ["Chassis_Private", "Chassis"] {
            transaction.delete(table, [Condition::eq("name", name)]);
        }
        self.0
            .transact(transaction, Instant::now() + DEADLINE)
            .await?;
        tracing::info!(
            chassis = name,
            "removed the chassis of a node that has none any more"
        );
        Ok(())
    }
}

impl Engine {
    /// Removes the chassis of the nodes in `batch` that are gone, or are hosts now. Their rows go only after that,
    /// so that a crash in between forgets nothing: a node whose chassis cannot be removed is left
    /// out and tried again.
    pub(crate) async fn remove_chassis(&mut self, mut batch: Vec<Unit>) -> Vec<Unit> {
        let Some(chassis) = self.chassis.clone() else {
            return batch;
        };
        let gone: Vec<String> = batch
            .iter()
            .filter_map(|unit| match unit {
                Unit::Node(name) if self.has_lost_its_chassis(unit, name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        for node in gone {
            let Err(error) = chassis.remove(&names::chassis(&node)).await else {
                continue;
            };
            let unit = Unit::Node(node);
            let sentence = format!(
                "{unit} is gone, or the host of a DPU now, and its chassis could not be removed: {error}; check --sb; it is tried again every 10 s"
            );
            batch.retain(|other| *other != unit);
            self.report_problems(&unit, vec![Problem::new("ChassisNotRemoved", sentence)]);
        }
        batch
    }

    /// Whether the node had a chassis of its own when its rows were written, and is to have none.
    fn has_lost_its_chassis(&self, unit: &Unit, name: &str) -> bool {
        let mut rows = self.observed.rows_of(unit).peekable();
        let behind_a_dpu = |row: &Row| {
            let ids = row.get("external_ids");
            ids.is_some_and(|ids| ids.get_str(TAG_HOST).is_some())
        };
        if rows.peek().is_none() || rows.any(behind_a_dpu) {
            return false;
        }
        self.shared.read(|index| {
            let place = index.place(name);
            !index.wants(unit) || place.is_some_and(|place| place.host.is_some())
        })
    }
}
