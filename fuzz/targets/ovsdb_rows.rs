//! Two states of a table: a replica that follows the difference ends up where one is that fetches the second.
#![no_main]

#[path = "../../cni/ovsdb/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use ovsdb::{Atom, Datum, Uuid};

/// One row; identities and references are small, so that they meet.
#[derive(Debug, Arbitrary)]
struct Row {
    id: u8,
    i: i64,
    r: f64,
    b: bool,
    u: Vec<u8>,
    o: Option<String>,
    s: Vec<String>,
    n: Vec<i8>,
    m: BTreeMap<String, String>,
    w: BTreeMap<i8, f64>,
    p: Option<(String, i64)>,
}

libfuzzer_sys::fuzz_target!(|states: (Vec<Row>, Vec<Row>)| {
    check::fetched_and_followed(&rows(states.0), &rows(states.1));
});

fn rows(rows: Vec<Row>) -> check::Rows {
    let id = |number: u8| Uuid::from_u128(u128::from(number % 8));
    // What JSON cannot say, OVSDB cannot either.
    let real = |number: f64| Atom::Real(if number.is_finite() { number } else { 0.0 });
    let rows = rows.into_iter().map(|row| {
        let columns = [
            ("i", Datum::from(row.i)),
            ("r", Datum::from(real(row.r))),
            ("b", Datum::from(row.b)),
            ("u", Datum::set(row.u.into_iter().map(id))),
            ("o", Datum::from(row.o)),
            ("s", Datum::set(row.s)),
            ("n", Datum::set(row.n.into_iter().map(i64::from))),
            ("m", Datum::map(row.m)),
            (
                "w",
                Datum::map(row.w.into_iter().map(|(k, v)| (i64::from(k), real(v)))),
            ),
            ("p", Datum::map(row.p)),
        ];
        let columns = columns.map(|(name, datum)| (name.to_owned(), datum));
        (id(row.id), columns.into_iter().collect())
    });
    rows.collect()
}
