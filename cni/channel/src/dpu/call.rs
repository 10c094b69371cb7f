//! Calls in a session: each is run to its end, whether the host waits for it or not.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use mtls::Peer;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{Instrument, Span};

use super::desk::{CALLS, Current, Desk, name};
use crate::Failure;
use crate::code::TRY_AGAIN_LATER;
use crate::proto::attach_progress::Progress;
use crate::proto::attachment::Subject;
use crate::proto::{AttachProgress, Attachment, AttachmentKey, Installed, Reason, Wiring};

/// Who has work to do by the deadline says so itself; this is for those that do not.
const GRACE: Duration = Duration::from_millis(50);
/// For what was attached when nobody wanted it any more.
const UNDO: Duration = Duration::from_secs(5);

/// A call that may be made.
pub(crate) struct Asked {
    desk: Arc<Desk>,
    current: Arc<Current>,
    deadline: Instant,
    room: OwnedSemaphorePermit,
}

impl Asked {
    /// In the current session, and not one too many.
    #[allow(clippy::result_large_err, reason = "an answer")]
    pub(crate) fn of(
        desk: &Arc<Desk>,
        peer: &Peer,
        session: &str,
        deadline: Instant,
    ) -> Result<Self, Status> {
        let current = desk.session(peer, session)?;
        let Ok(room) = Arc::clone(&current.room).try_acquire_owned() else {
            let host = &current.host;
            let cause = format!("host {host} has {CALLS} calls under way");
            desk.refusals
                .refuse("too_many_calls", name(peer), cause.clone());
            let remedy = "kubelet asks again";
            let failure = Failure::new(Reason::NotReady, TRY_AGAIN_LATER, cause, remedy);
            return Err(failure.status(Code::ResourceExhausted));
        };
        Ok(Self {
            desk: Arc::clone(desk),
            current,
            deadline,
            room,
        })
    }

    pub(crate) async fn detach(self, key: AttachmentKey, attempt: u64) -> Result<(), Status> {
        let span = self.span("detach", &key, "");
        let (desk, current, deadline) = self.parts();
        let work = async move {
            let host = &current.host;
            desk.ports.detach(host, key, attempt, deadline).await
        };
        self.one("detach", work.instrument(span)).await
    }

    pub(crate) async fn check(self, key: AttachmentKey, attempt: u64) -> Result<Wiring, Status> {
        let span = self.span("check", &key, "");
        let (desk, current, deadline) = self.parts();
        let work = async move {
            let host = &current.host;
            desk.ports.check(host, key, attempt, deadline).await
        };
        self.one("check", work.instrument(span)).await
    }

    fn parts(&self) -> (Arc<Desk>, Arc<Current>, Instant) {
        let (desk, current) = (Arc::clone(&self.desk), Arc::clone(&self.current));
        (desk, current, self.deadline)
    }

    fn span(&self, verb: &'static str, key: &AttachmentKey, uid: &str) -> Span {
        tracing::info_span!(
            "channel",
            verb,
            host = self.current.host,
            dpu = self.desk.node,
            session = self.current.id,
            sandbox = key.sandbox,
            ifname = key.ifname,
            uid
        )
    }

    /// A call that is one answer.
    async fn one<T: Send + 'static>(
        self,
        verb: &'static str,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Status> {
        let (desk, current, deadline) = self.parts();
        let room = self.room;
        let work = async move {
            let began = Instant::now();
            let answer = work.await;
            // As long as it is under way.
            drop(room);
            note(&desk, &current, verb, answer.as_ref().err(), began);
            answer
        };
        let work = self.current.calls.spawn(work);
        match tokio::time::timeout_at(deadline + GRACE, work).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(Status::internal("the call was lost: see the DPU's log")),
            Err(_) => Err(late(verb).into()),
        }
    }
}

/// An Attach that may be made.
pub(crate) struct Attach {
    pub(crate) asked: Asked,
    pub(crate) attachment: Attachment,
    pub(crate) key: AttachmentKey,
}

type Answer = Result<AttachProgress, Status>;

