//! Operations that are under way: who waits for their end, and what makes their own waiting pointless.
//!
//! An ADD may wait for minutes for a row or for ovn-controller. A DEL of the same attachment means that the runtime has
//! given it up (its plugin was killed, most likely); the end of this process means that its successor cannot begin.
//!
//! A reconcile loop leaves alone what an operation has, and looks again when that has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cni_bin::code;
use daemon::keyed::Locks;
use futures::stream::{FuturesUnordered, Stream};
use tokio_util::sync::CancellationToken;

use crate::attachment::AttachmentId;
use crate::error::Error;

/// All ADDs, by their attachment.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    adds: Mutex<HashMap<AttachmentId, Arc<CancellationToken>>>,
    end: CancellationToken,
}

/// One ADD, as long as it lives.
#[derive(Debug)]
pub(crate) struct Going<'a> {
    all: &'a UnderWay,
    id: AttachmentId,
    token: Arc<CancellationToken>,
}

impl UnderWay {
    /// Begins an ADD.
    pub(crate) fn begin(&self, id: &AttachmentId) -> Going<'_> {
        let mut adds = self.adds.lock().unwrap_or_else(PoisonError::into_inner);
        let token = adds
            .entry(id.clone())
            .or_insert_with(|| Arc::new(self.end.child_token()));
        Going {
            all: self,
            id: id.clone(),
            token: Arc::clone(token),
        }
    }

    /// Ends the waiting of all ADDs of an attachment that have begun.
    pub(crate) fn give_up(&self, id: &AttachmentId) {
        let mut adds = self.adds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = adds.remove(id) {
            token.cancel();
        }
    }

    /// Ends the waiting of all ADDs, now and later: the process ends.
    pub(crate) fn give_up_all(&self) {
        self.end.cancel();
    }
}

impl Going<'_> {
    /// Does what may be dropped at any moment, unless the ADD is given up meanwhile.
    pub(crate) async fn unless_given_up<T>(
        &self,
        wait: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        tokio::select! {
            biased;
            done = wait => done,
            () = self.token.cancelled() => Err(self.given_up()),
        }
    }

    fn given_up(&self) -> Error {
        let why = if self.all.end.is_cancelled() {
            "cni-node ends on this node"
        } else {
            "a DEL of the same attachment came"
        };
        Error::new(
            code::TRY_AGAIN_LATER,
            format!(
                "The ADD of {} was given up while it waited: {why}.",
                self.id
            ),
            "The runtime tries again by itself.",
        )
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        let mut adds = self.all.adds.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and ours: nobody else has it.
        let last = Arc::strong_count(&self.token) == 2;
        if last
            && adds
                .get(&self.id)
                .is_some_and(|token| Arc::ptr_eq(token, &self.token))
        {
            adds.remove(&self.id);
        }
    }
}

/// Says each time that an operation has ended which had one of the locks of `busy`. In between it waits in line: what is dropped
/// early holds nobody up.
pub(crate) fn ends(locks: &Locks, busy: &[String]) -> impl Stream<Item = ()> + Unpin {
    busy.iter()
        .map(|key| async { drop(locks.lock(key).await) })
        .collect::<FuturesUnordered<_>>()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::{FutureExt as _, StreamExt as _};

    use super::*;

    #[tokio::test]
    async fn the_end_of_each_operation_is_told_at_once_and_its_lock_is_free_then() {
        let locks = Locks::default();
        let busy = ["a", "b"].map(str::to_owned);
        let (a, b) = (locks.lock("a").await, locks.lock("b").await);
        let mut ends = ends(&locks, &busy);
        assert_eq!(ends.next().now_or_never(), None);
        drop(b);
        assert_eq!(ends.next().now_or_never(), Some(Some(())));
        assert!(locks.try_lock("b").is_some());
        assert_eq!(ends.next().now_or_never(), None);
        drop(ends);
        drop(a);
        assert!(locks.try_lock("a").is_some());
    }

    #[tokio::test]
    async fn waiting_ends_by_a_del_and_with_the_process_and_nothing_is_left() {
        let all = UnderWay::default();
        let id = |container: &str| AttachmentId {
            container: container.to_owned(),
            ifname: "eth0".to_owned(),
        };
        let (one, same, other) = (
            all.begin(&id("a")),
            all.begin(&id("a")),
            all.begin(&id("b")),
        );
        all.give_up(&id("a"));
        for add in [&one, &same] {
            let error = add.unless_given_up::<()>(pending()).await.unwrap_err();
            assert!(error.cause.contains("a DEL"), "{error}");
        }
        // What comes after the DEL is another ADD.
        let later = all.begin(&id("a"));
        assert_eq!(later.unless_given_up(async { Ok(1) }).await, Ok(1));
        all.give_up_all();
        for add in [&later, &other] {
            let error = add.unless_given_up::<()>(pending()).await.unwrap_err();
            assert!(error.cause.contains("cni-node ends"), "{error}");
        }
        drop((one, same, other, later));
        assert!(all.adds.lock().unwrap().is_empty());
    }
}
