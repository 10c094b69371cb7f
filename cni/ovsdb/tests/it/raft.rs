//! A cluster of three real servers whose leader is killed while a client writes.

use crate::server::{Server, config, soon};
use ovsdb::{Change, Client, Datum, MonitorSpec, Remote, TransactError, Transaction, Values};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

fn follow_leader(servers: &[Server]) -> Client {
    let remotes = servers.iter().map(Server::remote).collect();
    Client::start(ovsdb::Config {
        leader_only: true,
        ..config(remotes)
    })
}

/// Waits until the client is connected to a leader other than `not`.
async fn leader(client: &Client, not: Option<&Remote>) -> Remote {
    let mut status = client.status();
    let found = status.wait_for(|s| s.connected && s.remote.as_ref() != not);
    let found = tokio::time::timeout_at(soon(), found)
        .await
        .expect("no leader")
        .unwrap();
    found.remote.clone().unwrap()
}

/// What became of the transactions of a writer.
#[derive(Default)]
struct Log {
    acknowledged: Vec<i64>,
    unknown: Vec<i64>,
}

/// Inserts 0, 1, 2 … and never the same number twice.
async fn write(client: Client, stop: watch::Receiver<bool>, written: watch::Sender<usize>) -> Log {
    let mut log = Log::default();
    for number in 0.. {
        if *stop.borrow() {
            break;
        }
        let mut transaction = Transaction::new();
        let row = Values::new().set("writer", "w").set("number", number);
        transaction.insert("Entry", row);
        let deadline = Instant::now() + Duration::from_secs(30);
        match client.transact(transaction, deadline).await {
            Ok(_) => log.acknowledged.push(number),
            Err(TransactError::Unknown { .. }) => log.unknown.push(number),
            Err(error) => panic!("{error}"),
        }
        written.send_replace(log.acknowledged.len());
    }
    log
}

async fn entries(client: &Client) -> BTreeMap<i64, usize> {
    let mut select = Transaction::new();
    select.select("Entry", [], ["number"]);
    let outcome = client.transact(select, soon()).await.unwrap();
    let mut count = BTreeMap::new();
    for row in outcome.rows(0) {
        let number = row
            .get("number")
            .and_then(Datum::one)
            .and_then(ovsdb::Atom::as_integer);
        *count.entry(number.unwrap()).or_default() += 1;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_transaction_is_lost_and_none_is_applied_twice() {
    let mut servers = Server::cluster(3);
    let client = follow_leader(&servers);
    let replica = client.monitor(MonitorSpec::new().columns("Entry", ["number"]));
    replica.wait_synced(soon()).await.unwrap();

    let (stop, stopped) = watch::channel(false);
    let (written, mut progress) = watch::channel(0);
    let writer = tokio::spawn(write(client.clone(), stopped, written));
    for round in 0..2 {
        let enough = *progress.borrow_and_update() + 20;
        let more = progress.wait_for(|count| *count >= enough);
        drop(
            tokio::time::timeout_at(soon(), more)
                .await
                .unwrap()
                .unwrap(),
        );
        let old = leader(&client, None).await;
        let at = servers
            .iter()
            .position(|server| server.remote() == old)
            .unwrap();
        servers[at].kill();
        let new = leader(&client, Some(&old)).await;
        assert_ne!(new, old, "round {round}");
        servers[at].start();
    }
    let enough = *progress.borrow_and_update() + 20;
    drop(
        tokio::time::timeout_at(soon(), progress.wait_for(|n| *n >= enough))
            .await
            .unwrap(),
    );
    stop.send_replace(true);
    let log = writer.await.unwrap();

    let found = entries(&client).await;
    for number in &log.acknowledged {
        assert_eq!(found.get(number), Some(&1), "acknowledged {number}");
    }
    for number in &log.unknown {
        assert!(
            found.get(number).is_none_or(|count| *count == 1),
            "unknown {number}"
        );
    }
    let known = log.acknowledged.len() + log.unknown.len();
    assert!(
        found.len() <= known,
        "{} entries of {known} transactions",
        found.len()
    );
    println!(
        "{} acknowledged, {} unknown",
        log.acknowledged.len(),
        log.unknown.len()
    );

    // The replica went along, and every member tells the same in the end.
    replica.wait_synced(soon()).await.unwrap();
    let replicated = replica.read(|snapshot| snapshot.len("Entry"));
    assert_eq!(replicated, found.len());
    for server in &servers {
        let member = server.client();
        let copy = member.monitor(MonitorSpec::new().columns("Entry", ["number"]));
        let mut changed = copy.changed();
        let same = async {
            while copy.read(|snapshot| snapshot.len("Entry")) != found.len() {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout_at(soon(), same)
            .await
            .expect("a member never caught up");
    }
}

#[tokio::test]
async fn a_replica_goes_on_with_another_member() {
    let mut servers = Server::cluster(3);
    let client = follow_leader(&servers);
    let replica = client.monitor(MonitorSpec::new().columns("Entry", ["number"]));
    replica.wait_synced(soon()).await.unwrap();
    let insert = async |number: i64| {
        let mut transaction = Transaction::new();
        transaction.insert("Entry", Values::new().set("number", number));
        client.transact(transaction, soon()).await
    };
    insert(1).await.unwrap();
    let mut changes = replica.subscribe();
    assert_eq!(changes.recv().await, Some(Change::Reset));
    // All members must have been there to know the transaction from their own history.
    for server in &servers {
        let member = server.client();
        member
            .monitor(MonitorSpec::new())
            .wait_synced(soon())
            .await
            .unwrap();
    }
    let old = leader(&client, None).await;
    let at = servers
        .iter()
        .position(|server| server.remote() == old)
        .unwrap();
    servers[at].kill();
    leader(&client, Some(&old)).await;
    replica.wait_synced(soon()).await.unwrap();
    insert(2).await.unwrap();
    let Some(Change::Row(change)) = changes.recv().await else {
        panic!("not resumed")
    };
    assert_eq!(change.new.unwrap().get("number"), Some(&2.into()));
}
