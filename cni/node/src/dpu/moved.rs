//! Representors that came back under another name: the card names them, and the record follows.
//!
//! Only the record is changed here; a round of the reconcile loop sees that its port has another name, and plugs it anew.

use std::sync::Arc;

use tracing::info;

use super::plugging;
use super::ports::HostPorts;
use super::representor::Plug;
use crate::attachment::{End, Record};
use crate::netlink::{Event, Events};
use crate::reconcile;
use crate::rounds::Pace;

/// Looks whenever links change, and every half minute.
pub(super) async fn run(ports: Arc<HostPorts>, mut pace: Pace) {
    pace.wake_on_kernel(Events::links(), |event| {
        !matches!(event, Event::Link { gone: true, .. })
    });
    loop {
        let started = tokio::time::Instant::now();
        let problems = round(&ports).await;
        pace.finish(started, &problems);
        if pace.next().await.is_none() {
            return;
        }
    }
}

async fn round(ports: &HostPorts) -> Vec<String> {
    match follow(ports).await {
        Ok(false) => Vec::new(),
        Ok(true) => reconcile::round(&ports.node).await.problems,
        Err(problem) => vec![problem],
    }
}

/// Whether a record follows another name now.
async fn follow(ports: &HostPorts) -> Result<bool, String> {
    let mut followed = false;
    let unseen = |why: &dyn std::fmt::Display| format!("the card cannot be looked at: {why}");
    let records = ports.node.store.all();
    let there = plugging::representors(&ports.node, &records).await;
    let there = there.map_err(|error| error.to_string())?;
    let pairing = ports.pairing.borrow().clone();
    let controller = pairing.and_then(|pairing| pairing.controller);
    // Only what misses its link is asked for: a look at the whole card costs something.
    let missing = records
        .into_iter()
        .filter_map(|record| Some((record.far()?.clone(), record)))
        .filter(|(far, _)| far.plug == Plug::System && !there.contains_key(&far.link));
    for (far, record) in missing {
        let provider = Arc::clone(&ports.representors);
        let function = far.function;
        let found = ports
            .node
            .host
            .run(move || provider.find(function, controller));
        let representor = match found.await {
            Ok(Ok(Some(representor))) => representor,
            Ok(Ok(None)) => continue,
            Ok(Err(why)) => return Err(unseen(&why)),
            Err(why) => return Err(unseen(&why)),
        };
        if representor.link == far.link && representor.plug == far.plug {
            continue;
        }
        let _alone = ports.node.locks.lock(&record.id.host_link()).await;
        if ports.node.store.get(&record.id).as_ref() != Some(&record) {
            continue;
        }
        info!(pod = %record.pod, from = far.link, to = representor.link, "a representor has another name");
        let mut moved = far;
        moved.link = representor.link;
        moved.plug = representor.plug;
        let record = Record {
            end: End::Representor(moved),
            ..record
        };
        let replaced = ports.node.store.replace(record).await;
        replaced.map_err(|error| error.to_string())?;
        followed = true;
    }
    Ok(followed)
}
