//! The codec of values and differences against a real server: whatever one client writes, the
//! replica of another has what a select finds.

use crate::server::{Server, soon};
use ovsdb::{Atom, Client, Condition, Datum, MonitorSpec, Mutation, Record, Replica};
use ovsdb::{Transaction, Uuid, Values};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;

const COLUMNS: [&str; 13] = [
    "number",
    "real",
    "flag",
    "opt",
    "opt_number",
    "numbers",
    "reals",
    "names",
    "few",
    "map",
    "weights",
    "pair",
    "by_name",
];

#[derive(Debug, Clone)]
enum Step {
    /// Writes some columns of one of three rows, which is inserted if it is not there.
    Write(u8, BTreeMap<usize, Datum>),
    Mutate(u8, usize, bool, Datum),
    Delete(u8),
}

fn text() -> impl Strategy<Value = Atom> {
    prop_oneof!["[ab]", "", "[\"\\\\\\]},\u{e9}\u{1f600}\n]{1,3}"].prop_map(Atom::from)
}

fn integer() -> impl Strategy<Value = Atom> {
    prop_oneof![-2i64..4, Just(i64::MIN), Just(1000)].prop_map(Atom::from)
}

fn real() -> impl Strategy<Value = Atom> {
    prop::sample::select(vec![0.0, 1.0, -2.5, 0.1, 1e300, 123_456_789.125]).prop_map(Atom::from)
}

fn set(
    of: impl Strategy<Value = Atom> + 'static,
    size: std::ops::Range<usize>,
) -> BoxedStrategy<Datum> {
    btree_set(of, size).prop_map(Datum::from).boxed()
}

fn map<K, V>(key: K, value: V, most: usize) -> BoxedStrategy<Datum>
where
    K: Strategy<Value = Atom> + 'static,
    V: Strategy<Value = Atom> + 'static,
{
    btree_map(key, value, 0..most + 1)
        .prop_map(Datum::from)
        .boxed()
}

/// Values that column `at` accepts.
fn value(at: usize) -> BoxedStrategy<Datum> {
    match COLUMNS[at] {
        "number" => set(integer(), 1..2),
        "real" => set(real(), 1..2),
        "flag" => any::<bool>().prop_map(Datum::from).boxed(),
        "opt" => set(text(), 0..2),
        "opt_number" => set(integer(), 0..2),
        "numbers" => set(integer(), 0..5),
        "reals" => set(real(), 0..5),
        "names" => set(text(), 1..4),
        "few" => set(text(), 0..3),
        "map" => map(text(), text(), 4),
        "weights" => map(integer(), real(), 4),
        "pair" => map(text(), integer(), 1),
        // Only the empty map: other values need rows to refer to.
        _ => Just(Datum::empty_map()).boxed(),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let columns = vec(
        (0..COLUMNS.len()).prop_flat_map(|at| (Just(at), value(at))),
        0..6,
    );
    let mutable = prop::sample::select(vec!["numbers", "reals", "map", "weights"]);
    let mutate = mutable.prop_flat_map(|name| {
        let at = COLUMNS.iter().position(|column| *column == name).unwrap();
        (Just(at), any::<bool>(), value(at))
    });
    prop_oneof![
        6 => (0u8..3, columns).prop_map(|(row, c)| Step::Write(row, c.into_iter().collect())),
        3 => (0u8..3, mutate).prop_map(|(row, (at, add, d))| Step::Mutate(row, at, add, d)),
        1 => (0u8..3).prop_map(Step::Delete),
    ]
}

fn transaction(step: Step, there: &mut [bool; 3]) -> Transaction {
    let mut transaction = Transaction::new();
    let named = |row: u8| [Condition::eq("name", format!("row {row}"))];
    match step {
        Step::Write(row, columns) => {
            let mut values: Values = columns
                .into_iter()
                .map(|(at, datum)| (COLUMNS[at], datum))
                .collect();
            if std::mem::replace(&mut there[usize::from(row)], true) {
                transaction.update("Thing", named(row), values);
            } else {
                if values.iter().all(|(column, _)| column != "names") {
                    values = values.set("names", "n");
                }
                transaction.insert("Thing", values.set("name", format!("row {row}")));
            }
        }
        Step::Mutate(row, at, true, datum) => {
            let mutation = Mutation::insert(COLUMNS[at], datum);
            transaction.mutate("Thing", named(row), [mutation]);
        }
        Step::Mutate(row, at, false, datum) => {
            let mutation = Mutation::delete(COLUMNS[at], datum);
            transaction.mutate("Thing", named(row), [mutation]);
        }
        Step::Delete(row) => {
            there[usize::from(row)] = false;
            transaction.delete("Thing", named(row));
        }
    }
    transaction
}

async fn selected(client: &Client) -> BTreeMap<Uuid, Record> {
    let mut select = Transaction::new();
    select.select("Thing", [], COLUMNS.into_iter().chain(["_uuid"]));
    let outcome = client.transact(select, soon()).await.unwrap();
    outcome
        .rows(0)
        .iter()
        .map(|row| (row.uuid().unwrap(), row.clone()))
        .collect()
}

fn replicated(replica: &Replica) -> BTreeMap<Uuid, Record> {
    let record = |row: ovsdb::Row| {
        let columns = row
            .columns()
            .map(|(column, datum)| (column.to_owned(), datum.clone()));
        let id = ("_uuid".to_owned(), Datum::from(row.uuid()));
        (row.uuid(), columns.chain([id]).collect())
    };
    replica.read(|snapshot| snapshot.raw("Thing").map(record).collect())
}

#[test]
fn a_replica_is_what_a_select_finds() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _guard = runtime.enter();
    let server = Server::standalone();
    let (writer, reader) = (server.client(), server.client());
    let replica = reader.monitor(MonitorSpec::new().columns("Thing", COLUMNS));
    runtime.block_on(replica.wait_synced(soon())).unwrap();
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&vec(step(), 1..12), |steps| {
        runtime.block_on(async {
            let mut clear = Transaction::new();
            clear.delete("Thing", []);
            writer.transact(clear, soon()).await.unwrap();
            let mut there = [false; 3];
            for step in steps {
                let transaction = transaction(step, &mut there);
                writer.transact(transaction, soon()).await.unwrap();
                // The server sends updates before the answer to a later request.
                let expected = selected(&reader).await;
                prop_assert_eq!(replicated(&replica), expected);
            }
            Ok(())
        })
    });
    result.unwrap();
}
