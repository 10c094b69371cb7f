//! The unix socket: who may ask, one request per connection, its deadline, one reply, one line in the log.

use std::sync::Arc;
use std::time::Duration;

use cni_bin::cni::CNIResult;
use cni_bin::code;
use cni_bin::wire::{Command, MAX_BYTES, Reply, Request};
use daemon::socket::Socket;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::attachment::AttachmentId;
use crate::call::{Add, Call, Check, Devices};
use crate::error::{Error, chain};
use crate::metrics::Metrics;
use crate::node::Node;
use crate::stages::Stages;
use crate::under_way::UnderWay;
use crate::vhostuser::Kind;
use crate::{attach, check, detach, gc, status, wiring};

/// A client writes its request at once; one that does not is no client of ours.
const PATIENCE: Duration = Duration::from_secs(10);
/// Operations under way when the program is told to end: what is not over soon waits for something that may never come.
const GRACE: Duration = Duration::from_secs(2);
/// Those that do not wait, or have something to undo; they are undone after the next start if they take longer.
const DRAIN: Duration = Duration::from_secs(20);

/// Who performs the operations: this node as one with Open vSwitch, or as a host whose ports are on its DPU.
pub(crate) trait Operations: Send + Sync + 'static {
    /// Whether an ADD may name a function of a card.
    const DEVICES: Devices;

    /// What is counted of them.
    fn metrics(&self) -> &Metrics;

    /// ADDs that wait.
    fn under_way(&self) -> &UnderWay;

    /// Serves an ADD.
    fn add(
        &self,
        add: &Add,
        stages: &mut Stages,
        deadline: Instant,
    ) -> impl Future<Output = Result<CNIResult, Error>> + Send;

    /// Serves a DEL.
    fn del(
        &self,
        id: &AttachmentId,
        stages: &mut Stages,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Serves a CHECK.
    fn check(
        &self,
        check: &Check,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Serves a GC. `valid`: the attachments that the runtime knows; none = it does not say.
    fn gc(
        &self,
        network: &str,
        valid: Option<&[AttachmentId]>,
        stages: &mut Stages,
        deadline: Instant,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Serves a STATUS.
    fn status(&self, kind: &Kind) -> impl Future<Output = Result<(), Error>> + Send;

    /// Performs one; the document of an ADD.
    fn perform(
        &self,
        call: Call,
        stages: &mut Stages,
        deadline: Instant,
    ) -> impl Future<Output = Result<Option<Box<RawValue>>, Error>> + Send {
        async move {
            match call {
                Call::Add(add) => {
                    let adding = Box::pin(self.add(&add, stages, deadline));
                    let result = adding.await?;
                    return wiring::document(add.version, &result).map(Some);
                }
                Call::Del { id } => self.del(&id, stages, deadline).await?,
                Call::Check(check) => self.check(&check, deadline).await?,
                Call::Gc { network, valid } => {
                    self.gc(&network, valid.as_deref(), stages, deadline)
                        .await?;
                }
                Call::Status(kind) => self.status(&kind).await?,
            }
            Ok(None)
        }
    }
}

/// Serves until told to stop, then ends what is under way.
pub(crate) async fn run<N: Operations>(node: Arc<N>, socket: Socket, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = socket.listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let node = Arc::clone(&node);
                tasks.spawn(async move { connection(&*node, stream).await });
            }
            Err(why) => {
                // Out of descriptors, most likely: others must end first.
                warn!("cannot accept a connection on the CNI socket: {why}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        node.under_way().give_up_all();
    }
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        warn!(
            operations = tasks.len(),
            "operations are cut off: the next start cleans up after them"
        );
    }
}

async fn connection<N: Operations>(node: &N, mut stream: UnixStream) {
    let request = match tokio::time::timeout(PATIENCE, receive(&mut stream)).await {
        Ok(Ok(request)) => request,
        Ok(Err(error)) => {
            warn!("a request on the CNI socket is refused: {error}");
            let version = cni_bin::cni::SpecVersion::CURRENT.to_string();
            return send(&mut stream, &Reply::Error(error.into_failure(&version))).await;
        }
        Err(_) => return warn!("a client of the CNI socket sent no whole request within 10 s"),
    };
    let reply = serve(node, &request).await;
    send(&mut stream, &reply).await;
}

/// Reads to the end of the stream: a request that is not whole must not be acted on ([`cni_bin::wire`]), and an answer
/// to a caller whose words were not read would be lost.
async fn receive(stream: &mut UnixStream) -> Result<Request, Error> {
    let refused = |cause: String, remedy: &str| Error::new(code::IO_FAILURE, cause, remedy);
    let mut bytes = Vec::with_capacity(4096);
    stream
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|why| {
            refused(
                format!("The request cannot be read: {why}."),
                "The runtime tries again by itself.",
            )
        })?;
    let peer = stream.peer_cred().map_err(|why| {
        refused(
            format!("The caller of cni-node's socket cannot be told: {why}."),
            "Look at the kernel's log.",
        )
    })?;
    if peer.uid() != 0 {
        return Err(refused(
            format!("cni-node's socket was called by user {}.", peer.uid()),
            "Only root may: the container runtime runs the plugin as root.",
        ));
    }
    Request::decode(&bytes).map_err(|why| {
        Error::new(
            code::DECODING_FAILURE,
            format!("The request cannot be decoded: {}", chain(&why)),
            "The plugin outboard and cni-node must be of one release: run the installer of this release.",
        )
    })
}

