//! Transactions: results, every place where an error can stand, and connections that go away.

use crate::proxy::{Proxy, Verdict};
use crate::server::{Server, client, soon};
use ovsdb::{
    Client, Condition, Datum, Mutation, Outcome, RefusalKind, Remote, TransactError, Transaction,
    Values, Wait,
};
use std::time::Duration;
use tokio::time::Instant;

fn thing(name: &str) -> Values {
    Values::new().set("name", name).set("names", "n")
}

async fn count(client: &Client, table: &str) -> usize {
    let mut select = Transaction::new();
    select.select(table, [], ["_uuid"]);
    client.transact(select, soon()).await.unwrap().rows(0).len()
}

/// Inserts one thing and does `and` in the same transaction.
async fn with(
    client: &Client,
    name: &str,
    and: impl FnOnce(&mut Transaction),
) -> Result<Outcome, TransactError> {
    let mut transaction = Transaction::new();
    transaction.insert("Thing", thing(name));
    and(&mut transaction);
    client.transact(transaction, soon()).await
}

#[tokio::test]
async fn every_operation_has_its_result() {
    let server = Server::standalone();
    let client = server.client();
    let mut transaction = Transaction::new();
    let part = transaction.insert("Part", Values::new().set("name", "p"));
    let columns = thing("a")
        .set("parts", &part)
        .set("real", 1.0)
        .set("map", Datum::map([("k", "v")]));
    let a = transaction.insert("Thing", columns);
    let named = || [Condition::eq("name", "a")];
    transaction
        .update("Thing", named(), Values::new().set("number", 7))
        .mutate(
            "Thing",
            named(),
            [Mutation::add("number", 3), Mutation::insert("few", "x")],
        )
        .select(
            "Thing",
            named(),
            ["_uuid", "number", "real", "few", "map", "parts"],
        )
        .comment("all of it")
        .durable()
        .wait(Wait::some_row("Thing", named()))
        .delete("Thing", [Condition::eq("name", "nobody")]);
    let outcome = client.transact(transaction, soon()).await.unwrap();
    let (part, a) = (
        outcome.inserted(&part).unwrap(),
        outcome.inserted(&a).unwrap(),
    );
    assert_eq!(
        (outcome.count(2), outcome.count(3), outcome.count(8)),
        (Some(1), Some(1), Some(0))
    );
    let row = &outcome.rows(4)[0];
    assert_eq!(row.uuid(), Some(a));
    assert_eq!(row.get("number"), Some(&10.into()));
    assert_eq!(row.get("real"), Some(&Datum::from(1.0)));
    assert_eq!(row.get("few"), Some(&"x".into()));
    assert_eq!(row.get("map"), Some(&Datum::map([("k", "v")])));
    assert_eq!(row.get("parts"), Some(&part.into()));
}

#[tokio::test]
async fn a_map_insert_keeps_the_old_value_and_delete_then_insert_replaces_it() {
    let server = Server::standalone();
    let client = server.client();
    let map = |value: &str| Datum::map([("k", value)]);
    with(&client, "a", |t| {
        t.update("Thing", [], Values::new().set("map", map("1")))
            .mutate("Thing", [], [Mutation::insert("map", map("2"))])
            .select("Thing", [], ["map"])
            .mutate(
                "Thing",
                [],
                [
                    Mutation::delete("map", "k"),
                    Mutation::insert("map", map("3")),
                ],
            )
            .select("Thing", [], ["map"]);
    })
    .await
    .map(|outcome| {
        assert_eq!(outcome.rows(3)[0].get("map"), Some(&map("1")));
        assert_eq!(outcome.rows(5)[0].get("map"), Some(&map("3")));
    })
    .unwrap();
}

#[tokio::test]
async fn errors_of_operations_name_the_operation() {
    let server = Server::standalone();
    let client = server.client();
    let check = async |kind: RefusalKind, op: usize, and: fn(&mut Transaction)| {
        let error = with(&client, "x", and).await.unwrap_err();
        assert!(error.is(kind), "{error}");
        let refusal = error.refusal().unwrap();
        assert_eq!(
            (refusal.op, refusal.table.as_deref()),
            (Some(op), Some("Thing")),
            "{error}"
        );
    };
    check(RefusalKind::Constraint, 1, |t| {
        t.update("Thing", [], Values::new().set("number", 1001));
    })
    .await;
    check(RefusalKind::Guard, 2, |t| {
        t.comment("c")
            .wait(Wait::no_row("Thing", [Condition::eq("name", "x")]))
            .comment("d");
    })
    .await;
    check(RefusalKind::Invalid, 1, |t| {
        t.update("Thing", [], Values::new().set("unknown", 1));
    })
    .await;
    assert_eq!(count(&client, "Thing").await, 0);
}

