//! Transactions (RFC 7047 §4.1.3 and §5.2).

use crate::atom::NamedUuid;
use crate::condition::{Condition, Mutation};
use crate::datum::Datum;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// Columns and their values, for an insert, an update or a wait.
///
/// ```
/// let port = ovsdb::Values::new().set("name", "port").set("enabled", true);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Values(BTreeMap<String, Datum>);

impl Values {
    /// None yet.
    pub fn new() -> Self {
        Values::default()
    }

    /// With this column, in place of an earlier value of the same column.
    #[must_use]
    pub fn set(mut self, column: impl Into<String>, value: impl Into<Datum>) -> Self {
        self.0.insert(column.into(), value.into());
        self
    }

    /// The columns and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Datum)> {
        self.0
            .iter()
            .map(|(column, value)| (column.as_str(), value))
    }

    /// Whether there is no column.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<Datum>> FromIterator<(K, V)> for Values {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(columns: I) -> Self {
        Values(
            columns
                .into_iter()
                .map(|(k, v)| (k.into(), v.into()))
                .collect(),
        )
    }
}

impl<K: Into<String>, V: Into<Datum>, const N: usize> From<[(K, V); N]> for Values {
    fn from(columns: [(K, V); N]) -> Self {
        columns.into_iter().collect()
    }
}

/// A guard (RFC 7047 §5.2.6): the transaction goes through only if it holds, else it is refused
/// with [`crate::RefusalKind::Guard`]. With no timeout given it is checked once.
#[derive(Debug, Clone, PartialEq)]
pub struct Wait {
    table: String,
    conditions: Vec<Condition>,
    columns: Vec<String>,
    until: &'static str,
    rows: Vec<Values>,
    timeout_ms: u64,
}

impl Wait {
    /// The rows that meet the conditions have exactly these values in these columns.
    pub fn equal(
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
        columns: impl IntoIterator<Item = impl Into<String>>,
        rows: impl IntoIterator<Item = Values>,
    ) -> Self {
        Wait {
            table: table.into(),
            conditions: conditions.into_iter().collect(),
            columns: columns.into_iter().map(Into::into).collect(),
            until: "==",
            rows: rows.into_iter().collect(),
            timeout_ms: 0,
        }
    }

    /// The rows that meet the conditions do not have exactly these values in these columns.
    pub fn differ(
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
        columns: impl IntoIterator<Item = impl Into<String>>,
        rows: impl IntoIterator<Item = Values>,
    ) -> Self {
        Wait {
            until: "!=",
            ..Wait::equal(table, conditions, columns, rows)
        }
    }

    /// This row meets the conditions, and no other row does.
    pub fn row(
        table: impl Into<String>,
        uuid: Uuid,
        conditions: impl IntoIterator<Item = Condition>,
    ) -> Self {
        Wait::equal(
            table,
            conditions,
            ["_uuid"],
            [Values::new().set("_uuid", uuid)],
        )
    }

    /// No row meets the conditions.
    pub fn no_row(
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
    ) -> Self {
        Wait::equal(table, conditions, ["_uuid"], [])
    }

    /// Some row meets the conditions.
    pub fn some_row(
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
    ) -> Self {
        Wait {
            until: "!=",
            ..Wait::no_row(table, conditions)
        }
    }

    /// Wait so many milliseconds for it to hold.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u64) -> Self {
        self.timeout_ms = milliseconds;
        self
    }
}

/// One operation of RFC 7047 §5.2.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    Insert {
        table: String,
        row: Values,
        name: NamedUuid,
    },
    Select {
        table: String,
        conditions: Vec<Condition>,
        columns: Vec<String>,
    },
    Update {
        table: String,
        conditions: Vec<Condition>,
        row: Values,
    },
    Mutate {
        table: String,
        conditions: Vec<Condition>,
        mutations: Vec<Mutation>,
    },
    Delete {
        table: String,
        conditions: Vec<Condition>,
    },
    Wait(Wait),
    Commit,
    Comment(String),
}

impl Op {
    pub(crate) fn table(&self) -> Option<&str> {
        match self {
            Op::Insert { table, .. }
            | Op::Select { table, .. }
            | Op::Update { table, .. }
            | Op::Mutate { table, .. }
            | Op::Delete { table, .. }
            | Op::Wait(Wait { table, .. }) => Some(table),
            Op::Commit | Op::Comment(_) => None,
        }
    }
}

/// Operations that are carried out together or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transaction {
    pub(crate) ops: Vec<Op>,
}

impl Transaction {
    /// No operations yet.
    pub fn new() -> Self {
        Transaction::default()
    }