async fn send(stream: &mut UnixStream, reply: &Reply) {
    let sent = match reply.encode() {
        Ok(bytes) => {
            async {
                stream.write_all(&bytes).await?;
                stream.shutdown().await
            }
            .await
        }
        Err(why) => Err(std::io::Error::other(why)),
    };
    if let Err(why) = sent {
        // A client that was killed; its runtime will DEL what it asked for.
        warn!("a reply on the CNI socket could not be sent: {why}");
    }
}

/// Serves one request: the whole of an operation, with its log line and its metrics.
pub(crate) async fn serve<N: Operations>(node: &N, request: &Request) -> Reply {
    let started = Instant::now();
    let mut stages = Stages::default();
    let budget = Duration::from_millis(request.deadline_ms);
    // What fails at the deadline must still be undone and reported within the caller's patience.
    let deadline = started + budget.saturating_sub((budget / 10).min(Duration::from_secs(3)));
    let done = match Call::parse(request, N::DEVICES) {
        Ok(call) => node.perform(call, &mut stages, deadline).await,
        Err(error) => Err(error),
    };
    let time = started.elapsed();
    node.metrics()
        .request(request.command, done.is_err(), time, &stages);
    log(request, done.as_ref().err(), time, &stages);
    match done {
        Ok(document) => Reply::Result(document),
        Err(error) => Reply::Error(error.into_failure(&cni_bin::conf::version_of(&request.config))),
    }
}

impl Operations for Node {
    const DEVICES: Devices = Devices::None;

    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn under_way(&self) -> &UnderWay {
        &self.under_way
    }

    async fn add(
        &self,
        add: &Add,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<CNIResult, Error> {
        attach::add(self, add, stages, deadline).await
    }

    async fn del(
        &self,
        id: &AttachmentId,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<(), Error> {
        detach::del(self, id, stages, deadline).await
    }

    async fn check(&self, check: &Check, deadline: Instant) -> Result<(), Error> {
        check::check(self, check, deadline).await
    }

    async fn gc(
        &self,
        network: &str,
        valid: Option<&[AttachmentId]>,
        stages: &mut Stages,
        deadline: Instant,
    ) -> Result<(), Error> {
        gc::gc(self, network, valid, stages, deadline).await
    }

    async fn status(&self, kind: &Kind) -> Result<(), Error> {
        status::status(self, kind).await
    }
}

fn log(request: &Request, error: Option<&Error>, time: Duration, stages: &Stages) {
    let arguments = request.var("CNI_ARGS").unwrap_or_default();
    let argument = |name: &str| {
        arguments
            .split(';')
            .find_map(|item| item.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let pod = format!(
        "{}/{}",
        argument("K8S_POD_NAMESPACE"),
        argument("K8S_POD_NAME")
    );
    let (uid, sandbox) = (
        argument("K8S_POD_UID"),
        request.var("CNI_CONTAINERID").unwrap_or_default(),
    );
    let ifname = request.var("CNI_IFNAME").unwrap_or_default();
    let network = cni_bin::conf::Head::parse(request.command, &request.config)
        .ok()
        .and_then(|head| head.name)
        .unwrap_or_default();
    let op = request.command.as_str();
    let ms = time.as_secs_f64() * 1e3;
    match error {
        // A runtime asks every few seconds.
        None if request.command == Command::Status => {}
        None => info!(op, pod, uid, sandbox, ifname, network, %stages, "done in {ms:.1} ms"),
        Some(error) => {
            warn!(op, pod, uid, sandbox, ifname, network, %stages, code = error.code, "failed after {ms:.1} ms: {error}");
        }
    }
}
