//! What a server says of the database in its `_Server` database (ovsdb-server(7), "_Server").

use serde_json::{Value, json};

/// The monitor's id, as the server repeats it.
pub(crate) const MONITOR: &str = "_Server";

/// The row of `Database` that is about our database.
#[derive(Debug)]
pub(crate) struct Server {
    database: String,
    leader_only: bool,
    /// False where the server has no `_Server` database (before Open vSwitch 2.9).
    known: bool,
    row: Option<Row>,
    seen: Seen,
}

/// How far a cluster had come when it was last looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Seen {
    /// The cluster's id: the index says nothing of another cluster's members.
    cluster: Value,
    index: i64,
}

#[derive(Debug, Default)]
struct Row {
    cluster: Value,
    clustered: bool,
    relay: bool,
    connected: bool,
    leader: bool,
    index: i64,
}

impl Server {
    pub(crate) fn new(database: &str, leader_only: bool, seen: Seen) -> Self {
        let database = database.to_owned();
        Server {
            database,
            leader_only,
            known: true,
            row: None,
            seen,
        }
    }

    /// The parameters of `monitor_cond`. The log index changes with every transaction, so it is
    /// asked for only if a member that lags could be met.
    pub(crate) fn request(&self, with_index: bool) -> Value {
        let mut columns = vec!["name", "model", "connected", "leader"];
        if with_index && !self.leader_only {
            columns.extend(["cid", "index"]);
        }
        let clause = json!([["name", "==", self.database]]);
        json!(["_Server", MONITOR, { "Database": [{ "columns": columns, "where": clause }] }])
    }

    /// The server has no `_Server` database.
    pub(crate) fn unknown(&mut self) {
        self.known = false;
    }

    /// Takes in `<table-updates2>`.
    pub(crate) fn apply(&mut self, updates: &Value) {
        let rows = updates.get("Database").and_then(Value::as_object);
        for update in rows.into_iter().flat_map(|rows| rows.values()) {
            if update.get("delete").is_some() {
                self.row = None;
                continue;
            }
            let members = ["initial", "insert", "modify"];
            let Some(columns) = members.iter().find_map(|member| update.get(member)) else {
                continue;
            };
            let row = self.row.get_or_insert_default();
            if let Some(model) = columns.get("model").and_then(Value::as_str) {
                row.clustered = model == "clustered";
                row.relay = model == "relay";
            }
            if let Some(connected) = columns.get("connected").and_then(Value::as_bool) {
                row.connected = connected;
            }
            if let Some(leader) = columns.get("leader").and_then(Value::as_bool) {
                row.leader = leader;
            }
            if let Some(cluster) = columns.get("cid") {
                row.cluster = cluster.clone();
            }
            if let Some(index) = columns.get("index").and_then(Value::as_i64) {
                row.index = row.index.max(index);
            }
        }
    }

    /// Why the server will not do.
    pub(crate) fn check(&self) -> Result<(), String> {
        let database = &self.database;
        if !self.known {
            return Ok(());
        }
        let Some(row) = &self.row else {
            return Err(format!("the server does not serve {database}"));
        };
        if (row.clustered || row.relay) && !row.connected {
            let of = if row.relay {
                "its source"
            } else {
                "the cluster's majority"
            };
            return Err(format!("the server of {database} is not connected to {of}"));
        }
        if row.clustered && self.leader_only && !row.leader {
            return Err(format!(
                "the server is not the leader of {database}'s cluster"
            ));
        }
        let (index, seen) = (row.index, self.seen.index);
        if row.clustered && row.cluster == self.seen.cluster && (1..seen).contains(&index) {
            return Err(format!(
                "the server's copy of {database} is old ({index} before {seen})"
            ));
        }
        Ok(())
    }

    /// The newest state seen, here or before.
    pub(crate) fn seen(&self) -> Seen {
        match &self.row {
            Some(row) if row.index > 0 => Seen {
                cluster: row.cluster.clone(),
                index: row.index,
            },
            _ => self.seen.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(member: &str, columns: &Value) -> Value {
        json!({ "Database": { "5e8c2d2c-0000-0000-0000-000000000000": { member: columns } } })
    }

    #[test]
    fn a_follower_will_do_unless_the_leader_is_wanted() {
        let follower =
            json!({"name": "D", "model": "clustered", "connected": true, "leader": false});
        for leader_only in [false, true] {
            let mut server = Server::new("D", leader_only, Seen::default());
            assert!(server.check().is_err());
            server.apply(&row("initial", &follower));
            assert_eq!(server.check().is_ok(), !leader_only);
            server.apply(&row("modify", &json!({"leader": true})));
            assert_eq!(server.check(), Ok(()));
            server.apply(&row("modify", &json!({"connected": false})));
            assert!(server.check().unwrap_err().contains("majority"));
            server.apply(&row("delete", &Value::Null));
            assert!(server.check().unwrap_err().contains("does not serve"));
        }
    }

    #[test]
    fn a_member_that_lags_is_passed_over() {
        let seen = Seen {
            cluster: json!("a"),
            index: 10,
        };
        let mut server = Server::new("D", false, seen.clone());
        let mut columns = json!({"model": "clustered", "connected": true, "cid": "a", "index": 9});
        server.apply(&row("initial", &columns));
        assert!(server.check().is_err());
        server.apply(&row("modify", &json!({"index": 11})));
        assert_eq!(server.check(), Ok(()));
        assert_eq!(
            server.seen(),
            Seen {
                index: 11,
                ..seen.clone()
            }
        );
        let mut other = Server::new("D", false, seen);
        columns["cid"] = json!("b");
        other.apply(&row("initial", &columns));
        assert_eq!(other.check(), Ok(()));
    }

    #[test]
    fn servers_without_the_database_and_single_servers_will_do() {
        let mut server = Server::new("D", true, Seen::default());
        server.apply(&row(
            "initial",
            &json!({"model": "standalone", "connected": false}),
        ));
        assert_eq!(server.check(), Ok(()));
        let mut old = Server::new("D", true, Seen::default());
        old.unknown();
        assert_eq!(old.check(), Ok(()));
    }
}
