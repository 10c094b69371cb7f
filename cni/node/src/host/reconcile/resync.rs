//! Full sets again, for as long as the DPU has no port for something: cni-controller or OVN is not that far yet, most likely.

use std::sync::Arc;
use std::time::Duration;

use channel::proto::synced_attachment::Outcome;
use channel::proto::{Reason, SyncedAttachment};
use cni_bin::code;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::HostNode;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(10);

/// Runs until `stop`.
pub(crate) async fn resync(node: Arc<HostNode>, stop: CancellationToken) {
    let mut synced = node.link.synced();
    let mut pause = FIRST;
    while !stop.is_cancelled() {
        let answer = synced.borrow_and_update().clone();
        let failed = answer.iter().filter(|one| may_come(one)).count();
        node.host_metrics
            .unplugged
            .set(i64::try_from(failed).unwrap_or(i64::MAX));
        if !answer.is_empty() {
            info!(
                attachments = answer.len(),
                failed, "the DPU has answered a full set"
            );
        }
        for one in answer.iter() {
            explain(one);
        }
        let changed = synced.changed();
        if failed == 0 {
            pause = FIRST;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = changed => if changed.is_err() { return },
            }
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changed => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {
                pause = (pause * 2).min(LONGEST);
                node.link.sync_now();
                // Its answer, or that of a session to come.
                tokio::select! {
                    () = stop.cancelled() => return,
                    changed = synced.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}

/// Whether the same may be answered otherwise later.
fn may_come(one: &SyncedAttachment) -> bool {
    matches!(&one.outcome, Some(Outcome::Failure(failure)) if failure.code == code::TRY_AGAIN_LATER && !is_old(failure.reason))
}

/// Of two sandboxes of one pod the younger has the port: the older one's DEL is on its way.
fn is_old(reason: i32) -> bool {
    reason == i32::from(Reason::OldAttempt)
}

fn explain(one: &SyncedAttachment) {
    if let (Some(key), Some(Outcome::Failure(failure))) = (&one.key, &one.outcome)
        && !is_old(failure.reason)
    {
        warn!(
            sandbox = key.sandbox,
            ifname = key.ifname,
            code = failure.code,
            "the DPU does not plug it: {} {}",
            failure.cause,
            failure.remedy
        );
    }
}
