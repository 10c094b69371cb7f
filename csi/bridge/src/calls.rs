//! One call at a time for each object; equal calls get one answer, and a call goes on though its caller has gone.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use crate::card::{Error, Result};

/// How long a call waits for another one on the same object.
const PATIENCE: Duration = Duration::from_secs(2);

type Answer = Shared<BoxFuture<'static, Result<Vec<u8>>>>;

struct Running {
    method: &'static str,
    request: Vec<u8>,
    answer: Answer,
}

/// Calls under way by object.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<HashMap<String, Running>>>);

enum Turn {
    Join(Answer),
    Wait(Answer, &'static str),
}

impl Calls {
    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers what `work` answers, or an equal call that is under way. A different one on `object` is waited for.
    pub(crate) async fn run<A, W>(
        &self,
        object: &str,
        method: &'static str,
        request: Vec<u8>,
        deadline: Instant,
        work: W,
    ) -> Result<A>
    where
        A: prost::Message + Default + 'static,
        W: Future<Output = Result<A>> + Send + 'static,
    {
        let mut work = Some(work);
        let patience = deadline.min(Instant::now() + PATIENCE);
        loop {
            match self.turn(object, method, &request, &mut work) {
                Turn::Join(answer) => {
                    let answer =
                        tokio::time::timeout_at(deadline, answer)
                            .await
                            .map_err(|_| {
                                Error::Late(format!(
                                    "{object}: {method} is not done in time; it goes on: call again"
                                ))
                            })??;
                    return A::decode(&*answer).map_err(|why| Error::Internal(why.to_string()));
                }
                Turn::Wait(other, name) => {
                    // Whatever it answers, it is over.
                    let waited = tokio::time::timeout_at(patience, other).await;
                    waited.map(drop).map_err(|_| {
                        Error::Busy(format!(
                            "{object}: {name} is under way on it; call again when that is done"
                        ))
                    })?;
                }
            }
        }
    }

    fn turn<A, W>(
        &self,
        object: &str,
        method: &'static str,
        request: &[u8],
        work: &mut Option<W>,
    ) -> Turn
    where
        A: prost::Message + Default + 'static,
        W: Future<Output = Result<A>> + Send + 'static,
    {
        let mut running = self.running();
        if let Some(other) = running.get(object) {
            let answer = other.answer.clone();
            return if other.method == method && other.request == request {
                Turn::Join(answer)
            } else {
                Turn::Wait(answer, other.method)
            };
        }
        let work = work
            .take()
            .expect("a call that has begun is joined, not begun again");
        let (calls, key) = (self.clone(), object.to_owned());
        let task = tokio::spawn(work);
        let ended = tokio::spawn(async move {
            let answer = task
                .await
                .unwrap_or_else(|why| Err(Error::Internal(why.to_string())));
            calls.running().remove(&key);
            answer.map(|answer| answer.encode_to_vec())
        });
        let answer = async move {
            ended
                .await
                .unwrap_or_else(|why| Err(Error::Internal(why.to_string())))
        };
        let answer = answer.boxed().shared();
        let entry = Running {
            method,
            request: request.to_vec(),
            answer: answer.clone(),
        };
        running.insert(object.to_owned(), entry);
        Turn::Join(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn equal_calls_are_one_and_others_wait() {
        let calls = Calls::default();
        let runs = Arc::new(AtomicU32::new(0));
        let soon = Instant::now() + Duration::from_secs(5);
        let call = |request: u8| {
            let runs = runs.clone();
            calls.run::<String, _>("x", "Create", vec![request], soon, async move {
                tokio::time::sleep(Duration::from_millis(30)).await;
                Ok(runs.fetch_add(1, Ordering::SeqCst).to_string())
            })
        };
        let (one, two, other) = tokio::join!(call(1), call(1), call(2));
        assert_eq!(one.unwrap(), two.unwrap());
        assert_eq!(other.unwrap(), "1");
        assert!(calls.running().is_empty());
    }

    #[tokio::test]
    async fn a_call_outlives_its_caller_and_is_joined() {
        let calls = Calls::default();
        let call = |patience: u64| {
            let deadline = Instant::now() + Duration::from_millis(patience);
            calls.run::<String, _>("x", "Create", vec![], deadline, async {
                tokio::time::sleep(Duration::from_millis(60)).await;
                Ok("done".to_owned())
            })
        };
        assert!(matches!(call(5).await, Err(Error::Late(_))));
        assert_eq!(call(5_000).await.unwrap(), "done");
    }
}