    /// The number of operations: the index that the next one will have.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is no operation.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Inserts a row (§5.2.1). The name stands for it in the values of this transaction's
    /// operations, and finds its UUID in the [`crate::Outcome`].
    pub fn insert(&mut self, table: impl Into<String>, row: impl Into<Values>) -> NamedUuid {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = NamedUuid(format!("row{number}").into());
        self.ops.push(Op::Insert {
            table: table.into(),
            row: row.into(),
            name: name.clone(),
        });
        name
    }

    /// Reads rows (§5.2.2): these columns of those that meet all conditions.
    pub fn select(
        &mut self,
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
        columns: impl IntoIterator<Item = impl Into<String>>,
    ) -> &mut Self {
        let columns = columns.into_iter().map(Into::into).collect();
        let conditions = conditions.into_iter().collect();
        self.push(Op::Select {
            table: table.into(),
            conditions,
            columns,
        })
    }

    /// Sets columns (§5.2.3) of the rows that meet all conditions.
    pub fn update(
        &mut self,
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
        row: impl Into<Values>,
    ) -> &mut Self {
        let conditions = conditions.into_iter().collect();
        self.push(Op::Update {
            table: table.into(),
            conditions,
            row: row.into(),
        })
    }

    /// Changes columns in place (§5.2.4) in the rows that meet all conditions.
    pub fn mutate(
        &mut self,
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
        mutations: impl IntoIterator<Item = Mutation>,
    ) -> &mut Self {
        let conditions = conditions.into_iter().collect();
        let mutations = mutations.into_iter().collect();
        self.push(Op::Mutate {
            table: table.into(),
            conditions,
            mutations,
        })
    }

    /// Deletes (§5.2.5) the rows that meet all conditions.
    pub fn delete(
        &mut self,
        table: impl Into<String>,
        conditions: impl IntoIterator<Item = Condition>,
    ) -> &mut Self {
        let conditions = conditions.into_iter().collect();
        self.push(Op::Delete {
            table: table.into(),
            conditions,
        })
    }

    /// Adds a guard (§5.2.6). Guards go first: what follows them is visible to them.
    pub fn wait(&mut self, wait: Wait) -> &mut Self {
        self.push(Op::Wait(wait))
    }

    /// Has the server answer only when the transaction is on disk (§5.2.7).
    pub fn durable(&mut self) -> &mut Self {
        self.push(Op::Commit)
    }

    /// A line for the database's log (§5.2.9).
    pub fn comment(&mut self, text: impl Into<String>) -> &mut Self {
        self.push(Op::Comment(text.into()))
    }

    /// Adds the operations of another transaction; gives the indices that they have here.
    pub fn append(&mut self, other: Transaction) -> Range<usize> {
        let start = self.ops.len();
        self.ops.extend(other.ops);
        start..self.ops.len()
    }

    fn push(&mut self, op: Op) -> &mut Self {
        self.ops.push(op);
        self
    }
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let name = match self {
            Op::Insert { row, name, .. } => {
                map.serialize_entry("row", row)?;
                map.serialize_entry("uuid-name", name.as_str())?;
                "insert"
            }
            Op::Select {
                conditions,
                columns,
                ..
            } => {
                map.serialize_entry("where", conditions)?;
                map.serialize_entry("columns", columns)?;
                "select"
            }
            Op::Update {
                conditions, row, ..
            } => {
                map.serialize_entry("where", conditions)?;
                map.serialize_entry("row", row)?;
                "update"
            }
            Op::Mutate {
                conditions,
                mutations,
                ..
            } => {
                map.serialize_entry("where", conditions)?;
                map.serialize_entry("mutations", mutations)?;
                "mutate"
            }
            Op::Delete { conditions, .. } => {
                map.serialize_entry("where", conditions)?;
                "delete"
            }
            Op::Wait(wait) => {
                map.serialize_entry("where", &wait.conditions)?;
                map.serialize_entry("columns", &wait.columns)?;
                map.serialize_entry("until", wait.until)?;
                map.serialize_entry("rows", &wait.rows)?;
                map.serialize_entry("timeout", &wait.timeout_ms)?;
                "wait"
            }
            Op::Commit => {
                map.serialize_entry("durable", &true)?;
                "commit"
            }
            Op::Comment(text) => {
                map.serialize_entry("comment", text)?;
                "comment"
            }
        };
        map.serialize_entry("op", name)?;
        if let Some(table) = self.table() {
            map.serialize_entry("table", table)?;
        }
        map.end()
    }
}

/// The operations as an array, as they are sent after the database's name.
impl Serialize for Transaction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.ops.serialize(serializer)
    }
}
