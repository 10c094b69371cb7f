//! Rows of a replica: columns interned per table, values in one slice.

use crate::datum::Datum;
use crate::error::DecodeError;
use crate::schema::ColumnType;
use crate::table::Table;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// Anything with named columns: a [`Row`] of a replica, a [`crate::Record`] of a `select`.
pub trait RowView {
    /// The column's value; `None` if the row does not have the column.
    fn column(&self, name: &str) -> Option<&Datum>;
}

/// The columns that a replica holds of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TableLayout {
    pub(crate) name: Arc<str>,
    pub(crate) columns: Box<[Arc<str>]>,
    pub(crate) types: Box<[ColumnType]>,
}

impl TableLayout {
    /// The index of a column, looked for from `hint` on: a server sends columns in one order.
    pub(crate) fn position(&self, column: &str, hint: usize) -> Option<usize> {
        let count = self.columns.len();
        (0..count)
            .map(|n| (hint + n) % count)
            .find(|&at| *self.columns[at] == *column)
    }
}

/// A row as it was at some time. Cheap to clone; it does not change.
#[derive(Clone)]
pub struct Row {
    pub(crate) layout: Arc<TableLayout>,
    pub(crate) uuid: Uuid,
    pub(crate) cells: Arc<[Datum]>,
}

impl Row {
    /// The row's identity.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.layout.name
    }

    /// The columns' names and values.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Datum)> {
        self.layout
            .columns
            .iter()
            .map(|name| &**name)
            .zip(self.cells.iter())
    }

    /// The column's value; `None` if the replica does not hold the column.
    pub fn get(&self, column: &str) -> Option<&Datum> {
        self.layout.position(column, 0).map(|at| &self.cells[at])
    }

    /// The typed row.
    ///
    /// # Errors
    /// As [`Table::decode`].
    pub fn decode<T: Table>(&self) -> Result<T, DecodeError> {
        T::decode(self.uuid, self)
    }
}

impl RowView for Row {
    fn column(&self, name: &str) -> Option<&Datum> {
        self.get(name)
    }
}

impl PartialEq for Row {
    fn eq(&self, other: &Self) -> bool {
        self.uuid == other.uuid
            && self.layout.name == other.layout.name
            && self.columns().eq(other.columns())
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.layout.name, self.uuid)?;
        f.debug_map().entries(self.columns()).finish()
    }
}
