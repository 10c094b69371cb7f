//! What should stand in the northbound database: rows with an identity of our own.
//!
//! A unit (a Vpc, a Subnet, a node, a pod, a Service) is the smallest thing that is planned as a
//! whole. Its pure function says which rows it wants; [`crate::plan`] compares them with what is
//! there. Every row carries the unit in `external_ids:outboard` and its own identity in
//! `external_ids:outboard-id`; the engine adds both, the units never write them.

use ovsdb::Datum;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Key in external_ids that names the unit a row belongs to.
pub const UNIT_KEY: &str = "outboard";
/// Key in external_ids with the row's identity, unique in its table.
pub const ID_KEY: &str = "outboard-id";

/// Identity of a row that is stable over time and known before the database has given it a UUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId {
    /// The table.
    pub table: &'static str,
    /// Unique in the table among our rows.
    pub id: String,
}

/// A row as it should be. Columns that are not mentioned are not ours.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredRow {
    /// Which row.
    pub id: RowId,
    /// The columns that we own.
    pub columns: BTreeMap<&'static str, Cell>,
    /// Rows that refer to this one.
    pub parents: Vec<Parent>,
}

/// What should stand in a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Exactly this.
    Datum(Datum),
    /// A map of strings in which only these keys are ours; others are left alone.
    Keys(BTreeMap<String, String>),
    /// References to exactly these rows.
    Refs(Vec<RowId>),
}

/// A row that must hold a reference to a child: the strong one that keeps a non-root row alive, or
/// a membership (Load_Balancer_Group.load_balancer).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// The referring row, of any unit.
    pub row: RowId,
    /// Its column: a set of references.
    pub column: &'static str,
}

impl RowId {
    /// The row `id` of `table`.
    pub fn new(table: &'static str, id: impl Into<String>) -> Self {
        Self {
            table,
            id: id.into(),
        }
    }
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.id)
    }
}

impl DesiredRow {
    /// A row with no columns yet.
    pub fn new(table: &'static str, id: impl Into<String>) -> Self {
        Self {
            id: RowId::new(table, id),
            columns: BTreeMap::new(),
            parents: Vec::new(),
        }
    }

    /// The column has exactly this value.
    #[must_use]
    pub fn set(mut self, column: &'static str, value: impl Into<Datum>) -> Self {
        self.columns.insert(column, Cell::Datum(value.into()));
        self
    }

    /// The map in the column has these keys, and others that are none of our business.
    #[must_use]
    pub fn keys<K: Into<String>, V: Into<String>>(
        mut self,
        column: &'static str,
        keys: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let keys = keys.into_iter().map(|(k, v)| (k.into(), v.into()));
        self.columns.insert(column, Cell::Keys(keys.collect()));
        self
    }

    /// The column refers to exactly these rows.
    #[must_use]
    pub fn refs(mut self, column: &'static str, rows: impl IntoIterator<Item = RowId>) -> Self {
        let rows = rows.into_iter().collect();
        self.columns.insert(column, Cell::Refs(rows));
        self
    }

    /// `row` refers to this one in `column`.
    #[must_use]
    pub fn parent(mut self, row: RowId, column: &'static str) -> Self {
        self.parents.push(Parent { row, column });
        self
    }
}

/// The smallest thing that is planned as a whole. Prints as in `external_ids:outboard`. The order
/// is that of planning: what is referred to comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// `vpc/<name>`
    Vpc(String),
    /// `subnet/<name>`
    Subnet(String),
    /// `node/<name>`
    Node(String),
    /// `service/<namespace>/<name>`
    Service {
        /// Namespace of the Service.
        ns: String,
        /// Name of the Service.
        name: String,
    },
    /// `pod/<namespace>/<name>`
    Pod {
        /// Namespace of the pod.
        ns: String,
        /// Name of the pod.
        name: String,
    },
}

impl Unit {
    /// The pod's unit.
    pub fn pod(ns: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Pod {
            ns: ns.into(),
            name: name.into(),
        }
    }

    /// The Service's unit.
    pub fn service(ns: impl Into<String>, name: impl Into<String>) -> Self {
        Self::Service {
            ns: ns.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vpc(name) => write!(f, "vpc/{name}"),
            Self::Subnet(name) => write!(f, "subnet/{name}"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Service { ns, name } => write!(f, "service/{ns}/{name}"),
            Self::Pod { ns, name } => write!(f, "pod/{ns}/{name}"),
        }
    }
}

/// A text that names no unit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no unit: it is vpc/…, subnet/…, node/…, pod/…/… or service/…/…")]
pub struct UnitError(pub String);

impl FromStr for Unit {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let mut parts = text.splitn(3, '/');
        let parts = [parts.next(), parts.next(), parts.next()];
        match parts {
            [Some("vpc"), Some(name), None] => Ok(Self::Vpc(name.to_owned())),
            [Some("subnet"), Some(name), None] => Ok(Self::Subnet(name.to_owned())),
            [Some("node"), Some(name), None] => Ok(Self::Node(name.to_owned())),
            [Some("service"), Some(ns), Some(name)] => Ok(Self::service(ns, name)),
            [Some("pod"), Some(ns), Some(name)] => Ok(Self::pod(ns, name)),
            _ => Err(UnitError(text.to_owned())),
        }
    }
}

/// Why a unit (or a port of it) cannot have its rows. Becomes an Event or a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One CamelCase word, the Event's reason.
    pub reason: &'static str,
    /// Names object, cause and remedy.
    pub sentence: String,
}

impl Problem {
    /// A problem with its reason and sentence.
    pub fn new(reason: &'static str, sentence: impl Into<String>) -> Self {
        Self {
            reason,
            sentence: sentence.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_print_and_parse() {
        for unit in [
            Unit::Vpc("default".into()),
            Unit::Subnet("join".into()),
            Unit::Node("n1".into()),
            Unit::pod("ns", "web-0"),
            Unit::service("kube-system", "dns"),
        ] {
            assert_eq!(unit.to_string().parse(), Ok(unit));
        }
        assert!("pod/x".parse::<Unit>().is_err());
        assert!("".parse::<Unit>().is_err());
    }
}
