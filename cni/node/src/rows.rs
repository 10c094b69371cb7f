//! Typed rows of a replica, selected before they are decoded: a node has hundreds, a question is about one or two.

use ovsdb::{Row, Snapshot, Table};
use tracing::warn;

/// The rows of a table that pass. One that another schema made unreadable is left out, with a line in the log.
pub(crate) fn select<T: Table>(snapshot: Snapshot<'_>, wanted: impl Fn(&Row) -> bool) -> Vec<T> {
    let rows = snapshot.raw(T::NAME).filter(wanted);
    rows.filter_map(|row| {
        row.decode()
            .map_err(|error| warn!("a row is ignored: {error}"))
            .ok()
    })
    .collect()
}

/// The value of a key of a row's external_ids.
pub(crate) fn external_id<'a>(row: &'a Row, key: &str) -> Option<&'a str> {
    row.get("external_ids")?.get_str(key)
}

/// The value of a text column.
pub(crate) fn text<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
    row.get(column)?.as_str()
}
