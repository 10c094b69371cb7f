//! Calls in the session that is there; in the next one, if it ends meanwhile.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tonic::{Request, Status};
use tracing::Instrument;

use super::session::Session;
use super::{Attaching, Link};
use crate::code::TRY_AGAIN_LATER;
use crate::heartbeat::DEAD;
use crate::proto::{Attachment, AttachmentKey, CheckRequest, DetachRequest, Reason, Wiring};
use crate::{Failure, shape};

impl Link {
    /// Has the DPU plug the function into the pod's logical port. Waits for the link to be up, and lives on in the next session if the one
    /// that is there ends, all until the deadline; what fails by then is code 11 and says why. Dropped before
    /// [`Attaching::installed`] has answered: the DPU undoes it.
    ///
    /// # Errors
    /// What the DPU says, unchanged; or code 11, because it can't be asked.
    pub async fn attach(
        &self,
        attachment: Attachment,
        deadline: Instant,
    ) -> Result<Attaching, Failure> {
        Attaching::begin(self.clone(), attachment, deadline).await
    }

    /// Has the DPU unplug it. Not there any more, or held by a later attempt: that is fine. Waits as [`attach`](Self::attach) does.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub async fn detach(
        &self,
        key: AttachmentKey,
        attempt: u64,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let call = |session: Arc<Session>, mut client| {
            let request = DetachRequest {
                session: session.id.clone(),
                key: Some(key.clone()),
                attempt,
            };
            async move {
                let client: &mut Client = &mut client;
                client.detach(timed(request, deadline)).await
            }
        };
        shape::key(&key)?;
        let answered = self.counted("detach", &key, deadline, call).await;
        answered.map(|_| ())
    }

    /// Asks the DPU whether it is still as attach left it, and how that is. Waits as [`attach`](Self::attach) does.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub async fn check(
        &self,
        key: AttachmentKey,
        attempt: u64,
        deadline: Instant,
    ) -> Result<Wiring, Failure> {
        let call = |session: Arc<Session>, mut client| {
            let request = CheckRequest {
                session: session.id.clone(),
                key: Some(key.clone()),
                attempt,
            };
            async move {
                let client: &mut Client = &mut client;
                client.check(timed(request, deadline)).await
            }
        };
        shape::key(&key)?;
        let answered = self.counted("check", &key, deadline, call).await?;
        let wiring = answered.into_inner().wiring.unwrap_or_default();
        shape::wiring(&wiring).map(|()| wiring)
    }

    /// Makes a call that is one answer.
    async fn counted<T, Answer>(
        &self,
        verb: &'static str,
        key: &AttachmentKey,
        deadline: Instant,
        call: impl Fn(Arc<Session>, Client) -> Answer,
    ) -> Result<T, Failure>
    where
        Answer: Future<Output = Result<T, Status>>,
    {
        let began = Instant::now();
        let span = tracing::info_span!(
            "channel",
            verb,
            host = self.0.config.node,
            dpu = tracing::field::Empty,
            session = tracing::field::Empty,
            sandbox = key.sandbox,
            ifname = key.ifname
        );
        let asked = async {
            loop {
                let session = self.session(verb, deadline).await?;
                let client = session.client.clone();
                let answer = tokio::select! {
                    answer = call(Arc::clone(&session), client) => answer,
                    () = session.ended.cancelled() => continue,
                    () = tokio::time::sleep_until(deadline) => return Err(self.late(verb)),
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(status) => self.verdict(verb, &session, &status, deadline).await?,
                }
            }
        };
        let answer = asked.instrument(span).await;
        self.count(verb, answer.as_ref().err(), began);
        answer
    }

    /// Counts a call that has ended.
    pub(crate) fn count(&self, verb: &'static str, failure: Option<&Failure>, began: Instant) {
        let outcome = failure.map_or("ok", Failure::reason_name);
        let metrics = &self.0.config.metrics;
        metrics.call(verb, outcome, began.elapsed());
    }

    /// The session, once the link is up and no full set is under way.
    pub(crate) async fn session(
        &self,
        verb: &str,
        deadline: Instant,
    ) -> Result<Arc<Session>, Failure> {
        let mut sessions = self.0.session.subscribe();
        let found = async {
            loop {
                let Some(session) = next(&mut sessions).await else {
                    // The sender lives in `self`.
                    return std::future::pending().await;
                };
                if session.settled().await {
                    let span = tracing::Span::current();
                    span.record("session", &session.id);
                    span.record("dpu", &session.dpu);
                    return session;
                }
                // Its successor comes through the watch, which still shows this one for a moment.
                let _ = sessions.changed().await;
            }
        };
        let found = tokio::time::timeout_at(deadline, found).await;
        found.map_err(|_| self.late(verb))
    }

    /// What a call's end means: a failure that is the answer; or, if the session has ended, nothing: it is asked again in the next one.
    pub(crate) async fn verdict(
        &self,
        verb: &str,
        session: &Session,
        status: &Status,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let failure = Failure::of(status);
        if let Some(failure) = failure
            && failure.reason != Reason::NoSession
        {
            return Err(failure);
        }
        // By then a dead DPU has been found out.
        let found_out = deadline.min(Instant::now() + DEAD + DEAD / 10);
        if tokio::time::timeout_at(found_out, session.ended.cancelled())
            .await
            .is_ok()
        {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(self.late(verb));
        }
        Err(Failure::new(
            Reason::Unspecified,
            TRY_AGAIN_LATER,
            format!(
                "DPU {} did not answer {verb}: {} ({:?})",
                session.dpu,
                status.message(),
                status.code()
            ),
            "kubelet asks again; look at the log of the DPU's cni-node",
        ))
    }

    /// The deadline has passed.
    pub(crate) fn late(&self, verb: &str) -> Failure {
        let state = self.0.state.borrow().clone();
        let cause = match state.why_not() {
            Some(why) => why,
            None => format!("the DPU did not answer {verb} in time"),
        };
        Failure::new(
            Reason::Unspecified,
            TRY_AGAIN_LATER,
            cause,
            "kubelet asks again; see the conditions of the Dpu object that names this host",
        )
    }
}

async fn next(sessions: &mut watch::Receiver<Option<Arc<Session>>>) -> Option<Arc<Session>> {
    let found = sessions.wait_for(Option::is_some).await;
    found.ok().and_then(|session| session.clone())
}

pub(crate) type Client = crate::proto::channel_client::ChannelClient<tonic::transport::Channel>;

/// With the header `grpc-timeout`.
pub(crate) fn timed<T>(message: T, deadline: Instant) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
}
