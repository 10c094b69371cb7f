//! A database's schema (RFC 7047 §3.2): tables, columns and their types, as far as a client
//! needs them to read values and apply differences.

use crate::atom::{Atom, AtomicType};
use crate::datum::Datum;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// `<database-schema>`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Schema {
    /// The database's name.
    pub name: String,
    /// The schema's version, "x.y.z".
    #[serde(default)]
    pub version: String,
    /// The tables by name.
    pub tables: BTreeMap<String, TableSchema>,
}

/// `<table-schema>`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct TableSchema {
    /// The columns by name. `_uuid` and `_version`, which every table has, are not listed.
    pub columns: BTreeMap<String, ColumnSchema>,
    /// Whether rows live without being referenced. Rows of other tables vanish at the end of the
    /// transaction that leaves them without a reference.
    #[serde(default, rename = "isRoot")]
    pub is_root: bool,
    /// Sets of columns whose values together are unique in the table.
    #[serde(default)]
    pub indexes: Vec<Vec<String>>,
}

/// `<column-schema>`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ColumnSchema {
    /// The type.
    #[serde(rename = "type")]
    pub ty: ColumnType,
}

/// `<type>`: `min` to `max` keys, each with a value if it is a map.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub struct ColumnType {
    /// The type of a set's elements or a map's keys.
    pub key: AtomicType,
    /// The type of a map's values.
    pub value: Option<AtomicType>,
    /// The least number of elements: 0 or 1.
    pub min: u64,
    /// The greatest number of elements; `u64::MAX` for "unlimited".
    pub max: u64,
}

impl ColumnType {
    /// The default value of a column (RFC 7047 §5.2.1).
    pub(crate) fn default_datum(&self) -> Datum {
        let key = || Atom::default_of(self.key);
        match (self.value, self.min) {
            (None, 0) => Datum::empty(),
            (None, _) => Datum::set([key()]),
            (Some(_), 0) => Datum::empty_map(),
            (Some(value), _) => Datum::map([(key(), Atom::default_of(value))]),
        }
    }
}

impl Schema {
    /// The type of a column; `_uuid` and `_version` included.
    pub fn column(&self, table: &str, column: &str) -> Option<ColumnType> {
        let table = self.tables.get(table)?;
        match column {
            "_uuid" | "_version" => Some(ColumnType {
                key: AtomicType::Uuid,
                value: None,
                min: 1,
                max: 1,
            }),
            _ => table.columns.get(column).map(|column| column.ty.clone()),
        }
    }
}

impl TryFrom<Value> for ColumnType {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let Some(members) = value.as_object() else {
            return Ok(ColumnType {
                key: atomic(&value)?,
                value: None,
                min: 1,
                max: 1,
            });
        };
        let count = |name: &str| match members.get(name) {
            None => Ok(1),
            Some(Value::String(text)) if text == "unlimited" => Ok(u64::MAX),
            Some(number) => number.as_u64().ok_or(format!("{name} is {number}")),
        };
        let key = members.get("key").ok_or("a type has no key")?;
        let value = members.get("value").map(atomic).transpose()?;
        Ok(ColumnType {
            key: atomic(key)?,
            value,
            min: count("min")?,
            max: count("max")?,
        })
    }
}

/// `<base-type>`: an atomic type, or an object whose `type` is one. Constraints (ranges, enums,
/// references) are the server's to check.
fn atomic(base: &Value) -> Result<AtomicType, String> {
    match base.get("type").unwrap_or(base).as_str() {
        Some("integer") => Ok(AtomicType::Integer),
        Some("real") => Ok(AtomicType::Real),
        Some("boolean") => Ok(AtomicType::Boolean),
        Some("string") => Ok(AtomicType::String),
        Some("uuid") => Ok(AtomicType::Uuid),
        _ => Err(format!("{base} is no type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_type_is_read() {
        let ty = |text: &str| serde_json::from_str::<ColumnType>(text).unwrap();
        let string = ty(r#""string""#);
        assert_eq!(
            (string.key, string.value, string.max),
            (AtomicType::String, None, 1)
        );
        let set = ty(r#"{"key":{"type":"uuid","refTable":"T"},"min":0,"max":"unlimited"}"#);
        assert_eq!((set.key, set.min, set.max), (AtomicType::Uuid, 0, u64::MAX));
        assert_eq!(set.default_datum(), Datum::empty());
        let map = ty(r#"{"key":"string","value":{"type":"integer"},"min":0,"max":3}"#);
        assert_eq!(map.value, Some(AtomicType::Integer));
        assert_eq!(map.default_datum(), Datum::empty_map());
        assert!(serde_json::from_str::<ColumnType>(r#"{"key":"text"}"#).is_err());
    }
}