impl Attach {
    /// Begins. If the answers are dropped before the last one is there, it is given up.
    pub(crate) fn start(self) -> impl Stream<Item = Answer> + use<> {
        let (to, answers) = mpsc::channel(4);
        let given_up = self.asked.current.ended.child_token();
        let held = given_up.clone().drop_guard();
        let uid = match &self.attachment.subject {
            Some(Subject::Pod(pod)) => &*pod.uid,
            _ => "",
        };
        let span = self.asked.span("attach", &self.key, uid);
        let calls = self.asked.current.calls.clone();
        calls.spawn(self.run(to, given_up).instrument(span));
        ReceiverStream::new(answers).map(move |answer| {
            let _held = &held;
            answer
        })
    }

    async fn run(self, to: mpsc::Sender<Answer>, given_up: CancellationToken) {
        let (desk, current, deadline) = self.asked.parts();
        let began = Instant::now();
        let (wiring_to, mut wiring) = oneshot::channel();
        let mut told = false;
        let mut late_told = false;
        let attempt = self.attachment.attempt;
        let host = &current.host;
        let work = desk
            .ports
            .attach(host, self.attachment, wiring_to, deadline, given_up.clone());
        let mut work = pin!(work);
        let result = loop {
            tokio::select! {
                biased;
                known = &mut wiring, if !told => {
                    told = true;
                    // Dropped without a word by an Attach that fails.
                    if let Ok(known) = known {
                        say(&to, Progress::Wiring(known));
                    }
                }
                result = &mut work => break result,
                () = tokio::time::sleep_until(deadline + GRACE), if !late_told => {
                    late_told = true;
                    let _ = to.try_send(Err(late("attach").into()));
                    given_up.cancel();
                }
            }
        };
        if !told && let Ok(known) = wiring.try_recv() {
            say(&to, Progress::Wiring(known));
        }
        // Nobody heard that it is there.
        if result.is_ok() && given_up.is_cancelled() {
            let until = Instant::now() + UNDO;
            let undone = desk.ports.detach(host, self.key, attempt, until).await;
            if let Err(failure) = undone {
                tracing::warn!(
                    "what was attached for nobody is still there, until the next full set: {failure}"
                );
            }
            desk.metrics.call("attach", "given_up", began.elapsed());
            return;
        }
        if late_told || given_up.is_cancelled() {
            desk.metrics.call("attach", "given_up", began.elapsed());
            if current.ended.is_cancelled() {
                let _ = to.try_send(Err(current.gone().into()));
            }
            return;
        }
        note(&desk, &current, "attach", result.as_ref().err(), began);
        match result {
            Ok(()) => say(&to, Progress::Installed(Installed {})),
            Err(failure) => {
                let _ = to.try_send(Err(failure.into()));
            }
        }
    }
}

/// The queue has room for all that is ever said; the host may be gone.
fn say(to: &mpsc::Sender<Answer>, progress: Progress) {
    let progress = AttachProgress {
        progress: Some(progress),
    };
    let _ = to.try_send(Ok(progress));
}

/// Counts, and tells of what a host must not ask for.
fn note(
    desk: &Desk,
    current: &Current,
    verb: &'static str,
    failure: Option<&Failure>,
    began: Instant,
) {
    let outcome = failure.map_or("ok", Failure::reason_name);
    desk.metrics.call(verb, outcome, began.elapsed());
    let Some(failure) = failure else { return };
    tracing::info!(
        verb,
        code = failure.code,
        reason = outcome,
        "failed: {failure}"
    );
    refused(desk, current, failure);
}

/// Tells of what a host must not ask for.
pub(crate) fn refused(desk: &Desk, current: &Current, failure: &Failure) {
    let refused = matches!(
        failure.reason,
        Reason::OldAttempt | Reason::NoFunction | Reason::FunctionTaken | Reason::NoPort
    );
    if refused {
        let (who, reason) = (name(&current.peer), failure.reason_name());
        desk.refusals.refuse(reason, who, failure.cause.clone());
    }
}

fn late(verb: &str) -> Failure {
    Failure::new(
        Reason::Unspecified,
        TRY_AGAIN_LATER,
        format!("the DPU did not finish {verb} in time"),
        "kubelet asks again; look at the log of the DPU's cni-node",
    )
}
