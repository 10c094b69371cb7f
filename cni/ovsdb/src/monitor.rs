//! What a replica holds: tables, columns, conditions.

use crate::condition::Condition;
use crate::row::TableLayout;
use crate::schema::Schema;
use crate::table::Table;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Which tables, columns and rows a [`crate::Replica`] holds.
///
/// ```
/// # use ovsdb::{Condition, MonitorSpec};
/// # ovsdb::table! { struct Chassis in "Chassis" { name: String } }
/// let spec = MonitorSpec::new()
///     .table::<Chassis>()
///     .columns("Encap", ["ip", "type"])
///     .where_([Condition::eq("type", "geneve"), Condition::eq("type", "vxlan")]);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MonitorSpec {
    pub(crate) tables: Vec<TableSpec>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableSpec {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    /// `None`: all rows.
    pub(crate) conditions: Option<Vec<Condition>>,
}

impl MonitorSpec {
    /// No tables yet.
    pub fn new() -> Self {
        MonitorSpec::default()
    }

    /// With the table of a typed row. Two typed rows of one table share its rows.
    #[must_use]
    pub fn table<T: Table>(self) -> Self {
        self.columns(T::NAME, T::COLUMNS.iter().copied())
    }

    /// With these columns of a table. Tables and columns that the database does not have are left
    /// out of the replica.
    #[must_use]
    pub fn columns(
        mut self,
        table: impl Into<String>,
        columns: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let name = table.into();
        // The table named last is the one that `where_` speaks of.
        let at = self.tables.iter().position(|table| table.name == name);
        let mut table = at
            .map(|at| self.tables.remove(at))
            .unwrap_or_else(|| TableSpec {
                name,
                columns: Vec::new(),
                conditions: None,
            });
        for column in columns.into_iter().map(Into::into) {
            if !table.columns.contains(&column) {
                table.columns.push(column);
            }
        }
        self.tables.push(table);
        self
    }

    /// Only those rows of the table named last that meet **one of** the conditions: none at all
    /// if there is no condition. (A server so old that it knows RFC 7047's `monitor` alone
    /// ignores conditions: the replica then holds all rows.)
    #[must_use]
    pub fn where_(mut self, conditions: impl IntoIterator<Item = Condition>) -> Self {
        if let Some(table) = self.tables.last_mut() {
            table.conditions = Some(conditions.into_iter().collect());
        }
        self
    }

    /// What of it the database has.
    pub(crate) fn layout(&self, schema: &Schema) -> Vec<Arc<TableLayout>> {
        let tables = self.tables.iter().filter_map(|table| {
            let known = schema.tables.get(&table.name)?;
            let (columns, types) = table
                .columns
                .iter()
                .filter_map(|name| {
                    let ty = known.columns.get(name)?.ty.clone();
                    Some((Arc::from(name.as_str()), ty))
                })
                .unzip::<Arc<str>, _, Vec<_>, Vec<_>>();
            let name = Arc::from(table.name.as_str());
            Some(Arc::new(TableLayout {
                name,
                columns: columns.into(),
                types: types.into(),
            }))
        });
        tables.collect()
    }

    /// `<monitor-cond-requests>` (ovsdb-server(7)), or, with `plain`, `<monitor-requests>`
    /// (RFC 7047 §4.1.5).
    pub(crate) fn requests(&self, layout: &[Arc<TableLayout>], plain: bool) -> Value {
        let requests = layout.iter().map(|table| {
            let columns: Vec<&str> = table.columns.iter().map(|column| &**column).collect();
            let mut request = json!({ "columns": columns });
            if let (false, Some(clause)) = (plain, self.clause(&table.name)) {
                request["where"] = clause;
            }
            (table.name.to_string(), json!([request]))
        });
        Value::Object(requests.collect::<Map<_, _>>())
    }

    /// The tables' conditions, as `monitor_cond_change` wants them.
    pub(crate) fn conditions(&self, layout: &[Arc<TableLayout>]) -> Value {
        let tables = layout.iter().map(|table| {
            let clause = self.clause(&table.name).unwrap_or_else(|| json!([true]));
            (table.name.to_string(), json!([{ "where": clause }]))
        });
        Value::Object(tables.collect::<Map<_, _>>())
    }

    fn clause(&self, table: &str) -> Option<Value> {
        let table = self.tables.iter().find(|spec| spec.name == table)?;
        let conditions = table.conditions.as_ref()?;
        Some(if conditions.is_empty() {
            json!([false])
        } else {
            json!(conditions)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Schema {
        let text = r#"{"name":"D","tables":{
            "T":{"columns":{"a":{"type":"integer"},"b":{"type":"string"}}},
            "U":{"columns":{"c":{"type":"string"}}}}}"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_the_database_does_not_have_is_not_asked_for() {
        let spec = MonitorSpec::new()
            .columns("T", ["a", "new"])
            .columns("New", ["x"])
            .columns("U", ["c"])
            .where_([])
            .columns("T", ["a", "b"])
            .where_([Condition::eq("a", 1)]);
        let layout = spec.layout(&schema());
        assert_eq!(
            spec.requests(&layout, false),
            json!({
                "T": [{"columns": ["a", "b"], "where": [["a", "==", 1]]}],
                "U": [{"columns": ["c"], "where": [false]}],
            })
        );
        assert_eq!(
            spec.requests(&layout, true),
            json!({ "T": [{"columns": ["a", "b"]}], "U": [{"columns": ["c"]}] })
        );
    }
}
