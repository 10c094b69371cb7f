//! The differences of `modify` in `update2` and `update3` (ovsdb-server(7), "Update2
//! Notification").

use crate::datum::Datum;
use crate::schema::ColumnType;

/// The value after a `modify` of `old` by `diff`.
///
/// * At most one element (`max` 1; maps of one pair too): `diff` is the new value.
/// * A set: the elements that are in one of the two and not in the other.
/// * A map: a key that `old` does not have is added; a key with the value that `old` has is
///   removed; a key with another value gets that value.
pub(crate) fn apply(old: &Datum, diff: Datum, ty: &ColumnType) -> Datum {
    if ty.max == 1 {
        return diff;
    }
    if ty.value.is_some() {
        return map(old, &diff);
    }
    let kept = old.atoms().iter().filter(|atom| !diff.contains(atom));
    let added = diff.atoms().iter().filter(|atom| !old.contains(atom));
    Datum::set(kept.chain(added))
}

fn map(old: &Datum, diff: &Datum) -> Datum {
    let kept = old.pairs().filter(|(key, _)| !diff.contains(key));
    let put = diff
        .pairs()
        .filter(|(key, value)| old.value_of(key) != Some(*value));
    Datum::map(kept.chain(put))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ty(text: &str) -> ColumnType {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn sets_toggle_and_scalars_are_replaced() {
        let set = ty(r#"{"key":"integer","min":0,"max":"unlimited"}"#);
        assert_eq!(
            apply(&[1, 2].into(), [2, 3].into(), &set),
            Datum::from([1, 3])
        );
        assert_eq!(apply(&1.into(), 1.into(), &set), Datum::empty());
        assert_eq!(apply(&Datum::empty(), Datum::empty(), &set), Datum::empty());
        let optional = ty(r#"{"key":"integer","min":0,"max":1}"#);
        assert_eq!(apply(&1.into(), 2.into(), &optional), Datum::from(2));
        assert_eq!(apply(&1.into(), Datum::empty(), &optional), Datum::empty());
        assert_eq!(
            apply(&1.into(), 2.into(), &ty(r#""integer""#)),
            Datum::from(2)
        );
    }

    #[test]
    fn maps_add_replace_and_remove() {
        let ty = ty(r#"{"key":"string","value":"integer","min":0,"max":"unlimited"}"#);
        let old = Datum::map([("stay", 1), ("change", 1), ("go", 1)]);
        let diff = Datum::map([("change", 2), ("go", 1), ("come", 1)]);
        let new = Datum::map([("stay", 1), ("change", 2), ("come", 1)]);
        assert_eq!(apply(&old, diff, &ty), new);
        assert_eq!(apply(&old, Datum::empty_map(), &ty), old);
    }

    #[test]
    fn a_map_of_at_most_one_pair_is_replaced() {
        let ty = ty(r#"{"key":"string","value":"integer","min":0,"max":1}"#);
        let old = Datum::map([("a", 1)]);
        assert_eq!(apply(&old, Datum::empty_map(), &ty), Datum::empty_map());
        assert_eq!(
            apply(&old, Datum::map([("b", 1)]), &ty),
            Datum::map([("b", 1)])
        );
    }
}
