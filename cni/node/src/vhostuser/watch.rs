//! Keeps the check `vhostuser` of /readyz and the metrics of this kind.
//!
//! A node that cannot plug vhost-user interfaces is no worse for all others: nothing is wrong until it has one.

use std::sync::Arc;

use tokio::time::Instant;

use crate::node::Node;
use crate::rounds::Pace;

/// Runs until the pace says stop.
pub(crate) async fn run(node: Arc<Node>, mut pace: Pace) {
    pace.wake_on(node.store.changed());
    pace.wake_on(node.vswitch.client().status());
    loop {
        let started = Instant::now();
        let problems = problems(&node);
        pace.finish(started, &problems);
        if pace.next().await.is_none() {
            return;
        }
    }
}

/// What is wrong with the interfaces that are there.
pub(crate) fn problems(node: &Node) -> Vec<String> {
    let vhost = &node.vhost;
    let missing = vhost.missing(node);
    let faulty = vhost.faulty(node);
    let records = node.store.all();
    let ours = records.iter().filter(|record| record.socket().is_some());
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let ours = ours.count();
    let possible = missing.is_empty() && node.vswitch.trouble().is_none();
    vhost.metrics.possible.set(i64::from(possible));
    let taps = records.iter().filter(|record| record.tap().is_some());
    vhost.metrics.taps.set(count(taps.count()));
    vhost.metrics.attachments.set(count(ours));
    vhost.metrics.faulty.set(count(faulty.len()));
    if ours == 0 {
        return Vec::new();
    }
    let missing = missing.into_iter().map(|lack| lack.what);
    missing.chain(faulty).collect()
}
