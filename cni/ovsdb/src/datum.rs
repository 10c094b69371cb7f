//! Datums: the values of columns (RFC 7047 §5.1, `<value>`).

use crate::Atom;
use serde::ser::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A column's value: a set of atoms or a map between atoms. A scalar is a set of one, an absent
/// optional value the empty set. Compact: 24 bytes, one allocation for a set of two elements and
/// more, two for a map; the maps of a replica that have the same keys share these.
///
/// Everything that makes an [`Atom`] makes a datum of one element; collections make sets and maps:
///
/// ```
/// use ovsdb::Datum;
/// use std::collections::BTreeMap;
/// let scalar = Datum::from("text");
/// let set: Datum = ["a", "b"].into_iter().collect();
/// let map = Datum::from(BTreeMap::from([("key", "value")]));
/// assert_eq!(map.get("key").and_then(|value| value.as_str()), Some("value"));
/// assert_eq!(serde_json::to_string(&set).unwrap(), r#"["set",["a","b"]]"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datum(Repr);

/// `Set` never holds exactly one atom, and `Map` is `None` if it is empty; sets and keys are sorted
/// and without duplicates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Repr {
    One(Atom),
    Set(Box<[Atom]>),
    Map(Option<Box<Map>>),
}

/// As many values as keys. Apart, since the rows of a table mostly have the same keys: in 100,000
/// logical ports these would be a tenth of what the whole program takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Map {
    keys: Arc<[Atom]>,
    values: Box<[Atom]>,
}

impl Datum {
    /// The empty set: an absent optional value.
    pub fn empty() -> Datum {
        Datum(Repr::Set(Box::default()))
    }

    /// The empty map.
    pub fn empty_map() -> Datum {
        Datum(Repr::Map(None))
    }

    /// A set.
    pub fn set<A: Into<Atom>>(atoms: impl IntoIterator<Item = A>) -> Datum {
        let mut atoms: Vec<Atom> = atoms.into_iter().map(Into::into).collect();
        atoms.sort();
        atoms.dedup();
        if atoms.len() == 1
            && let Some(atom) = atoms.pop()
        {
            return Datum(Repr::One(atom));
        }
        Datum(Repr::Set(atoms.into_boxed_slice()))
    }

    /// A map. Of two pairs with the same key the first stays.
    pub fn map<K: Into<Atom>, V: Into<Atom>>(pairs: impl IntoIterator<Item = (K, V)>) -> Datum {
        let pairs = pairs.into_iter();
        let pairs = pairs.map(|(key, value)| (key.into(), value.into()));
        Datum::map_with(pairs.collect(), Arc::from)
    }

    /// As [`Datum::map`]; `share` may find keys that are the same.
    pub(crate) fn map_with(
        mut pairs: Vec<(Atom, Atom)>,
        share: impl FnOnce(Vec<Atom>) -> Arc<[Atom]>,
    ) -> Datum {
        if pairs.is_empty() {
            return Datum::empty_map();
        }
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, first| later.0 == first.0);
        let (keys, values): (Vec<Atom>, Vec<Atom>) = pairs.into_iter().unzip();
        let (keys, values) = (share(keys), values.into_boxed_slice());
        Datum(Repr::Map(Some(Box::new(Map { keys, values }))))
    }

    /// The atoms of a set, in order; none for a map.
    pub fn atoms(&self) -> &[Atom] {
        match &self.0 {
            Repr::One(atom) => std::slice::from_ref(atom),
            Repr::Set(atoms) => atoms,
            Repr::Map(_) => &[],
        }
    }

    /// The keys and the values of a map; none for a set.
    fn columns(&self) -> (&[Atom], &[Atom]) {
        match &self.0 {
            Repr::Map(Some(map)) => (&map.keys, &map.values),
            _ => (&[], &[]),
        }
    }

    /// The pairs of a map, in order of the keys; none for a set.
    pub fn pairs(&self) -> impl ExactSizeIterator<Item = (&Atom, &Atom)> {
        let (keys, values) = self.columns();
        keys.iter().zip(values)
    }

    /// Whether this is a map, be it empty.
    pub fn is_map(&self) -> bool {
        matches!(self.0, Repr::Map(_))
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.atoms().len() + self.pairs().len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The atom of a set of one.
    pub fn one(&self) -> Option<&Atom> {
        match &self.0 {
            Repr::One(atom) => Some(atom),
            _ => None,
        }
    }

    /// The text of a set of one string.
    pub fn as_str(&self) -> Option<&str> {
        self.one().and_then(Atom::as_str)
    }

    /// The value under a string key of a map.
    pub fn get(&self, key: &str) -> Option<&Atom> {
        let (keys, values) = self.columns();
        let found = keys.binary_search_by(|k| match k {
            Atom::String(text) => (**text).cmp(key),
            other => other.cmp(&Atom::from(key)),
        });
        found.ok().map(|at| &values[at])
    }

    /// The value under a string key of a map, if it is a string.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Atom::as_str)
    }

    /// Whether the set has the atom, or the map the key.
    pub fn contains(&self, key: &Atom) -> bool {
        self.atoms().binary_search(key).is_ok() || self.value_of(key).is_some()
    }

    /// The value under a key of a map.
    pub fn value_of(&self, key: &Atom) -> Option<&Atom> {
        let (keys, values) = self.columns();
        keys.binary_search(key).ok().map(|at| &values[at])
    }
}

