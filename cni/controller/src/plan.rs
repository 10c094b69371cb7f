//! What has to be done so that the rows stand as they should: pure.
//!
//! One transaction for any number of units. A plan that is made right after its transaction has
//! been carried out is empty.

use crate::nb;
use crate::observed::Observed;
use crate::rows::{Cell, DesiredRow, ID_KEY, RowId, UNIT_KEY, Unit};
use ovsdb::{Atom, Condition, Datum, Mutation, NamedUuid, Row, Transaction, Uuid, Values};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Operations for some units.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to do; empty if all is well.
    pub transaction: Transaction,
    /// Units that were left out, with the row of another unit that they need and that is not
    /// there.
    pub blocked: Vec<(Unit, RowId)>,
}

/// A row that is referred to: one that is there, or one that this transaction inserts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    There(Uuid),
    New(NamedUuid),
}

impl Target {
    fn atom(&self) -> Atom {
        match self {
            Self::There(uuid) => Atom::Uuid(*uuid),
            Self::New(name) => Atom::NamedUuid(name.clone()),
        }
    }
    fn condition(&self) -> Condition {
        Condition::eq("_uuid", self.atom())
    }
}

/// What to do for the units, each with the rows that it should have (none: all of its rows go).
/// A unit that others refer to comes before them.
pub fn plan(observed: &Observed, desired: &[(Unit, Vec<DesiredRow>)]) -> Plan {
    let mut planner = Planner {
        observed,
        plan: Plan::default(),
        targets: HashMap::new(),
        joins: BTreeMap::new(),
        leaves: BTreeMap::new(),
        tops: Vec::new(),
    };
    let ready = planner.admit(desired);
    for (unit, rows) in &ready {
        planner.unit(unit, rows);
    }
    for (_, rows) in &ready {
        for row in rows.iter() {
            planner.references(row);
        }
    }
    planner.finish()
}

struct Planner<'a> {
    observed: &'a Observed,
    plan: Plan,
    targets: HashMap<&'a RowId, Target>,
    /// Children that get a parent, and those that lose one, by parent and column.
    joins: BTreeMap<(&'static str, &'static str, Target), BTreeSet<Atom>>,
    leaves: BTreeMap<(&'static str, &'static str, Uuid), BTreeSet<Atom>>,
    /// Rows of root tables to delete.
    tops: Vec<(&'static str, Uuid)>,
}

impl<'a> Planner<'a> {
    /// The units that have everything they refer to; the others are noted as blocked.
    fn admit(
        &mut self,
        desired: &'a [(Unit, Vec<DesiredRow>)],
    ) -> Vec<(&'a Unit, &'a [DesiredRow])> {
        let mut coming: HashSet<&RowId> = HashSet::new();
        let mut ready = Vec::with_capacity(desired.len());
        for (unit, rows) in desired {
            let own: HashSet<&RowId> = rows.iter().map(|row| &row.id).collect();
            let parents = rows
                .iter()
                .flat_map(|row| row.parents.iter().map(|p| &p.row));
            let cells = rows.iter().flat_map(|row| row.columns.values());
            let refs = cells.flat_map(|cell| match cell {
                Cell::Refs(refs) => refs.as_slice(),
                Cell::Datum(_) | Cell::Keys(_) => &[],
            });
            let missing = parents.chain(refs).find(|id| {
                !own.contains(id) && !coming.contains(id) && self.observed.find(id).is_none()
            });
            if let Some(missing) = missing {
                self.plan.blocked.push((unit.clone(), missing.clone()));
            } else {
                coming.extend(own);
                ready.push((unit, rows.as_slice()));
            }
        }
        ready
    }

    fn unit(&mut self, unit: &Unit, rows: &'a [DesiredRow]) {
        let mark = unit.to_string();
        let mut stale: BTreeMap<Uuid, &Row> = self
            .observed
            .rows_of(unit)
            .map(|row| (row.uuid(), row))
            .collect();
        for row in rows {
            match self.observed.find(&row.id) {
                Some(there) => {
                    stale.remove(&there.uuid());
                    self.targets.insert(&row.id, Target::There(there.uuid()));
                    self.update(row, &mark, there);
                }
                // A row that is only to be kept, and is gone.
                None if row.columns.is_empty() => {}
                None => {
                    let name = self.insert(row, &mark);
                    self.targets.insert(&row.id, Target::New(name));
                }
            }
        }
        for (uuid, row) in stale {
            let Some(table) = nb::table(row.table()) else {
                continue;
            };
            match nb::parent_of(table) {
                Some((parent, column)) => self.leave(parent, column, uuid),
                None => self.tops.push((table, uuid)),
            }
        }
    }

    fn insert(&mut self, row: &DesiredRow, unit: &str) -> NamedUuid {
        let mut values = Values::new();
        for (column, cell) in &row.columns {
            debug_assert!(
                nb::watches(row.id.table, column),
                "{}:{column}",
                row.id.table
            );
            match cell {
                _ if *column == "external_ids" => {}
                Cell::Datum(datum) => values = values.set(*column, datum.clone()),
                Cell::Keys(keys) => values = values.set(*column, Datum::from(keys)),
                Cell::Refs(_) => {}
            }
        }
        if row.id.table != nb::LOAD_BALANCER_GROUP {
            let marks = [(UNIT_KEY, unit), (ID_KEY, row.id.id.as_str())].map(own_pair);
            let ids = match row.columns.get("external_ids") {
                Some(Cell::Datum(datum)) => Datum::map(marks.into_iter().chain(pairs(datum))),
                Some(Cell::Keys(keys)) => {
                    let keys = keys.iter().map(|(k, v)| (k.clone(), v.clone()));
                    Datum::map(marks.into_iter().chain(keys))
                }
                _ => Datum::map(marks),
            };
            values = values.set("external_ids", ids);
        }
        self.plan.transaction.insert(row.id.table, values)
    }

