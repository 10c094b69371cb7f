//! The southbound database as this node's pods need it: the rows that carry this chassis's marker.

use std::collections::BTreeMap;

use api::names::marker;
use api::{TAG_HOST, TAG_ROLE};
use cni_bin::code;
use ovsdb::{Client, Condition, MonitorSpec, Replica, Uuid};
use tokio::time::Instant;

use crate::error::Error;
use crate::row::{self, Missing, Row, Wanted};
use crate::rows::{external_id, select, text};

ovsdb::table! {
    /// A logical port.
    struct PortBinding in "Port_Binding" {
        logical_port: String,
        chassis: Option<Uuid>,
        requested_chassis: Option<Uuid>,
        /// Of a machine that migrates: the chassis that have it beside the first one (OVN 22.06 and later).
        additional_chassis: Vec<Uuid>,
        requested_additional_chassis: Vec<Uuid>,
        external_ids: BTreeMap<String, String>,
        options: BTreeMap<String, String>,
    }
}

ovsdb::table! {
    /// This node's chassis.
    struct Chassis in "Chassis" {
        name: String,
    }
}

/// A handle of the southbound database.
pub(crate) struct Southbound {
    client: Client,
    replica: Replica,
    chassis: String,
}

/// Why there is no row.
#[derive(Debug)]
pub(crate) struct Unfound {
    /// What is said of it.
    pub(crate) error: Error,
    /// The database could not be asked: the row may be there.
    pub(crate) away: bool,
}

impl From<Unfound> for Error {
    fn from(unfound: Unfound) -> Self {
        unfound.error
    }
}

impl Southbound {
    /// Follows the rows of `chassis`: a key of its own per chassis, because a migrating VM's row names two (design, §2.1).
    pub(crate) fn new(client: Client, chassis: &str) -> Self {
        let marked = BTreeMap::from([(marker(chassis), String::new())]);
        let replica = client.monitor(
            MonitorSpec::new()
                .table::<PortBinding>()
                .where_([Condition::includes("external_ids", marked)])
                .table::<Chassis>()
                .where_([Condition::eq("name", chassis)]),
        );
        Self {
            client,
            replica,
            chassis: chassis.to_owned(),
        }
    }

    /// Why the database cannot be relied on now.
    pub(crate) fn trouble(&self) -> Option<String> {
        crate::chassis::trouble(&self.client, &self.replica)
    }

    /// The client, to share its connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for the row until the deadline; the error says what is missing.
    ///
    /// Rows that were read before the connection was lost count: the allocation holds while the database is away.
    pub(crate) async fn row(&self, wanted: &Wanted<'_>, deadline: Instant) -> Result<Row, Unfound> {
        let mut changed = self.replica.changed();
        loop {
            let missing = match self.find(wanted) {
                Ok(row) => return Ok(row),
                Err(missing) => missing,
            };
            if !missing.may_come() || !crate::wait::change(&mut changed, deadline).await {
                return Err(self.explain(&missing, wanted));
            }
        }
    }

    /// Whether the row is here already.
    pub(crate) fn knows(&self, wanted: &Wanted<'_>) -> bool {
        self.find(wanted).is_ok()
    }

    /// The name of this node's chassis.
    pub(crate) fn chassis(&self) -> &str {
        &self.chassis
    }

    fn find(&self, wanted: &Wanted<'_>) -> Result<Row, Missing> {
        let rows: Vec<PortBinding> = self
            .replica
            .read(|rows| select(rows, |row| wanted.may_be(|key| external_id(row, key))));
        row::find(
            rows.iter()
                .map(|row| (row.logical_port.as_str(), &row.external_ids)),
            wanted,
        )
    }

    /// Waits for the row of a host's own interface until the deadline.
    pub(crate) async fn host_row(&self, host: &str, deadline: Instant) -> Result<Row, Unfound> {
        let mut changed = self.replica.changed();
        loop {
            let rows: Vec<PortBinding> = self.replica.read(|rows| {
                select(rows, |row| {
                    external_id(row, TAG_HOST) == Some(host)
                        && external_id(row, TAG_ROLE) == Some("node")
                })
            });
            let found = row::find_host(
                rows.iter()
                    .map(|row| (row.logical_port.as_str(), &row.external_ids)),
                host,
            );
            let (away, why) = match found {
                Some(Ok(row)) => return Ok(row),
                Some(Err(why)) => (false, format!("it cannot be read: {why}")),
                None => self.trouble().map_or_else(
                    || {
                        let chassis = &self.chassis;
                        (false, format!("chassis {chassis} has none for that host"))
                    },
                    |trouble| {
                        let why = format!("the southbound database cannot be asked: {trouble}");
                        (true, why)
                    },
                ),
            };
            if !crate::wait::change(&mut changed, deadline).await {
                let error = Error::new(
                    code::TRY_AGAIN_LATER,
                    format!("Node {host}: no port on the join subnet: {why}."),
                    "Look at cni-controller's log; it writes the port when a Dpu names the host.",
                );
                return Err(Unfound { error, away });
            }
        }
    }

    fn explain(&self, missing: &Missing, wanted: &Wanted<'_>) -> Unfound {
        match self.trouble() {
            Some(trouble) if missing.may_come() => Unfound {
                error: Error::new(
                    code::TRY_AGAIN_LATER,
                    format!(
                        "Pod {}: its address is not known here, and the southbound database cannot be asked: {trouble}.",
                        wanted.pod
                    ),
                    "See that the OVN databases run, that cni-node's --sb names them and that its certificate is valid.",
                ),
                away: true,
            },
            _ => Unfound {
                error: missing.error(wanted, &self.chassis),
                away: false,
            },
        }
    }

    /// Who has bound a port, in a phrase, when it is not this node's ovn-controller.
    pub(crate) fn binding(&self, logical_port: &str) -> Option<String> {
        self.replica.read(|rows| {
            let ours = select::<Chassis>(rows, |_| true).pop().map(|chassis| chassis.uuid);
            let row = select(rows, |row| text(row, "logical_port") == Some(logical_port)).pop();
            match (row, ours) {
                (None, _) => Some(format!(
                    "port {logical_port} is no longer in the southbound database, or no longer this chassis's"
                )),
                (Some(_), None) => Some(format!(
                    "chassis {} is not in the southbound database: ovn-controller has not registered it",
                    self.chassis
                )),
                // The second one of a machine that migrates: the first has it, as it should.
                (Some(row), Some(ours))
                    if row.requested_additional_chassis.contains(&ours)
                        || row.additional_chassis.contains(&ours) =>
                {
                    None
                }
                (Some(PortBinding { chassis: Some(bound), .. }), Some(ours)) if bound != ours => {
                    Some(format!("port {logical_port} is bound by another chassis ({bound})"))
                }
                (Some(row), Some(ours)) if row.requested_chassis != Some(ours) => Some(format!(
                    "port {logical_port} is for another chassis: its requested chassis is {}, not {}",
                    // Anybody's word, but only for a sentence.
                    row.options.get("requested-chassis").map_or("none", String::as_str),
                    self.chassis
                )),
                _ => None,
            }
        })
    }
}