impl<A: Into<Atom>> From<A> for Datum {
    fn from(atom: A) -> Self {
        Datum(Repr::One(atom.into()))
    }
}

impl<A: Into<Atom>> FromIterator<A> for Datum {
    fn from_iter<I: IntoIterator<Item = A>>(atoms: I) -> Self {
        Datum::set(atoms)
    }
}

impl<A: Into<Atom>> From<Option<A>> for Datum {
    fn from(atom: Option<A>) -> Self {
        Datum::set(atom)
    }
}

impl<A: Into<Atom>> From<Vec<A>> for Datum {
    fn from(atoms: Vec<A>) -> Self {
        Datum::set(atoms)
    }
}

impl<A: Into<Atom>, const N: usize> From<[A; N]> for Datum {
    fn from(atoms: [A; N]) -> Self {
        Datum::set(atoms)
    }
}

impl<'a, A> From<&'a [A]> for Datum
where
    &'a A: Into<Atom>,
{
    fn from(atoms: &'a [A]) -> Self {
        Datum::set(atoms)
    }
}

impl<A: Into<Atom>> From<BTreeSet<A>> for Datum {
    fn from(atoms: BTreeSet<A>) -> Self {
        Datum::set(atoms)
    }
}

impl<K: Into<Atom>, V: Into<Atom>> From<BTreeMap<K, V>> for Datum {
    fn from(pairs: BTreeMap<K, V>) -> Self {
        Datum::map(pairs)
    }
}

impl<'a, K, V> From<&'a BTreeMap<K, V>> for Datum
where
    &'a K: Into<Atom>,
    &'a V: Into<Atom>,
{
    fn from(pairs: &'a BTreeMap<K, V>) -> Self {
        Datum::map(pairs)
    }
}

impl Serialize for Datum {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::One(atom) => atom.serialize(serializer),
            Repr::Set(atoms) => ("set", atoms).serialize(serializer),
            Repr::Map(_) => ("map", Pairs(self)).serialize(serializer),
        }
    }
}

/// The pairs of a map, as they are sent.
struct Pairs<'a>(&'a Datum);

impl Serialize for Pairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.pairs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datum_is_no_larger_than_an_atom() {
        assert_eq!(size_of::<Atom>(), 24);
        assert_eq!(size_of::<Datum>(), 24);
    }

    #[test]
    fn sets_are_sorted_and_sets_of_one_are_scalars() {
        assert_eq!(Datum::from(vec!["b", "a", "b"]), Datum::set(["a", "b"]));
        assert_eq!(Datum::from(vec![3]), Datum::from(3));
        assert_eq!(Datum::from(None::<bool>), Datum::empty());
        assert_ne!(Datum::empty(), Datum::empty_map());
    }

    #[test]
    fn values_are_written_as_rfc_7047_5_1_says() {
        let uuid = Uuid::from_u128(1);
        use uuid::Uuid;
        let cases: [(Datum, &str); 7] = [
            (Datum::from("a\"b"), r#""a\"b""#),
            (Datum::from(1.5), "1.5"),
            (Datum::empty(), r#"["set",[]]"#),
            (Datum::empty_map(), r#"["map",[]]"#),
            (Datum::from([1, 2]), r#"["set",[1,2]]"#),
            (
                Datum::from(uuid),
                r#"["uuid","00000000-0000-0000-0000-000000000001"]"#,
            ),
            (Datum::map([("k", true)]), r#"["map",[["k",true]]]"#),
        ];
        for (datum, text) in cases {
            assert_eq!(serde_json::to_string(&datum).unwrap(), text);
        }
    }

    #[test]
    fn elements_are_found_by_key() {
        let map = Datum::map([("b", "2"), ("a", "1"), ("b", "3")]);
        assert_eq!(map.get_str("b"), Some("2"));
        assert_eq!(map.get_str("c"), None);
        assert!(map.contains(&"a".into()) && !map.contains(&1.into()));
        assert!(Datum::from([1, 2]).contains(&2.into()));
    }
}