    fn update(&mut self, row: &DesiredRow, unit: &str, there: &Row) {
        if row.columns.is_empty() {
            return;
        }
        let mut values = Values::new();
        let mut mutations = Vec::new();
        let marks = BTreeMap::from([(UNIT_KEY, unit), (ID_KEY, row.id.id.as_str())].map(own_pair));
        for (column, cell) in &row.columns {
            debug_assert!(
                nb::watches(row.id.table, column),
                "{}:{column}",
                row.id.table
            );
            let present = there.get(column);
            match cell {
                Cell::Datum(datum) if *column == "external_ids" => {
                    let whole = Datum::map(marks.clone().into_iter().chain(pairs(datum)));
                    if present.is_some_and(|present| *present != whole) {
                        values = values.set(*column, whole);
                    }
                }
                Cell::Datum(datum) => {
                    if present.is_some_and(|present| present != datum) {
                        values = values.set(*column, datum.clone());
                    }
                }
                Cell::Keys(keys) => mutations.extend(merge(column, keys, present)),
                Cell::Refs(_) => {}
            }
        }
        let exact = matches!(row.columns.get("external_ids"), Some(Cell::Datum(_)));
        if row.id.table != nb::LOAD_BALANCER_GROUP && !exact {
            mutations.extend(merge("external_ids", &marks, there.get("external_ids")));
        }
        let this = || [Condition::uuid(there.uuid())];
        if !values.is_empty() {
            self.plan.transaction.update(row.id.table, this(), values);
        }
        if !mutations.is_empty() {
            self.plan
                .transaction
                .mutate(row.id.table, this(), mutations);
        }
    }

    /// The references from and to a row, once every row of the transaction has a name.
    fn references(&mut self, row: &'a DesiredRow) {
        let Some(this) = self.target(&row.id) else {
            return;
        };
        for (column, cell) in &row.columns {
            let Cell::Refs(refs) = cell else {
                continue;
            };
            let atoms: Vec<Atom> = refs
                .iter()
                .filter_map(|id| self.target(id))
                .map(|t| t.atom())
                .collect();
            let wanted = Datum::set(atoms);
            let differs = match &this {
                Target::New(_) => !wanted.is_empty(),
                Target::There(_) => {
                    let there = self
                        .observed
                        .find(&row.id)
                        .and_then(|there| there.get(column));
                    there.is_some_and(|there| *there != wanted)
                }
            };
            if differs {
                let values = Values::new().set(*column, wanted);
                self.plan
                    .transaction
                    .update(row.id.table, [this.condition()], values);
            }
        }
        for parent in &row.parents {
            let Some(target) = self.target(&parent.row) else {
                continue;
            };
            let present = self.observed.find(&parent.row);
            let has = present
                .and_then(|present| present.get(parent.column))
                .is_some_and(|children| children.contains(&this.atom()));
            if has {
                continue;
            }
            if let Target::There(child) = &this {
                self.leave(parent.row.table, parent.column, *child);
            }
            let key = (parent.row.table, parent.column, target);
            self.joins.entry(key).or_default().insert(this.atom());
        }
    }

    fn target(&self, id: &RowId) -> Option<Target> {
        let there = || self.observed.find(id).map(|row| Target::There(row.uuid()));
        self.targets.get(id).cloned().or_else(there)
    }

    fn leave(&mut self, parent: &'static str, column: &'static str, child: Uuid) {
        for uuid in self.observed.referring(parent, column, child) {
            let children = self.leaves.entry((parent, column, uuid)).or_default();
            children.insert(Atom::Uuid(child));
        }
    }

    fn finish(mut self) -> Plan {
        let transaction = &mut self.plan.transaction;
        for ((table, column, parent), children) in self.leaves {
            let gone = Mutation::delete(column, children);
            transaction.mutate(table, [Condition::uuid(parent)], [gone]);
        }
        for ((table, column, parent), children) in self.joins {
            let new = Mutation::insert(column, children);
            transaction.mutate(table, [parent.condition()], [new]);
        }
        for (table, uuid) in self.tops {
            transaction.delete(table, [Condition::uuid(uuid)]);
        }
        self.plan
    }
}

fn own_pair((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

/// The pairs of a map of strings.
fn pairs(datum: &Datum) -> impl Iterator<Item = (String, String)> + '_ {
    let text = |atom: &Atom| atom.as_str().unwrap_or_default().to_owned();
    datum
        .pairs()
        .map(move |(key, value)| (text(key), text(value)))
}

/// Mutations that give a map these keys. (`insert` keeps the value of a key that is there.)
fn merge(column: &str, keys: &BTreeMap<String, String>, present: Option<&Datum>) -> Vec<Mutation> {
    let Some(present) = present else {
        return Vec::new();
    };
    let differs = |(key, value): &(&String, &String)| present.get_str(key) != Some(value.as_str());
    let differing: BTreeMap<&String, &String> = keys.iter().filter(differs).collect();
    if differing.is_empty() {
        return Vec::new();
    }
    vec![
        Mutation::delete(column, Datum::set(differing.keys().copied())),
        Mutation::insert(column, Datum::map(differing)),
    ]
}
