//! Typed rows.

use crate::atom::Atom;
use crate::datum::Datum;
use crate::error::DecodeError;
use crate::row::RowView;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use uuid::Uuid;

/// A table as a Rust type: some of its columns. Made by [`crate::table!`].
pub trait Table: Sized {
    /// The table's name.
    const NAME: &'static str;
    /// The columns that [`Table::decode`] reads.
    const COLUMNS: &'static [&'static str];

    /// Makes a typed row of a row.
    ///
    /// # Errors
    /// A column is of another type than the struct's field. A column that is not there is no
    /// error: the field has its default.
    fn decode(uuid: Uuid, row: &dyn RowView) -> Result<Self, DecodeError>;
}

/// Makes a struct that stands for a table: `pub uuid` and one public field per column, named like
/// it (`r#type` for `type`). Columns that the database's version of the schema does not have are
/// left at the default of their type.
///
/// ```
/// ovsdb::table! {
///     /// Where a logical port is bound.
///     pub struct PortBinding in "Port_Binding" {
///         logical_port: String,
///         r#type: String,
///         /// The chassis that claimed it.
///         chassis: Option<ovsdb::Uuid>,
///         external_ids: std::collections::BTreeMap<String, String>,
///     }
/// }
/// use ovsdb::Table;
/// assert_eq!(PortBinding::NAME, "Port_Binding");
/// assert_eq!(PortBinding::COLUMNS, ["logical_port", "type", "chassis", "external_ids"]);
/// ```
#[macro_export]
macro_rules! table {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident in $table:literal {
            $( $(#[$field_meta:meta])* $field:ident : $ty:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            /// The row's identity.
            pub uuid: $crate::Uuid,
            $(
                $(#[$field_meta])*
                #[doc = concat!("Column `", stringify!($field), "`.")]
                pub $field: $ty,
            )*
        }

        impl $crate::Table for $name {
            const NAME: &'static str = $table;
            const COLUMNS: &'static [&'static str] =
                &[$( $crate::column_name(stringify!($field)) ),*];

            fn decode(
                uuid: $crate::Uuid,
                row: &dyn $crate::RowView,
            ) -> ::core::result::Result<Self, $crate::DecodeError> {
                ::core::result::Result::Ok(Self {
                    uuid,
                    $( $field: $crate::column::<$ty>(
                        $table,
                        uuid,
                        $crate::column_name(stringify!($field)),
                        row,
                    )?, )*
                })
            }
        }
    };
}

/// The column that a field stands for: a raw identifier without its `r#`. For [`table!`].
#[doc(hidden)]
pub const fn column_name(field: &'static str) -> &'static str {
    let bytes = field.as_bytes();
    if bytes.len() > 2 && bytes[0] == b'r' && bytes[1] == b'#' {
        return field.split_at(2).1;
    }
    field
}

/// Reads one field of a typed row. For [`table!`].
///
/// # Errors
/// As [`Table::decode`].
#[doc(hidden)]
pub fn column<T: FromDatum + Default>(
    table: &'static str,
    uuid: Uuid,
    column: &'static str,
    row: &dyn RowView,
) -> Result<T, DecodeError> {
    match row.column(column) {
        None => Ok(T::default()),
        Some(datum) => T::from_datum(datum).ok_or(DecodeError {
            table,
            uuid,
            column,
            expected: T::EXPECTED,
        }),
    }
}

/// What can be the type of a typed row's field.
pub trait FromDatum: Sized {
    /// In words, for errors: "a string".
    const EXPECTED: &'static str;

    /// The value; `None` if the datum is of another type.
    fn from_datum(datum: &Datum) -> Option<Self>;
}

/// What can be an element of a set or map in a field.
trait FromAtom: Sized {
    const ONE: &'static str;
    const OPTION: &'static str;
    const SET: &'static str;
    fn from_atom(atom: &Atom) -> Option<Self>;
}

macro_rules! from_atom {
    ($($ty:ty, $name:literal, $pattern:pat => $value:expr;)*) => {
        $(impl FromAtom for $ty {
            const ONE: &'static str = concat!("one ", $name);
            const OPTION: &'static str = concat!("at most one ", $name);
            const SET: &'static str = concat!("a set of ", $name);

            fn from_atom(atom: &Atom) -> Option<Self> {
                match atom {
                    $pattern => Some($value),
                    _ => None,
                }
            }
        }

        impl FromDatum for $ty {
            const EXPECTED: &'static str = <$ty as FromAtom>::ONE;

            fn from_datum(datum: &Datum) -> Option<Self> {
                datum.one().and_then(<$ty as FromAtom>::from_atom)
            }
        })*
    };
}

from_atom! {
    String, "string", Atom::String(text) => text.as_ref().to_owned();
    Arc<str>, "string", Atom::String(text) => text.clone();
    i64, "integer", Atom::Integer(number) => *number;
    f64, "real", Atom::Real(number) => *number;
    bool, "boolean", Atom::Boolean(value) => *value;
    Uuid, "uuid", Atom::Uuid(uuid) => *uuid;
}

impl FromDatum for Datum {
    const EXPECTED: &'static str = "any value";

    fn from_datum(datum: &Datum) -> Option<Self> {
        Some(datum.clone())
    }
}

impl Default for Datum {
    fn default() -> Self {
        Datum::empty()
    }
}

impl<T: FromAtom> FromDatum for Option<T> {
    const EXPECTED: &'static str = T::OPTION;

    fn from_datum(datum: &Datum) -> Option<Self> {
        match (datum.is_map(), datum.atoms()) {
            (false, []) => Some(None),
            (false, [atom]) => T::from_atom(atom).map(Some),
            _ => None,
        }
    }
}

fn collect<T: FromAtom, C: FromIterator<T>>(datum: &Datum) -> Option<C> {
    (!datum.is_map()).then(|| datum.atoms().iter().map(T::from_atom).collect())?
}

fn collect_map<K: FromAtom, V: FromAtom, C: FromIterator<(K, V)>>(datum: &Datum) -> Option<C> {
    let pair = |(key, value): (&Atom, &Atom)| Some((K::from_atom(key)?, V::from_atom(value)?));
    datum.is_map().then(|| datum.pairs().map(pair).collect())?
}

impl<T: FromAtom> FromDatum for Vec<T> {
    const EXPECTED: &'static str = T::SET;

    fn from_datum(datum: &Datum) -> Option<Self> {
        collect(datum)
    }
}

impl<T: FromAtom + Ord> FromDatum for BTreeSet<T> {
    const EXPECTED: &'static str = T::SET;

    fn from_datum(datum: &Datum) -> Option<Self> {
        collect(datum)
    }
}

impl<T: FromAtom + Eq + Hash> FromDatum for HashSet<T> {
    const EXPECTED: &'static str = T::SET;

    fn from_datum(datum: &Datum) -> Option<Self> {
        collect(datum)
    }
}

impl<K: FromAtom + Ord, V: FromAtom> FromDatum for BTreeMap<K, V> {
    const EXPECTED: &'static str = "a map of the expected types";

    fn from_datum(datum: &Datum) -> Option<Self> {
        collect_map(datum)
    }
}

impl<K: FromAtom + Eq + Hash, V: FromAtom> FromDatum for HashMap<K, V> {
    const EXPECTED: &'static str = "a map of the expected types";

    fn from_datum(datum: &Datum) -> Option<Self> {
        collect_map(datum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Record;

    table! {
        /// All kinds of columns.
        struct Thing in "Thing" {
            name: String,
            r#type: Arc<str>,
            up: Option<bool>,
            ports: Vec<Uuid>,
            options: BTreeMap<String, String>,
            size: i64,
            raw: Datum,
        }
    }

    #[test]
    fn columns_that_are_missing_have_their_defaults() {
        let thing = Thing::decode(Uuid::nil(), &Record::default()).unwrap();
        assert_eq!((thing.name.as_str(), thing.up, thing.size), ("", None, 0));
        assert!(thing.ports.is_empty() && thing.options.is_empty() && thing.raw.is_empty());
    }

    #[test]
    fn fields_are_read_and_wrong_types_are_named() {
        let id = Uuid::from_u128(3);
        let record: Record = [
            ("name", Datum::from("n")),
            ("type", Datum::from("t")),
            ("up", Datum::from(true)),
            ("ports", Datum::from(id)),
            ("options", Datum::map([("a", "b")])),
        ]
        .into_iter()
        .collect();
        let thing = Thing::decode(id, &record).unwrap();
        assert_eq!(
            (thing.name.as_str(), &*thing.r#type, thing.up),
            ("n", "t", Some(true))
        );
        assert_eq!(thing.ports, [id]);
        assert_eq!(thing.options["a"], "b");
        let wrong: Record = [("up", Datum::from([true, false]))].into_iter().collect();
        let error = Thing::decode(id, &wrong).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("Thing {id}: column up is not at most one boolean")
        );
    }
}
