//! A session with whichever DPU is the host's, again and again.

use std::sync::Arc;
use std::time::Duration;

use mtls::Files;
use mtls::client::Connector;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dial::Failed;
use super::{LinkState, Pairing, Shared, dial, session};
use crate::heartbeat::DEAD;

/// The first wait after a session that was none.
const SHORTEST: Duration = Duration::from_millis(50);
/// While nobody answers: a SYN costs nothing, and the DPU is to be found as soon as it is back.
const KNOCKING: Duration = Duration::from_millis(250);
/// While somebody answers and there is no session all the same: that will take its time.
const LONGEST: Duration = Duration::from_secs(1);
/// A session that lasted so long was one: its end is no reason to hold back.
const LASTED: Duration = DEAD;

/// Returns when it is told to stop.
pub(crate) async fn keep(
    shared: Arc<Shared>,
    mut pairing: watch::Receiver<Option<Pairing>>,
    stop: CancellationToken,
) {
    let mut connector = Connector::new(Files::in_directory(&shared.config.identity));
    let mut tries = 0;
    loop {
        let target = pairing.borrow_and_update().clone();
        let Some(target) = target else {
            shared.state.send_replace(LinkState::Unpaired);
            tokio::select! {
                () = changed(&mut pairing, None) => continue,
                () = stop.cancelled() => return,
            }
        };
        shared.down(&target, "it was not reached yet".to_owned(), tries == 0);
        let began = Instant::now();
        let ended = tokio::select! {
            ended = one(&shared, &target, &mut connector) => ended,
            () = changed(&mut pairing, Some(&target)) => {
                tracing::info!(dpu = target.dpu, "another DPU, or none, serves this host now");
                tries = 0;
                continue;
            }
            () = stop.cancelled() => return,
        };
        shared.down(&target, ended.why, true);
        if matches!(ended.reached, Reached::Session) {
            tries = 0;
        }
        let wait = wait(&ended.reached, tries, began.elapsed());
        tries = tries.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed(&mut pairing, Some(&target)) => tries = 0,
            () = stop.cancelled() => return,
        }
    }
}

/// How one session ended, or the try of one.
pub(crate) struct Ended {
    pub(crate) why: String,
    pub(crate) reached: Reached,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// Nobody answered at the address.
    Nobody,
    /// Somebody did, with whom there was no session.
    Somebody,
    /// The link was up.
    Session,
}

async fn one(shared: &Arc<Shared>, target: &Pairing, connector: &mut Connector) -> Ended {
    match Box::pin(dial::dial(shared, target, connector)).await {
        Ok(opened) => Box::pin(session::live(shared, opened)).await,
        Err(Failed { why, answered }) => Ended {
            why,
            reached: match answered {
                true => Reached::Somebody,
                false => Reached::Nobody,
            },
        },
    }
}

/// Returns when another DPU is the host's, or the same one elsewhere.
async fn changed(pairing: &mut watch::Receiver<Option<Pairing>>, from: Option<&Pairing>) {
    loop {
        if pairing.changed().await.is_err() {
            // Nobody will ever say otherwise.
            return std::future::pending().await;
        }
        if pairing.borrow_and_update().as_ref() != from {
            return;
        }
    }
}

/// Until the next try, after one that took so long. Grows; by chance, so that hosts whose switch has come back do not all come at once.
fn wait(reached: &Reached, tries: u32, took: Duration) -> Duration {
    let longest = match reached {
        Reached::Session if took >= LASTED => return Duration::ZERO,
        Reached::Nobody => KNOCKING,
        Reached::Somebody | Reached::Session => LONGEST,
    };
    let chance = |longest: Duration| longest.mul_f64(rand::random_range(0.5..1.0));
    let grown = chance(SHORTEST.saturating_mul(1 << tries.min(5)).min(longest));
    // A wire that swallows everything is tried as often as one that refuses.
    grown.saturating_sub(took).max(chance(SHORTEST))
}

impl Shared {
    /// There is no session. What was known of the cause stays, unless there is something newer.
    fn down(&self, target: &Pairing, why: String, newer: bool) {
        self.state.send_if_modified(|state| {
            if let LinkState::Connecting { dpu, why: known } = state
                && *dpu == target.dpu
                && (!newer || *known == why)
            {
                return false;
            }
            tracing::warn!(
                host = self.config.node,
                dpu = target.dpu,
                "no session: {why}"
            );
            *state = LinkState::Connecting {
                dpu: target.dpu.clone(),
                why,
            };
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_as_far_as_the_cause_allows_and_are_never_the_same() {
        let now = Duration::ZERO;
        let bounds = |reached, tries, longest: Duration| {
            let wait = wait(&reached, tries, now);
            assert!(
                wait <= longest && wait >= longest / 2,
                "{reached:?} {tries} {wait:?}"
            );
        };
        for reached in [Reached::Nobody, Reached::Somebody, Reached::Session] {
            bounds(reached, 0, SHORTEST);
        }
        for tries in [5, 6, 31, 32, u32::MAX] {
            bounds(Reached::Nobody, tries, KNOCKING);
            bounds(Reached::Somebody, tries, LONGEST);
        }
        // The try was the wait.
        assert!(wait(&Reached::Nobody, 9, KNOCKING) <= SHORTEST);
        // One that was a session is missed at once; one that ended at once is not.
        assert_eq!(wait(&Reached::Session, 0, LASTED), Duration::ZERO);
        assert!(wait(&Reached::Session, 0, LASTED / 2) >= SHORTEST / 2);
    }
}
