//! What subscribers of a replica are told.

use crate::row::Row;
use uuid::Uuid;

/// Something happened to a replica. Changes come in the order in which they were applied.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The contents were replaced (or this is the start of the subscription): what was derived
    /// from earlier changes is void. Read the replica anew.
    Reset,
    /// A row changed.
    Row(RowChange),
}

/// What happened to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new, or it has come to meet the conditions.
    Insert,
    /// One of its columns changed.
    Modify,
    /// It was deleted, or it has ceased to meet the conditions.
    Delete,
}

/// A row before and after a change. One of the two is there at least.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// The row before; `None` if it is new.
    pub old: Option<Row>,
    /// The row after; `None` if it was deleted.
    pub new: Option<Row>,
}

impl RowChange {
    fn any(&self) -> &Row {
        self.new
            .as_ref()
            .or(self.old.as_ref())
            .expect("a change has an old or a new row")
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        self.any().table()
    }

    /// The row's identity.
    pub fn uuid(&self) -> Uuid {
        self.any().uuid()
    }

    /// What happened.
    pub fn kind(&self) -> ChangeKind {
        match (&self.old, &self.new) {
            (None, _) => ChangeKind::Insert,
            (_, None) => ChangeKind::Delete,
            _ => ChangeKind::Modify,
        }
    }
}
