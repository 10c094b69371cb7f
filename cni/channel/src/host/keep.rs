//! A session with whichever DPU is the host's, again and again.

use std::sync::Arc;
use std::time::Duration;

use mtls::Files;
use mtls::client::Connector;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{LinkState, Pairing, Shared, dial, session};

/// The first wait after a loss.
const SHORTEST: Duration = Duration::from_millis(50);
/// The DPU is back soon, or its host has nothing else to do.
const LONGEST: Duration = Duration::from_secs(1);

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
        let why = tokio::select! {
            ended = one(&shared, &target, &mut connector) => {
                if ended.was_up {
                    tries = 0;
                }
                ended.why
            }
            () = changed(&mut pairing, Some(&target)) => {
                tracing::info!(dpu = target.dpu, "another DPU, or none, serves this host now");
                tries = 0;
                continue;
            }
            () = stop.cancelled() => return,
        };
        shared.down(&target, why, true);
        // What the try took is part of the wait: a wire that swallows everything is tried as often as one that refuses.
        let wait = wait(tries).saturating_sub(began.elapsed()).max(wait(0));
        tries = tries.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = changed(&mut pairing, Some(&target)) => tries = 0,
            () = stop.cancelled() => return,
        }
    }
}

/// How one session ended.
pub(crate) struct Ended {
    pub(crate) why: String,
    pub(crate) was_up: bool,
}

async fn one(shared: &Arc<Shared>, target: &Pairing, connector: &mut Connector) -> Ended {
    match Box::pin(dial::dial(shared, target, connector)).await {
        Ok(opened) => Box::pin(session::live(shared, opened)).await,
        Err(why) => Ended { why, was_up: false },
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

/// Grows to a second; by chance, so that hosts whose switch has come back do not all come at once.
fn wait(tries: u32) -> Duration {
    let longest = SHORTEST.saturating_mul(1 << tries.min(5)).min(LONGEST);
    longest.mul_f64(rand::random_range(0.5..1.0))
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
    fn waits_grow_to_a_second_and_are_never_the_same() {
        assert!(wait(0) <= SHORTEST && wait(0) >= SHORTEST / 2);
        for tries in [5, 6, 31, 32, u32::MAX] {
            assert!(wait(tries) <= LONGEST && wait(tries) >= LONGEST / 2);
        }
    }
}
