//! The rows of a replica, and how updates change them.

use crate::datum::Datum;
use crate::diff;
use crate::row::{Row, TableLayout};
use crate::subscription::{Change, RowChange};
use crate::update::{RowUpdate, Updates};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;
use uuid::Uuid;

#[derive(Debug, Default)]
pub(crate) struct Store {
    tables: Vec<TableStore>,
    subscribers: Vec<UnboundedSender<Change>>,
    /// Counts the updates that changed something.
    pub(crate) generation: u64,
}

#[derive(Debug)]
pub(crate) struct TableStore {
    layout: Arc<TableLayout>,
    rows: HashMap<Uuid, Arc<[Datum]>>,
}

/// An update that does not fit the rows: the copy is no longer one.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum Desync {
    #[error("{table} {uuid} was modified, and is not in the replica")]
    NoRow { table: String, uuid: Uuid },
    #[error("an update came before the contents")]
    NoContents,
}

impl TableStore {
    fn row(&self, uuid: Uuid, cells: &Arc<[Datum]>) -> Row {
        Row {
            layout: self.layout.clone(),
            uuid,
            cells: cells.clone(),
        }
    }

    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = Row> {
        self.rows.iter().map(|(uuid, cells)| self.row(*uuid, cells))
    }

    pub(crate) fn get(&self, uuid: Uuid) -> Option<Row> {
        self.rows.get(&uuid).map(|cells| self.row(uuid, cells))
    }

    fn apply(&mut self, uuid: Uuid, update: RowUpdate) -> Result<Option<RowChange>, Desync> {
        let old = self.rows.get(&uuid);
        let cells: Option<Arc<[Datum]>> = match update {
            RowUpdate::Put(cells) => Some(cells),
            RowUpdate::Delete => None,
            RowUpdate::Modify(columns) => {
                let Some(old) = old else {
                    return Err(Desync::NoRow {
                        table: self.layout.name.to_string(),
                        uuid,
                    });
                };
                let mut cells = old.to_vec();
                for (at, datum) in columns {
                    cells[at] = diff::apply(&old[at], datum, &self.layout.types[at]);
                }
                Some(cells.into())
            }
        };
        if old.map(|old| &**old) == cells.as_deref() {
            return Ok(None);
        }
        let old = match &cells {
            Some(cells) => self.rows.insert(uuid, cells.clone()),
            None => self.rows.remove(&uuid),
        };
        let row = |cells: Option<Arc<[Datum]>>| cells.map(|cells| self.row(uuid, &cells));
        Ok(Some(RowChange {
            old: row(old),
            new: row(cells),
        }))
    }
}

impl Store {
    pub(crate) fn table(&self, name: &str) -> Option<&TableStore> {
        self.tables.iter().find(|table| *table.layout.name == *name)
    }

    /// Applies what a server sent after the contents; true if anything changed.
    pub(crate) fn apply(&mut self, updates: Updates) -> Result<bool, Desync> {
        let mut changed = false;
        for (at, rows) in updates {
            for (uuid, update) in rows {
                let table = self.tables.get_mut(at).ok_or(Desync::NoContents)?;
                if let Some(change) = table.apply(uuid, update)? {
                    changed = true;
                    self.tell(&Change::Row(change));
                }
            }
        }
        self.generation += u64::from(changed);
        Ok(changed)
    }

    /// Puts new contents in place of the old ones.
    pub(crate) fn replace(&mut self, tables: Vec<TableStore>) {
        self.tables = tables;
        self.generation += 1;
        self.tell(&Change::Reset);
    }

    pub(crate) fn subscribe(&mut self, subscriber: UnboundedSender<Change>) {
        if subscriber.send(Change::Reset).is_ok() {
            self.subscribers.push(subscriber);
        }
    }

    fn tell(&mut self, change: &Change) {
        self.subscribers
            .retain(|subscriber| subscriber.send(change.clone()).is_ok());
    }
}

/// The tables of a first fetch. Built before the store is locked.
pub(crate) fn fill(layout: &[Arc<TableLayout>], updates: Updates) -> Vec<TableStore> {
    let empty = |layout: &Arc<TableLayout>| TableStore {
        layout: layout.clone(),
        rows: HashMap::new(),
    };
    let mut tables: Vec<TableStore> = layout.iter().map(empty).collect();
    for (at, rows) in updates {
        let table = &mut tables[at].rows;
        table.reserve(rows.len());
        for (uuid, update) in rows {
            if let RowUpdate::Put(cells) = update {
                table.insert(uuid, cells);
            }
        }
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    fn store() -> (Store, tokio::sync::mpsc::UnboundedReceiver<Change>) {
        let layout = TableLayout {
            name: "T".into(),
            columns: ["n".into()].into(),
            types: [serde_json::from_str(r#""integer""#).unwrap()].into(),
        };
        let mut store = Store::default();
        let first = (Uuid::from_u128(1), RowUpdate::Put(Arc::new([1.into()])));
        store.replace(fill(&[Arc::new(layout)], vec![(0, vec![first])]));
        let (sender, changes) = unbounded_channel();
        store.subscribe(sender);
        (store, changes)
    }

    fn update(row: u128, update: RowUpdate) -> Updates {
        vec![(0, vec![(Uuid::from_u128(row), update)])]
    }

    #[test]
    fn changes_are_told_with_old_and_new() {
        let (mut store, mut changes) = store();
        assert_eq!(changes.try_recv().unwrap(), Change::Reset);
        assert!(
            store
                .apply(update(1, RowUpdate::Modify(vec![(0, 2.into())])))
                .unwrap()
        );
        let Change::Row(change) = changes.try_recv().unwrap() else {
            panic!()
        };
        assert_eq!(change.old.unwrap().get("n"), Some(&1.into()));
        assert_eq!(change.new.unwrap().get("n"), Some(&2.into()));
        assert!(store.apply(update(1, RowUpdate::Delete)).unwrap());
        assert!(store.table("T").unwrap().get(Uuid::from_u128(1)).is_none());
    }

    #[test]
    fn what_changes_nothing_is_not_told() {
        let (mut store, mut changes) = store();
        changes.try_recv().unwrap();
        let before = store.generation;
        assert!(
            !store
                .apply(update(1, RowUpdate::Modify(vec![(0, 1.into())])))
                .unwrap()
        );
        assert!(
            !store
                .apply(update(1, RowUpdate::Put(Arc::new([1.into()]))))
                .unwrap()
        );
        assert!(!store.apply(update(9, RowUpdate::Delete)).unwrap());
        assert!(changes.try_recv().is_err());
        assert_eq!(store.generation, before);
    }

    #[test]
    fn an_update_before_the_contents_is_noticed() {
        let first = update(1, RowUpdate::Delete);
        assert_eq!(Store::default().apply(first), Err(Desync::NoContents));
    }

    #[test]
    fn a_modify_of_a_row_that_is_not_there_is_noticed() {
        let (mut store, _changes) = store();
        assert!(store.apply(update(9, RowUpdate::Modify(vec![]))).is_err());
    }
}
