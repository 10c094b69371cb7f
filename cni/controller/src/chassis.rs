//! The southbound database; chassis of removed nodes go from it.
//!
//! Nobody else removes them when a node dies without saying goodbye, and a stale one keeps tunnels
//! and flows on every other node. Reached by the listener that has no role: OVN's role lets a
//! chassis remove but its own.

use crate::engine::Engine;
use crate::rows::{Problem, Unit};
use api::names;
use ovsdb::{Client, Condition, Transaction};
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
        tracing::info!(chassis = name, "removed the chassis of a removed node");
        Ok(())
    }
}

impl Engine {
    /// Removes the chassis of the nodes in `batch` that are gone. Their rows go only after that,
    /// so that a crash in between forgets nothing: a node whose chassis cannot be removed is left
    /// out and tried again.
    pub(crate) async fn remove_chassis(&mut self, mut batch: Vec<Unit>) -> Vec<Unit> {
        let Some(chassis) = self.chassis.clone() else {
            return batch;
        };
        let gone: Vec<String> = batch
            .iter()
            .filter(|unit| !self.shared.read(|index| index.wants(unit)))
            .filter(|unit| self.observed.rows_of(unit).next().is_some())
            .filter_map(|unit| match unit {
                Unit::Node(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        for node in gone {
            let Err(error) = chassis.remove(&names::chassis(&node)).await else {
                continue;
            };
            let unit = Unit::Node(node);
            let sentence = format!(
                "{unit} is gone and its chassis could not be removed: {error}; check --sb; it is tried again every 10 s"
            );
            batch.retain(|other| *other != unit);
            self.report_problems(&unit, vec![Problem::new("ChassisNotRemoved", sentence)]);
        }
        batch
    }
}
