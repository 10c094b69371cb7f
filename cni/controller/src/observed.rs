//! What stands in the northbound database, found by unit and by identity.
//!
//! Fed with the changes of a replica. Rows are shared with the replica, keys with the rows.

use crate::nb;
use crate::rows::{ID_KEY, RowId, UNIT_KEY, Unit};
use ovsdb::{Atom, Change, Datum, Replica, Row, Uuid};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Our rows, and those that ours hang on.
#[derive(Debug, Default)]
pub struct Observed {
    rows: HashMap<Uuid, Row>,
    by_id: HashMap<&'static str, HashMap<Arc<str>, Uuid>>,
    by_unit: HashMap<Arc<str>, Vec<Uuid>>,
    parents: HashMap<&'static str, BTreeSet<Uuid>>,
    global: Option<Row>,
}

/// The mark of a row: its unit and identity.
fn marks(row: &Row) -> Option<(Arc<str>, Arc<str>)> {
    let text = |atom: &Atom| match atom {
        Atom::String(text) => Some(text.clone()),
        _ => None,
    };
    if row.table() == nb::LOAD_BALANCER_GROUP {
        let name = text(row.get("name")?.one()?)?;
        return name.starts_with("vpc/").then(|| (name.clone(), name));
    }
    let ids = row.get("external_ids")?;
    Some((text(ids.get(UNIT_KEY)?)?, text(ids.get(ID_KEY)?)?))
}

impl Observed {
    /// Takes over all changes that have come, and says which units they concern; none: all (the
    /// contents were replaced).
    pub fn drain(&mut self, replica: &Replica, changes: &mut UnboundedReceiver<Change>) -> Touched {
        let mut touched = Touched::default();
        while let Ok(change) = changes.try_recv() {
            match change {
                Change::Reset => {
                    *self = Self::default();
                    replica.read(|snapshot| {
                        for (table, _) in nb::TABLES {
                            for row in snapshot.raw(table) {
                                self.insert(row);
                            }
                        }
                    });
                    touched.all = true;
                }
                Change::Row(change) => {
                    for row in [&change.old, &change.new].into_iter().flatten() {
                        touched.units.extend(marks(row).map(|(unit, _)| unit));
                    }
                    // A Reset may already have brought what comes after it.
                    if let Some(old) = change.old {
                        self.remove(old.uuid());
                    }
                    if let Some(new) = change.new {
                        self.remove(new.uuid());
                        self.insert(new);
                    }
                }
            }
        }
        touched
    }

    fn insert(&mut self, row: Row) {
        let Some(table) = nb::table(row.table()) else {
            return;
        };
        if table == "NB_Global" {
            self.global = Some(row);
            return;
        }
        if nb::is_parent(table) {
            self.parents.entry(table).or_default().insert(row.uuid());
        }
        let Some((unit, id)) = marks(&row) else {
            return;
        };
        self.by_id.entry(table).or_default().insert(id, row.uuid());
        // Most units have one row: room for four of them would be felt.
        let rows = self.by_unit.entry(unit);
        rows.or_insert_with(|| Vec::with_capacity(1))
            .push(row.uuid());
        self.rows.insert(row.uuid(), row);
    }

    fn remove(&mut self, uuid: Uuid) {
        if self.global.as_ref().is_some_and(|row| row.uuid() == uuid) {
            self.global = None;
        }
        for parents in self.parents.values_mut() {
            parents.remove(&uuid);
        }
        let Some(row) = self.rows.remove(&uuid) else {
            return;
        };
        let Some((unit, id)) = marks(&row) else {
            return;
        };
        if let Some(ids) = self.by_id.get_mut(row.table())
            && ids.get(&id) == Some(&uuid)
        {
            ids.remove(&id);
        }
        if let Some(rows) = self.by_unit.get_mut(&unit) {
            rows.retain(|row| *row != uuid);
            if rows.is_empty() {
                self.by_unit.remove(&unit);
            }
        }
    }

    /// The row with this identity.
    pub fn find(&self, id: &RowId) -> Option<&Row> {
        let uuid = self.by_id.get(id.table)?.get(id.id.as_str())?;
        self.rows.get(uuid)
    }

    /// The rows of a unit.
    pub fn rows_of(&self, unit: &Unit) -> impl Iterator<Item = &Row> {
        let uuids = self.by_unit.get(unit.to_string().as_str());
        uuids
            .into_iter()
            .flatten()
            .filter_map(|uuid| self.rows.get(uuid))
    }

    /// Every unit that has rows. Marks that no unit of this version has are left out.
    pub fn units(&self) -> impl Iterator<Item = Unit> + '_ {
        self.by_unit.keys().filter_map(|unit| unit.parse().ok())
    }

    /// The unit of a row.
    pub fn unit_of(&self, row: &Row) -> Option<Unit> {
        marks(row)?.0.parse().ok()
    }

    /// All marked rows of a table, in no order.
    pub fn rows_in(&self, table: &str) -> impl Iterator<Item = &Row> {
        let ids = self.by_id.get(table);
        ids.into_iter()
            .flat_map(|ids| ids.values())
            .filter_map(|uuid| self.rows.get(uuid))
    }

    /// The rows of `table` whose `column` refers to `child`. Only our own can.
    pub fn referring(&self, table: &'static str, column: &str, child: Uuid) -> Vec<Uuid> {
        let child = Atom::Uuid(child);
        let parents = self.parents.get(table).into_iter().flatten();
        let rows = parents.filter_map(|uuid| self.rows.get(uuid));
        rows.filter(|row| row.get(column).is_some_and(|set| set.contains(&child)))
            .map(Row::uuid)
            .collect()
    }

    /// The row of NB_Global.
    pub fn global(&self) -> Option<&Row> {
        self.global.as_ref()
    }

    /// A key of NB_Global.external_ids.
    pub fn global_key(&self, key: &str) -> Option<&str> {
        self.global
            .as_ref()?
            .get("external_ids")
            .and_then(|ids| Datum::get_str(ids, key))
    }

    /// The number of rows that are ours.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing is ours.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// Units that changes concern.
#[derive(Debug, Default)]
pub struct Touched {
    /// All of them.
    pub all: bool,
    /// These, as their marks spell them.
    pub units: BTreeSet<Arc<str>>,
}
