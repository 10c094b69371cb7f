//! Reads `<table-updates>` (RFC 7047 §4.1.6) and `<table-updates2>` (ovsdb-server(7), "Update2
//! Notification") straight into rows.

use crate::datum::Datum;
use crate::decode::DatumSeed;
use crate::row::TableLayout;
use crate::strings::Strings;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// What happened to one row.
#[derive(Debug, PartialEq)]
pub(crate) enum RowUpdate {
    /// The row is new, or (RFC 7047) all of its values are.
    Put(Arc<[Datum]>),
    /// Differences by column.
    Modify(Vec<(usize, Datum)>),
    Delete,
}

/// What happened to the tables, which are named by their index in the layout.
pub(crate) type Updates = Vec<(usize, Vec<(Uuid, RowUpdate)>)>;

/// Reads the updates of one monitor. Tables that are not in the layout are passed over.
pub(crate) fn read(
    text: &str,
    layout: &[Arc<TableLayout>],
    strings: &mut Strings,
) -> Result<Updates, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let updates = TablesSeed { layout, strings }.deserialize(&mut json)?;
    json.end()?;
    Ok(updates)
}

struct TablesSeed<'a> {
    layout: &'a [Arc<TableLayout>],
    strings: &'a mut Strings,
}

struct RowsSeed<'a> {
    layout: &'a TableLayout,
    strings: &'a mut Strings,
}

struct RowUpdateSeed<'a> {
    layout: &'a TableLayout,
    strings: &'a mut Strings,
}

struct ColumnsSeed<'a> {
    layout: &'a TableLayout,
    strings: &'a mut Strings,
}

macro_rules! map_seed {
    ($seed:ident, $value:ty, $expecting:literal) => {
        impl<'de> DeserializeSeed<'de> for $seed<'_> {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<$value, D::Error> {
                input.deserialize_map(self)
            }
        }

        impl<'de> Visitor<'de> for $seed<'_> {
            type Value = $value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($expecting)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<$value, A::Error> {
                self.read(map)
            }
        }
    };
}

map_seed!(TablesSeed, Updates, "an object of tables");
map_seed!(RowsSeed, Vec<(Uuid, RowUpdate)>, "an object of rows");
map_seed!(RowUpdateSeed, RowUpdate, "a row update");
map_seed!(ColumnsSeed, Vec<(usize, Datum)>, "an object of columns");

impl TablesSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Updates, A::Error> {
        let mut updates = Updates::new();
        while let Some(name) = map.next_key::<String>()? {
            let Some(at) = self.layout.iter().position(|table| *table.name == *name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let seed = RowsSeed {
                layout: &self.layout[at],
                strings: self.strings,
            };
            updates.push((at, map.next_value_seed(seed)?));
        }
        Ok(updates)
    }
}

impl RowsSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<(Uuid, RowUpdate)>, A::Error> {
        let mut rows = Vec::new();
        while let Some(uuid) = map.next_key::<Uuid>()? {
            let seed = RowUpdateSeed {
                layout: self.layout,
                strings: self.strings,
            };
            rows.push((uuid, map.next_value_seed(seed)?));
        }
        Ok(rows)
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Initial,
    Insert,
    Modify,
    Delete,
    Old,
    New,
}

impl RowUpdateSeed<'_> {
    /// RFC 7047 gives `old`, `new` or both; the extension one of the other members.
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<RowUpdate, A::Error> {
        let mut update = None;
        while let Some(kind) = map.next_key::<Kind>()? {
            if matches!(kind, Kind::Delete | Kind::Old) {
                map.next_value::<IgnoredAny>()?;
                update.get_or_insert(RowUpdate::Delete);
                continue;
            }
            let seed = ColumnsSeed {
                layout: self.layout,
                strings: self.strings,
            };
            let columns = map.next_value_seed(seed)?;
            update = Some(match kind {
                Kind::Modify => RowUpdate::Modify(columns),
                _ => RowUpdate::Put(complete(self.layout, columns)),
            });
        }
        update.ok_or_else(|| de::Error::custom("a row update says nothing"))
    }
}

