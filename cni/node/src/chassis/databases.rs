//! The two databases of a node, as its loops see them: errors are sentences for the operator.

use std::time::Duration;

use ovsdb::{Client, Replica, Table};
use tokio::time::Instant;

/// The longest a local transaction may take.
const TRANSACTION: Duration = Duration::from_secs(10);

/// The two databases that a node talks to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Databases {
    /// The local Open vSwitch database.
    pub(crate) vswitch: Client,
    /// OVN's southbound database.
    pub(crate) southbound: Client,
}

/// Why a database cannot be relied on now.
pub(crate) fn trouble(client: &Client, replica: &Replica) -> Option<String> {
    let status = client.status().borrow().clone();
    if !status.connected {
        return Some(
            status
                .last_error
                .unwrap_or_else(|| "not connected yet".to_owned()),
        );
    }
    (!replica.synced()).then(|| "its contents are still being read".to_owned())
}

/// All rows of a table that the replica holds.
pub(crate) fn rows<T: Table>(replica: &Replica) -> Result<Vec<T>, String> {
    replica
        .read(|snapshot| snapshot.rows::<T>().collect::<Result<Vec<T>, _>>())
        .map_err(|error| format!("{error}: this version of Outboard does not know that schema"))
}

/// When a local transaction that starts now has to be over.
pub(crate) fn deadline() -> Instant {
    Instant::now() + TRANSACTION
}
