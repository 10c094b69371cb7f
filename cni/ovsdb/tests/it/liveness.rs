//! Echo in both directions.

use crate::proxy::{Proxy, Verdict};
use crate::replica::{Thing, insert};
use crate::server::{Server, client, config, soon};
use ovsdb::{Client, Datum, MonitorSpec, Transaction, Values};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::unbounded_channel;

/// Rows that make a reply of some 15 MB.
async fn fill(client: &Client, rows: usize) {
    for batch in 0..rows / 2000 {
        let mut transaction = Transaction::new();
        for n in 0..2000 {
            let map = (0..10).map(|k| (format!("key-{k}"), format!("a value of some length {n}")));
            let row = Values::new()
                .set("name", format!("{batch}-{n}"))
                .set("names", "n")
                .set("map", Datum::map(map));
            transaction.insert("Thing", row);
        }
        client.transact(transaction, soon()).await.unwrap();
    }
}

#[tokio::test]
async fn echo_is_answered_before_a_large_reply_is_decoded() {
    let server = Server::standalone();
    fill(&server.client(), 30_000).await;
    let (sender, mut answered) = unbounded_channel();
    let proxy = Proxy::start(
        server.socket(),
        move |message| {
            if message["id"] == "are you there" {
                sender.send(message["result"].clone()).unwrap();
                return Verdict::Swallow;
            }
            Verdict::Forward
        },
        |message| match message.is_null() {
            // The large reply: the echo is right behind it.
            true => Verdict::Then(json!({"id": "are you there", "method": "echo", "params": [7]})),
            false => Verdict::Forward,
        },
    );
    let client = client(vec![proxy.remote()]);
    let replica = client.monitor(MonitorSpec::new().table::<Thing>());
    let mut synced = replica.watch_synced();
    let first = tokio::select! {
        biased;
        answer = answered.recv() => answer.unwrap(),
        _ = synced.wait_for(|synced| *synced) => panic!("the reply was decoded before the echo"),
    };
    assert_eq!(first, json!([7]));
    replica.wait_synced(soon()).await.unwrap();
    assert_eq!(replica.read(|s| s.len("Thing")), 30_000);
}

#[tokio::test]
async fn a_silent_server_is_probed_and_then_left() {
    let server = Server::standalone();
    let silent = Arc::new(AtomicBool::new(false));
    let (sender, mut probes) = unbounded_channel();
    let mute = silent.clone();
    let proxy = Proxy::start(
        server.socket(),
        move |message| {
            if message["method"] == "echo" {
                let _ = sender.send(());
            }
            Verdict::Forward
        },
        move |_| {
            if mute.load(Ordering::Relaxed) {
                Verdict::Swallow
            } else {
                Verdict::Forward
            }
        },
    );
    let mut config = config(vec![proxy.remote()]);
    config.probe_interval = Duration::from_secs(1);
    config.connect_timeout = Duration::from_secs(1);
    let client = Client::start(config);
    insert(&client, "a", Values::new()).await;
    let since = client.status().borrow().since;
    for _ in 0..2 {
        probes.recv().await.unwrap();
    }
    // The answers kept the connection.
    assert_eq!(client.status().borrow().since, since);
    silent.store(true, Ordering::Relaxed);
    let mut status = client.status();
    let left = status.wait_for(|status| !status.connected);
    let left = tokio::time::timeout_at(soon(), left)
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert!(left.last_error.unwrap().contains("inactivity probe"));
    silent.store(false, Ordering::Relaxed);
    insert(&client, "b", Values::new()).await;
}
