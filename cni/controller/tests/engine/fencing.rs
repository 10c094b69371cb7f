//! Two controllers, one database; lost connections.

use crate::server::Server;
use crate::world::{Controller, View, settings};
use k8s_openapi::api::core::v1::Pod;
use std::time::Duration;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn who_was_replaced_writes_nothing_any_more() {
    let mut server = Server::northbound();
    let view = View::of(&server).await;
    let old = Controller::start(&server, "old");
    old.pod("one", "uid-1");
    let address = view.addressed("one").await;
    assert_eq!(view.global("outboard-owner").unwrap(), "old/1");

    // The second one gets its turn; the first one does not hear of it.
    let new = Controller::standby(server.client("OVN_Northbound"), None, "new", settings());
    new.pod("one", "uid-1");
    new.lead();
    view.until("the new one has the database", |view| {
        (view.global("outboard-owner")? == "new/2").then_some(())
    })
    .await;
    // The first one wants to give out an address, and to take one back.
    old.pod("two", "uid-2");
    old.remove::<Pod>("ns", "one");
    new.pod("three", "uid-3");
    assert_ne!(view.addressed("three").await, address);
    assert_eq!(view.address("one").unwrap(), address);
    assert_eq!(view.address("two"), None);
    assert_eq!(view.global("outboard-owner").unwrap(), "new/2");

    // Only when it is told again that it is its turn it takes the database back.
    old.pod("three", "uid-3");
    old.pod("one", "uid-1");
    let renewals = async {
        // Whether it has noticed by now that it was fenced off is its own matter: a turn from before that does not count.
        let mut renewal = tokio::time::interval(Duration::from_millis(100));
        loop {
            renewal.tick().await;
            old.turn.send_replace(Some(Instant::now()));
        }
    };
    let back = view.until("the old one has it back", |view| {
        (view.global("outboard-owner")? == "old/3").then_some(())
    });
    tokio::select! {
        () = back => {}
        () = renewals => unreachable!("they do not end"),
    }
    let two = view.addressed("two").await;
    assert!(two != address && Some(two) != view.address("three"));
    assert_eq!(view.address("one").unwrap(), address);
    server.kill();
    old.stop().await;
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_addresses_and_does_not_give_out_what_was_just_freed() {
    let server = Server::northbound();
    let view = View::of(&server).await;
    let first = Controller::start(&server, "a");
    for name in ["one", "two", "three"] {
        first.pod(name, name);
    }
    let mut before = Vec::new();
    for name in ["one", "two", "three"] {
        before.push(view.addressed(name).await);
    }
    first.remove::<Pod>("ns", "three");
    view.until("three is gone", |view| {
        view.address("three").is_none().then_some(())
    })
    .await;
    first.stop().await;

    let second = Controller::standby(server.client("OVN_Northbound"), None, "b", settings());
    for name in ["one", "two", "four"] {
        second.pod(name, name);
    }
    second.lead();
    let four = view.addressed("four").await;
    assert!(
        !before.contains(&four),
        "{four} was just freed, or is in use: {before:?}"
    );
    assert_eq!(view.address("one").as_ref(), Some(&before[0]));
    assert_eq!(view.address("two").as_ref(), Some(&before[1]));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happened_while_nobody_wrote_is_caught_up() {
    let server = Server::northbound();
    let view = View::of(&server).await;
    let first = Controller::start(&server, "a");
    first.pod("gone", "uid-1");
    first.pod("recreated", "uid-2");
    view.addressed("gone").await;
    view.addressed("recreated").await;
    first.stop().await;

    let second = Controller::standby(server.client("OVN_Northbound"), None, "b", settings());
    second.pod("recreated", "uid-3");
    second.lead();
    view.until("only the new pod has a port", |view| {
        let ports = view.ports();
        let new = ports.get("ns/recreated/default")?.pod()?.uid == "uid-3";
        (new && ports.len() == 1).then_some(())
    })
    .await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_server_that_is_killed_costs_time_only() {
    let mut server = Server::northbound();
    let view = View::of(&server).await;
    let controller = Controller::start(&server, "a");
    for n in 0..50 {
        controller.pod(&format!("p{n}"), &format!("uid-{n}"));
        if n % 10 == 5 {
            view.addressed(&format!("p{}", n - 3)).await;
            server.kill();
            controller.pod(&format!("q{n}"), &format!("uid-q{n}"));
            server.restart();
        }
    }
    view.until("all have ports", |view| {
        (view.ports().len() == 55).then_some(())
    })
    .await;
    let addresses: std::collections::BTreeSet<String> = view
        .ports()
        .values()
        .map(|facts| facts.ips[0].to_string())
        .collect();
    assert_eq!(addresses.len(), 55);
    controller.stop().await;
}