/// A new row's columns are left out where they have their default.
fn complete(layout: &TableLayout, columns: Vec<(usize, Datum)>) -> Arc<[Datum]> {
    let mut cells: Vec<Option<Datum>> = vec![None; layout.columns.len()];
    for (at, datum) in columns {
        cells[at] = Some(datum);
    }
    let cells = cells.into_iter().zip(&layout.types);
    cells
        .map(|(cell, ty)| cell.unwrap_or_else(|| ty.default_datum()))
        .collect()
}

impl ColumnsSeed<'_> {
    fn read<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<(usize, Datum)>, A::Error> {
        let mut columns = Vec::new();
        let mut hint = 0;
        while let Some(at) = map.next_key_seed(ColumnSeed {
            layout: self.layout,
            hint,
        })? {
            let Some(at) = at else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            hint = at + 1;
            let ty = Some(&self.layout.types[at]);
            columns.push((
                at,
                map.next_value_seed(DatumSeed {
                    ty,
                    strings: self.strings,
                })?,
            ));
        }
        Ok(columns)
    }
}

/// A column's name, found without being copied.
struct ColumnSeed<'a> {
    layout: &'a TableLayout,
    hint: usize,
}

impl<'de> DeserializeSeed<'de> for ColumnSeed<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Option<usize>, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for ColumnSeed<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.layout.position(name, self.hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ColumnType;

    fn layout() -> Vec<Arc<TableLayout>> {
        let ty = |text: &str| serde_json::from_str::<ColumnType>(text).unwrap();
        vec![Arc::new(TableLayout {
            name: "T".into(),
            columns: ["n".into(), "set".into()].into(),
            types: [
                ty(r#""integer""#),
                ty(r#"{"key":"string","min":0,"max":9}"#),
            ]
            .into(),
        })]
    }

    const ID: &str = "00000000-0000-0000-0000-000000000001";

    fn one(update: &str) -> Result<RowUpdate, serde_json::Error> {
        let text = format!(r#"{{"Other":{{"x":1}},"T":{{"{ID}":{update}}}}}"#);
        let mut updates = read(&text, &layout(), &mut Strings::new())?;
        let (table, mut rows) = updates.pop().unwrap();
        assert_eq!((table, rows[0].0), (0, Uuid::from_u128(1)));
        Ok(rows.pop().unwrap().1)
    }

    #[test]
    fn every_form_of_a_row_update_is_read() {
        let full = RowUpdate::Put(Arc::new([3.into(), Datum::empty()]));
        assert_eq!(one(r#"{"initial":{"n":3}}"#).unwrap(), full);
        assert_eq!(
            one(r#"{"insert":{"n":3,"unknown":["map",[]]}}"#).unwrap(),
            full
        );
        assert_eq!(one(r#"{"new":{"n":3},"old":{"n":1}}"#).unwrap(), full);
        assert_eq!(one(r#"{"old":{"n":1},"new":{"n":3}}"#).unwrap(), full);
        assert_eq!(one(r#"{"old":{"n":1}}"#).unwrap(), RowUpdate::Delete);
        assert_eq!(one(r#"{"delete":null}"#).unwrap(), RowUpdate::Delete);
        let modify = RowUpdate::Modify(vec![(1, "a".into())]);
        assert_eq!(one(r#"{"modify":{"set":"a"}}"#).unwrap(), modify);
    }

    #[test]
    fn what_is_no_row_update_is_refused() {
        for text in [
            "{}",
            "null",
            r#"{"initial":3}"#,
            r#"{"replace":{}}"#,
            r#"{"new":{"n":{}}}"#,
        ] {
            assert!(one(text).is_err(), "{text}");
        }
    }
}