#[tokio::test]
async fn errors_of_the_commit_are_surfaced() {
    let server = Server::standalone();
    let client = server.client();
    with(&client, "x", |_| {}).await.unwrap();
    let twice = with(&client, "x", |_| {}).await.unwrap_err();
    assert!(twice.is(RefusalKind::Constraint), "{twice}");
    assert_eq!(twice.refusal().unwrap().op, None);
    let dangling = with(&client, "y", |t| {
        t.update(
            "Thing",
            [],
            Values::new().set("parts", ovsdb::Uuid::from_u128(5)),
        );
    });
    let dangling = dangling.await.unwrap_err();
    assert!(dangling.is(RefusalKind::Referential), "{dangling}");
    assert_eq!(count(&client, "Thing").await, 1);
}

#[tokio::test]
async fn a_row_that_nothing_refers_to_is_gone_after_its_transaction() {
    let server = Server::standalone();
    let client = server.client();
    let mut transaction = Transaction::new();
    let part = transaction.insert("Part", Values::new().set("name", "p"));
    let outcome = client.transact(transaction, soon()).await.unwrap();
    assert!(outcome.inserted(&part).is_some());
    assert_eq!(count(&client, "Part").await, 0);
}

#[tokio::test]
async fn a_guard_lets_one_of_two_writers_through() {
    let server = Server::standalone();
    let clients = [server.client(), server.client()];
    with(&clients[0], "owner", |_| {}).await.unwrap();
    let take = async |client: &Client, me: i64| {
        let free = [
            Condition::eq("name", "owner"),
            Condition::eq("opt_number", Datum::empty()),
        ];
        let mut transaction = Transaction::new();
        transaction.wait(Wait::some_row("Thing", free)).update(
            "Thing",
            [Condition::eq("name", "owner")],
            [("opt_number", me)],
        );
        client.transact(transaction, soon()).await
    };
    let (a, b) = tokio::join!(take(&clients[0], 1), take(&clients[1], 2));
    assert!(a.is_ok() != b.is_ok());
    let error = a.err().or(b.err()).unwrap();
    assert!(error.is(RefusalKind::Guard), "{error}");
}

#[tokio::test]
async fn joined_transactions_keep_their_names_apart() {
    let server = Server::standalone();
    let client = server.client();
    let (mut one, mut two) = (Transaction::new(), Transaction::new());
    let a = one.insert("Thing", thing("a"));
    let b = two.insert("Thing", thing("b"));
    assert_eq!(one.append(two), 1..2);
    let outcome = client.transact(one, soon()).await.unwrap();
    assert_ne!(outcome.inserted(&a).unwrap(), outcome.inserted(&b).unwrap());
}

#[tokio::test]
async fn without_a_server_a_transaction_was_surely_not_sent() {
    let nowhere = client(vec![Remote::Unix("/nonexistent/db.sock".into())]);
    let deadline = Instant::now() + Duration::from_millis(300);
    let mut transaction = Transaction::new();
    transaction.insert("Thing", thing("a"));
    let error = nowhere.transact(transaction, deadline).await.unwrap_err();
    assert!(
        matches!(error, TransactError::NotConnected { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("/nonexistent/db.sock"),
        "{error}"
    );
}

#[tokio::test]
async fn a_transaction_waits_for_the_server_and_one_that_was_given_up_is_never_sent() {
    let mut server = Server::standalone();
    server.kill();
    let client = server.client();
    let mut given_up = Transaction::new();
    given_up.insert("Thing", thing("given up"));
    let late = Instant::now() + Duration::from_millis(100);
    assert!(client.transact(given_up, late).await.is_err());
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { with(&client, "waited", |_| {}).await }
    });
    tokio::task::yield_now().await;
    server.start();
    waiting.await.unwrap().unwrap();
    assert_eq!(count(&client, "Thing").await, 1);
}

#[tokio::test]
async fn a_connection_lost_before_the_answer_leaves_the_outcome_unknown() {
    let server = Server::standalone();
    let proxy = Proxy::start(
        server.socket(),
        |message| {
            if message["method"] == "transact" {
                Verdict::Cut
            } else {
                Verdict::Forward
            }
        },
        |_| Verdict::Forward,
    );
    let cut = client(vec![proxy.remote()]);
    let error = with(&cut, "a", |_| {}).await.unwrap_err();
    assert!(matches!(error, TransactError::Unknown { .. }), "{error}");
    // Sent once and not again: the server has it once, or not at all.
    let direct = server.client();
    assert!(count(&direct, "Thing").await <= 1);
}

#[tokio::test]
async fn no_answer_before_the_deadline_leaves_the_outcome_unknown() {
    let server = Server::standalone();
    let client = server.client();
    count(&client, "Thing").await;
    let mut transaction = Transaction::new();
    let never = [Condition::eq("name", "never")];
    transaction.wait(Wait::some_row("Thing", never).timeout_ms(60_000));
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = client.transact(transaction, deadline).await.unwrap_err();
    assert!(matches!(error, TransactError::Unknown { .. }), "{error}");
    // The connection is as good as before.
    assert_eq!(count(&client, "Thing").await, 0);
}

#[tokio::test]
async fn an_unknown_database_is_said_so() {
    let server = Server::standalone();
    let config = ovsdb::Config::new("Nothing", vec![server.remote()]);
    let client = Client::start(config);
    let deadline = Instant::now() + Duration::from_millis(500);
    let error = client
        .transact(Transaction::new(), deadline)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not serve Nothing"), "{error}");
}
