//! What ovn-nbctl, ovn-sbctl and ovs-vsctl print with `--format=json`, as rows.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// One row: its columns by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Row(BTreeMap<String, Value>);

/// The rows of one printed table.
///
/// # Errors
/// The text is not such a table.
pub(crate) fn parse(text: &str) -> Result<Vec<Row>> {
    #[derive(Deserialize)]
    struct Table {
        headings: Vec<String>,
        data: Vec<Vec<Value>>,
    }
    let table: Table = serde_json::from_str(text)
        .with_context(|| format!("not a table of an OVSDB tool: {text}"))?;
    let row = |cells: Vec<Value>| Row(table.headings.iter().cloned().zip(cells).collect());
    Ok(table.data.into_iter().map(row).collect())
}

impl Row {
    /// A scalar as text; empty when the column is.
    pub(crate) fn text(&self, column: &str) -> String {
        self.list(column).into_iter().next().unwrap_or_default()
    }

    /// A set's members as text.
    pub(crate) fn list(&self, column: &str) -> Vec<String> {
        let Some(value) = self.0.get(column) else {
            return Vec::new();
        };
        match tagged(value, "set") {
            Some(members) => members.iter().map(atom).collect(),
            None => vec![atom(value)],
        }
    }

    /// A map's pairs as text.
    pub(crate) fn map(&self, column: &str) -> BTreeMap<String, String> {
        let pairs = self.0.get(column).and_then(|value| tagged(value, "map"));
        let pairs = pairs.into_iter().flatten();
        pairs
            .filter_map(|pair| Some((atom(pair.get(0)?), atom(pair.get(1)?))))
            .collect()
    }
}

/// The contents of `["set", […]]` and `["map", […]]` (RFC 7047, 5.1).
fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Vec<Value>> {
    let [name, contents] = value.as_array()?.as_slice() else {
        return None;
    };
    (name.as_str() == Some(tag))
        .then(|| contents.as_array())
        .flatten()
}

fn atom(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(pair) => pair.get(1).map(atom).unwrap_or_default(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_sets_and_maps_are_told_apart() {
        let text = r#"{"headings":["_uuid","name","ports","ids","ofport"],
            "data":[[["uuid","u1"],"a",["set",[["uuid","p1"],["uuid","p2"]]],["map",[["k","v"]]],["set",[]]]]}"#;
        let row = &parse(text).unwrap()[0];
        assert_eq!(
            (row.text("_uuid"), row.text("name")),
            ("u1".into(), "a".into())
        );
        assert_eq!(row.list("ports"), ["p1", "p2"]);
        assert_eq!(row.map("ids")["k"], "v");
        assert_eq!(
            (row.text("ofport"), row.text("absent")),
            (String::new(), String::new())
        );
    }
}
