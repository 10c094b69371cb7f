//! Replicas: contents, conditions, changes, and what a restart or a pause does to them.

use crate::proxy::{Proxy, Verdict};
use crate::server::{Server, client, soon};
use ovsdb::{
    Change, ChangeKind, Client, Condition, Datum, MonitorSpec, Replica, Transaction, Uuid, Values,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

ovsdb::table! {
    /// Columns of the test database, and one of another version.
    pub(crate) struct Thing in "Thing" {
        name: String,
        opt: Option<String>,
        numbers: BTreeSet<i64>,
        map: BTreeMap<String, String>,
        from_the_future: Vec<String>,
    }
}

pub(crate) async fn insert(client: &Client, name: &str, columns: Values) -> Uuid {
    let mut transaction = Transaction::new();
    let row = columns.set("name", name).set("names", "n");
    let id = transaction.insert("Thing", row);
    client
        .transact(transaction, soon())
        .await
        .unwrap()
        .inserted(&id)
        .unwrap()
}

pub(crate) fn names(replica: &Replica) -> Vec<String> {
    let mut names: Vec<String> =
        replica.read(|s| s.rows::<Thing>().map(|row| row.unwrap().name).collect());
    names.sort();
    names
}

async fn until(replica: &Replica, done: impl Fn(&Replica) -> bool) {
    let mut changed = replica.changed();
    let waiting = async {
        while !done(replica) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout_at(soon(), waiting)
        .await
        .expect("the replica never got there");
}

#[tokio::test]
async fn two_clients_see_each_others_writes() {
    let server = Server::standalone();
    let clients = [server.client(), server.client()];
    let replicas = clients
        .each_ref()
        .map(|c| c.monitor(MonitorSpec::new().table::<Thing>()));
    for replica in &replicas {
        replica.wait_synced(soon()).await.unwrap();
    }
    let map = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    let id = insert(
        &clients[0],
        "a",
        Values::new().set("map", &map).set("numbers", [1, 2]),
    )
    .await;
    // The writer's own replica has the row as soon as the answer is there.
    assert_eq!(names(&replicas[0]), ["a"]);
    until(&replicas[1], |r| r.read(|s| !s.is_empty("Thing"))).await;
    let thing = replicas[1].read(|s| s.row::<Thing>(id)).unwrap().unwrap();
    assert_eq!(
        (thing.opt, thing.map, thing.numbers),
        (None, map, BTreeSet::from([1, 2]))
    );
    assert!(thing.from_the_future.is_empty());
    assert!(clients[0].status().borrow().synced);
}

#[tokio::test]
async fn conditions_choose_rows_and_can_be_changed() {
    let server = Server::standalone();
    let client = server.client();
    for (name, key) in [("a", "x"), ("b", "y"), ("c", "z")] {
        insert(
            &client,
            name,
            Values::new().set("map", Datum::map([(key, "")])),
        )
        .await;
    }
    let with = |key: &str| Condition::includes("map", Datum::map([(key, "")]));
    let spec = MonitorSpec::new()
        .table::<Thing>()
        .where_([with("x"), with("y")]);
    let replica = client.monitor(spec);
    replica.wait_synced(soon()).await.unwrap();
    assert_eq!(names(&replica), ["a", "b"]);

    // A row comes and goes as it begins and ceases to meet the condition.
    let mut changes = replica.subscribe();
    assert_eq!(changes.recv().await, Some(Change::Reset));
    for (map, kind) in [("x", ChangeKind::Insert), ("q", ChangeKind::Delete)] {
        let mut update = Transaction::new();
        let columns = Values::new().set("map", Datum::map([(map, "")]));
        update.update("Thing", [Condition::eq("name", "c")], columns);
        client.transact(update, soon()).await.unwrap();
        let Some(Change::Row(change)) = changes.recv().await else {
            panic!()
        };
        assert_eq!((change.kind(), change.table()), (kind, "Thing"));
    }

    replica.set_condition("Thing", [with("q"), with("y")]);
    assert!(!replica.synced());
    replica.wait_synced(soon()).await.unwrap();
    assert_eq!(names(&replica), ["b", "c"]);
    replica.set_condition("Thing", []);
    replica.set_condition("Thing", [with("x")]);
    replica.wait_synced(soon()).await.unwrap();
    assert_eq!(names(&replica), ["a"]);
    replica.set_condition("Thing", []);
    replica.wait_synced(soon()).await.unwrap();
    assert!(names(&replica).is_empty());
}

#[tokio::test]
async fn the_contents_outlive_a_restart_and_are_right_afterwards() {
    let mut server = Server::standalone();
    let client = server.client();
    insert(&client, "a", Values::new()).await;
    let replica = client.monitor(MonitorSpec::new().table::<Thing>());
    replica.wait_synced(soon()).await.unwrap();
    let mut changes = replica.subscribe();
    let mut synced = replica.watch_synced();
    server.kill();
    tokio::time::timeout_at(soon(), synced.wait_for(|synced| !synced))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(names(&replica), ["a"]);
    assert!(client.status().borrow().last_error.is_some());
    server.start();
    replica.wait_synced(soon()).await.unwrap();
    insert(&client, "b", Values::new()).await;
    assert_eq!(names(&replica), ["a", "b"]);
    // A single server keeps no history over a restart: the contents were fetched anew.
    assert_eq!(changes.recv().await, Some(Change::Reset));
    assert_eq!(changes.recv().await, Some(Change::Reset));
    assert!(matches!(changes.recv().await, Some(Change::Row(_))));
}

/// Where the server knows the last transaction, what was missed comes as changes; where it does
/// not, the contents are replaced. Both ways end with the server's contents.
#[tokio::test]
async fn a_pause_is_made_up_by_changes_or_by_new_contents() {
    let servers = Server::cluster(1);
    let direct = servers[0].client();
    let proxy = Proxy::plain(servers[0].socket());
    let paused = client(vec![proxy.remote()]);
    insert(&direct, "first", Values::new()).await;
    let replica = paused.monitor(MonitorSpec::new().table::<Thing>());
    replica.wait_synced(soon()).await.unwrap();
    let mut changes = replica.subscribe();
    assert_eq!(changes.recv().await, Some(Change::Reset));
    let mut synced = replica.watch_synced();
    for (count, resumed) in [(3, true), (0, true), (150, false)] {
        proxy.pause();
        synced.wait_for(|synced| !synced).await.unwrap();
        for n in 0..count {
            insert(&direct, &format!("{count}-{n}"), Values::new()).await;
        }
        proxy.resume();
        replica.wait_synced(soon()).await.unwrap();
        if resumed {
            for _ in 0..count {
                assert!(matches!(changes.recv().await, Some(Change::Row(_))));
            }
        } else {
            assert_eq!(changes.recv().await, Some(Change::Reset));
        }
        assert!(changes.try_recv().is_err());
    }
    let mut select = Transaction::new();
    select.select("Thing", [], ["name"]);
    let outcome = direct.transact(select, soon()).await.unwrap();
    let mut expected: Vec<String> = (outcome.rows(0).iter())
        .map(|row| row.get("name").unwrap().as_str().unwrap().to_owned())
        .collect();
    expected.sort();
    assert_eq!(names(&replica), expected);
    assert_eq!(expected.len(), 154);
}

#[tokio::test]
async fn a_killed_server_of_a_cluster_resumes_after_its_restart() {
    let mut servers = Server::cluster(1);
    let client = servers[0].client();
    insert(&client, "a", Values::new()).await;
    let replica = client.monitor(MonitorSpec::new().table::<Thing>());
    replica.wait_synced(soon()).await.unwrap();
    let mut changes = replica.subscribe();
    let mut synced = replica.watch_synced();
    servers[0].kill();
    synced.wait_for(|synced| !synced).await.unwrap();
    servers[0].start();
    replica.wait_synced(soon()).await.unwrap();
    insert(&client, "b", Values::new()).await;
    assert_eq!(changes.recv().await, Some(Change::Reset));
    let Some(Change::Row(change)) = changes.recv().await else {
        panic!("not resumed")
    };
    assert_eq!(change.new.unwrap().decode::<Thing>().unwrap().name, "b");
}

/// Older servers: the proxy answers as they do.
#[tokio::test]
async fn without_newer_methods_the_older_ones_are_used() {
    let server = Server::standalone();
    let direct = server.client();
    insert(&direct, "a", Values::new()).await;
    let all: &[&str] = &["monitor_cond_since", "monitor_cond"];
    for unknown in [&all[..1], all] {
        let refused = Arc::new(AtomicUsize::new(0));
        let counter = refused.clone();
        let proxy = Proxy::start(
            server.socket(),
            move |message| {
                let method = message["method"].as_str().unwrap_or_default();
                if !unknown.contains(&method) {
                    return Verdict::Forward;
                }
                counter.fetch_add(1, Ordering::Relaxed);
                let error = json!({"error": "unknown method", "details": method});
                Verdict::Answer(json!({"id": message["id"], "result": null, "error": error}))
            },
            |_| Verdict::Forward,
        );
        let old = client(vec![proxy.remote()]);
        let replicas = [(); 2].map(|()| old.monitor(MonitorSpec::new().table::<Thing>()));
        for replica in &replicas {
            replica.wait_synced(soon()).await.unwrap();
            assert_eq!(names(replica), ["a"]);
        }
        let id = insert(&old, "b", Values::new().set("numbers", [1, 2])).await;
        let mut update = Transaction::new();
        let columns = Values::new().set("numbers", [2, 3]).set("opt", "o");
        update.update("Thing", [Condition::uuid(id)], columns);
        old.transact(update, soon()).await.unwrap();
        for replica in &replicas {
            let thing = replica.read(|s| s.row::<Thing>(id)).unwrap().unwrap();
            assert_eq!(thing.numbers, BTreeSet::from([2, 3]));
            assert_eq!(thing.opt.as_deref(), Some("o"));
        }
        let mut delete = Transaction::new();
        delete.delete("Thing", [Condition::uuid(id)]);
        old.transact(delete, soon()).await.unwrap();
        assert_eq!(names(&replicas[0]), ["a"]);
        assert!(refused.load(Ordering::Relaxed) >= unknown.len());
    }
}

#[tokio::test]
async fn a_dropped_replica_is_cancelled_at_the_server() {
    let server = Server::standalone();
    let (sender, mut cancelled) = tokio::sync::mpsc::unbounded_channel();
    let proxy = Proxy::start(
        server.socket(),
        move |message| {
            if message["method"] == "monitor_cancel" {
                sender.send(()).unwrap();
            }
            Verdict::Forward
        },
        |_| Verdict::Forward,
    );
    let client = client(vec![proxy.remote()]);
    let replica = client.monitor(MonitorSpec::new().table::<Thing>());
    replica.wait_synced(soon()).await.unwrap();
    drop(replica);
    cancelled.recv().await.unwrap();
    insert(&client, "a", Values::new()).await;
}
