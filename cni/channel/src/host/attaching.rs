//! An Attach that is under way.

use std::sync::Arc;

use tokio::time::Instant;
use tonic::{Status, Streaming};
use tracing::{Instrument, Span};

use super::Link;
use super::call::timed;
use super::session::Session;
use crate::code::TRY_AGAIN_LATER;
use crate::proto::attach_progress::Progress;
use crate::proto::attachment::Subject;
use crate::proto::{AttachProgress, AttachRequest, Attachment, Reason, Wiring};
use crate::{Failure, shape};

/// An Attach that is under way. Dropped before [`installed`](Self::installed) has answered, the call ends, and the DPU undoes it.
pub struct Attaching {
    link: Link,
    attachment: Attachment,
    deadline: Instant,
    /// Of the session that is there, as far as the call has come in it.
    call: Option<(Arc<Session>, Streaming<AttachProgress>)>,
    wiring: Option<Wiring>,
    span: Span,
    began: Instant,
    /// How it ended.
    end: Option<Option<Failure>>,
}

const VERB: &str = "attach";

impl Attaching {
    pub(crate) async fn begin(
        link: Link,
        attachment: Attachment,
        deadline: Instant,
    ) -> Result<Self, Failure> {
        shape::attachment(&attachment)?;
        let key = attachment.key.clone().unwrap_or_default();
        let uid = match &attachment.subject {
            Some(Subject::Pod(pod)) => &*pod.uid,
            _ => "",
        };
        let span = tracing::info_span!(
            "channel",
            verb = VERB,
            host = link.0.config.node,
            dpu = tracing::field::Empty,
            session = tracing::field::Empty,
            sandbox = key.sandbox,
            ifname = key.ifname,
            uid
        );
        let mut attaching = Self {
            link,
            attachment,
            deadline,
            call: None,
            wiring: None,
            span: span.clone(),
            began: Instant::now(),
            end: None,
        };
        let called = attaching.call().instrument(span).await;
        attaching.noted(called)?;
        Ok(attaching)
    }

    /// What the interface is to look like, once the DPU knows. May be asked again.
    ///
    /// # Errors
    /// As [`Link::attach`].
    pub async fn wiring(&mut self) -> Result<Wiring, Failure> {
        if let Some(wiring) = &self.wiring {
            return Ok(wiring.clone());
        }
        let span = self.span.clone();
        let progress = self.progress().instrument(span).await;
        let wiring = match progress {
            Ok(Progress::Wiring(wiring)) => shape::wiring(&wiring).map(|()| wiring),
            Ok(Progress::Installed(_)) => Err(changed("the port is installed but has no wiring")),
            Err(failure) => Err(failure),
        };
        let wiring = self.noted(wiring)?;
        self.wiring = Some(wiring.clone());
        Ok(wiring)
    }

    /// Returns once OVN's flows are in place.
    ///
    /// # Errors
    /// As [`Link::attach`].
    pub async fn installed(mut self) -> Result<(), Failure> {
        let span = self.span.clone();
        let installed = self.until_installed().instrument(span).await;
        self.noted(installed)?;
        self.end = Some(None);
        Ok(())
    }

    async fn until_installed(&mut self) -> Result<(), Failure> {
        loop {
            match self.progress().await? {
                Progress::Installed(_) => return Ok(()),
                // In the next session the DPU says it again. What was set up from the first one must still be right.
                Progress::Wiring(wiring) => match &self.wiring {
                    Some(known) if *known != wiring => {
                        return Err(changed("the pod's logical port has changed meanwhile"));
                    }
                    _ => self.wiring = Some(wiring),
                },
            }
        }
    }

    /// The next message of the call, which begins anew in another session if its own has ended.
    async fn progress(&mut self) -> Result<Progress, Failure> {
        loop {
            let Some((session, stream)) = &mut self.call else {
                self.call().await?;
                continue;
            };
            let message = tokio::select! {
                biased;
                message = stream.message() => message,
                () = session.ended.cancelled() => {
                    self.call = None;
                    continue;
                }
                () = tokio::time::sleep_until(self.deadline) => return Err(self.link.late(VERB)),
            };
            match message {
                Ok(Some(AttachProgress {
                    progress: Some(progress),
                })) => return Ok(progress),
                // A message of a newer release, which is not for us.
                Ok(Some(AttachProgress { progress: None })) => {}
                other => {
                    let ended = || Status::unavailable("the call ended without an answer");
                    let status = other.err().unwrap_or_else(ended);
                    let session = Arc::clone(session);
                    let link = &self.link;
                    link.verdict(VERB, &session, &status, self.deadline).await?;
                    self.call = None;
                }
            }
        }
    }

    async fn call(&mut self) -> Result<(), Failure> {
        loop {
            let session = self.link.session(VERB, self.deadline).await?;
            let mut client = session.client.clone();
            let request = AttachRequest {
                session: session.id.clone(),
                attachment: Some(self.attachment.clone()),
            };
            let answer = tokio::select! {
                answer = client.attach(timed(request, self.deadline)) => answer,
                () = session.ended.cancelled() => continue,
                () = tokio::time::sleep_until(self.deadline) => return Err(self.link.late(VERB)),
            };
            match answer {
                Ok(stream) => {
                    self.call = Some((session, stream.into_inner()));
                    return Ok(());
                }
                Err(status) => {
                    let link = &self.link;
                    link.verdict(VERB, &session, &status, self.deadline).await?;
                }
            }
        }
    }

    fn noted<T>(&mut self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &result {
            self.end = Some(Some(failure.clone()));
        }
        result
    }
}

impl Drop for Attaching {
    fn drop(&mut self) {
        match &self.end {
            Some(end) => self.link.count(VERB, end.as_ref(), self.began),
            None => {
                let metrics = &self.link.0.config.metrics;
                metrics.call(VERB, "given_up", self.began.elapsed());
            }
        }
    }
}

fn changed(cause: &str) -> Failure {
    Failure::new(
        Reason::Unspecified,
        TRY_AGAIN_LATER,
        cause,
        "kubelet asks again",
    )
}
