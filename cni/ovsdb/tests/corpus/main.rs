//! The seeds of the fuzz target `ovsdb_messages`, replayed: streams that a server could send, and streams that none should.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod check;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use ovsdb::{Datum, Uuid};
use proptest::prelude::*;

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let entries = fs::read_dir(dir.join(target)).unwrap();
    let files = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    files.collect()
}

/// A seed's name says what becomes of it: `ok-…` is understood to its end, `no-…` is refused. Those that a fuzzer found have other names.
#[test]
fn seeds_keep_what_must_hold() {
    let seeds = seeds("ovsdb_messages");
    let mut kinds = BTreeSet::new();
    for (name, bytes) in &seeds {
        let understood = check::stream(bytes);
        match name.split_once('-') {
            Some(("ok", _)) => assert!(understood, "{name} was refused"),
            Some(("no", _)) => assert!(!understood, "{name} was understood"),
            _ => {}
        }
        kinds.insert(name.split('-').next().unwrap_or_default());
    }
    assert!(kinds.contains("ok") && kinds.contains("no"), "{kinds:?}");
    assert!(seeds.len() >= 20, "only {} seeds", seeds.len());
}

fn text() -> impl Strategy<Value = String> {
    "[ab\"\\\\é\n]{0,2}"
}

fn real() -> impl Strategy<Value = f64> {
    prop::sample::select(vec![0.0, 1.0, -2.5, 1e300])
}

fn columns() -> impl Strategy<Value = check::Rows> {
    use prop::collection::{btree_map, btree_set};
    let id = || (0u128..4).prop_map(Uuid::from_u128);
    let row = (
        -2i64..3,
        real(),
        any::<bool>(),
        btree_set(id(), 0..4),
        prop::option::of(text()),
        btree_set(text(), 0..4),
        btree_set(-2i64..5, 1..5),
        btree_map(text(), text(), 0..4),
        btree_map(-2i64..3, real(), 0..4),
        btree_map(text(), -2i64..3, 0..2),
    );
    let row = row.prop_map(|(i, r, b, u, o, s, n, m, w, p)| {
        let columns = [
            ("i", Datum::from(i)),
            ("r", Datum::from(r)),
            ("b", Datum::from(b)),
            ("u", Datum::from(u)),
            ("o", Datum::from(o)),
            ("s", Datum::from(s)),
            ("n", Datum::from(n)),
            ("m", Datum::map(m)),
            ("w", Datum::map(w)),
            ("p", Datum::map(p)),
        ];
        let columns = columns.map(|(name, datum)| (name.to_owned(), datum));
        columns.into_iter().collect()
    });
    btree_map(id(), row, 0..4)
}

proptest! {
    #[test]
    fn any_contents_are_fetched_and_followed(before in columns(), after in columns()) {
        check::fetched_and_followed(&before, &after);
    }
}

/// The checks themselves can fail.
#[test]
fn a_codec_that_errs_is_found() {
    let row = |number: i64| [("i".to_owned(), Datum::from(number))];
    // A column that no row of the schema has alone: what is read has the defaults of all others, too.
    let rows = check::Rows::from([(Uuid::nil(), row(1).into_iter().collect())]);
    let checked = std::panic::catch_unwind(|| check::fetched_and_followed(&rows, &rows));
    assert!(checked.is_err());
}
