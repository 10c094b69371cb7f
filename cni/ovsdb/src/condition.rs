//! Conditions and mutations (RFC 7047 §5.1, `<condition>` and `<mutation>`).

use crate::Datum;
use serde::ser::{Serialize, Serializer};
use uuid::Uuid;

/// Selects rows by one column. In an operation of a transaction all conditions must hold (RFC 7047
/// §5.2); in a monitor one of them is enough (ovsdb-server(7), "Monitor_cond").
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    column: String,
    function: &'static str,
    value: Datum,
}

impl Condition {
    fn new(column: impl Into<String>, function: &'static str, value: impl Into<Datum>) -> Self {
        Condition {
            column: column.into(),
            function,
            value: value.into(),
        }
    }

    /// The column is exactly this.
    pub fn eq(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, "==", value)
    }

    /// The column is anything but this.
    pub fn ne(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, "!=", value)
    }

    /// The column has all of these elements or pairs, and perhaps others.
    pub fn includes(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, "includes", value)
    }

    /// The column has none of these elements or pairs.
    pub fn excludes(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, "excludes", value)
    }

    /// The number in the column is less.
    pub fn lt(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, "<", value)
    }

    /// The number in the column is less or the same.
    pub fn le(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, "<=", value)
    }

    /// The number in the column is greater.
    pub fn gt(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, ">", value)
    }

    /// The number in the column is greater or the same.
    pub fn ge(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Condition::new(column, ">=", value)
    }

    /// This row.
    pub fn uuid(uuid: Uuid) -> Self {
        Condition::eq("_uuid", uuid)
    }

    /// The column the condition is about.
    pub fn column(&self) -> &str {
        &self.column
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.column, self.function, &self.value).serialize(serializer)
    }
}

/// Changes one column in place.
#[derive(Debug, Clone, PartialEq)]
pub struct Mutation {
    column: String,
    mutator: &'static str,
    value: Datum,
}

impl Mutation {
    fn new(column: impl Into<String>, mutator: &'static str, value: impl Into<Datum>) -> Self {
        Mutation {
            column: column.into(),
            mutator,
            value: value.into(),
        }
    }

    /// Adds elements to a set or pairs to a map. A key that the map has **keeps its old value**:
    /// [`Mutation::delete`] it first, in the same transaction.
    pub fn insert(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Mutation::new(column, "insert", value)
    }

    /// Removes elements from a set; from a map, keys (a set is given) or exact pairs (a map).
    pub fn delete(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Mutation::new(column, "delete", value)
    }

    /// Adds to a number.
    pub fn add(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Mutation::new(column, "+=", value)
    }

    /// Subtracts from a number.
    pub fn subtract(column: impl Into<String>, value: impl Into<Datum>) -> Self {
        Mutation::new(column, "-=", value)
    }

    /// The column the mutation changes.
    pub fn column(&self) -> &str {
        &self.column
    }
}

impl Serialize for Mutation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.column, self.mutator, &self.value).serialize(serializer)
    }
}
