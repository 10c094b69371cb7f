//! A csi-node-dpu of the test's own that attaches what it is told to: each volume is a qemu-storage-daemon with an NBD
//! client and a FUSE export, so that the test can write to the volume and see whether it still can.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use proto::attacher::v1::{AttachmentId, State};
use proto::node::v1::host_volumes_server::{HostVolumes, HostVolumesServer};
use proto::node::v1::*;
use proto::volume::v1::device::Address;
use proto::volume::v1::nbd_source;
use proto::volume::v1::source::Kind;
use proto::volume::v1::{Device, ExposureKind, Source};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use x509_parser::prelude::{FromDer, X509Certificate};

struct Attached {
    request: AttachRequest,
    daemon: Child,
    device: Device,
}

/// What the card of one host has.
#[derive(Default)]
struct Card {
    attached: tokio::sync::Mutex<HashMap<String, Attached>>,
    /// Answered to every Attach instead of attaching.
    refusal: Mutex<Option<Code>>,
    /// Detach without force: the host still uses it.
    in_use: Mutex<bool>,
    /// An older release, which knows nothing of sockets.
    old: Mutex<bool>,
    /// The sockets' queues of every Attach.
    queues: Mutex<Vec<Option<u32>>>,
    /// How long an Attach takes at least.
    slow: Mutex<Option<Duration>>,
    calls: Mutex<Vec<&'static str>>,
    /// The subject in the certificate of the last Attach.
    caller: Mutex<Option<String>>,
}

/// A csi-node-dpu for one host.
pub(crate) struct Dpu {
    host: String,
    exports: PathBuf,
    card: Arc<Card>,
    server: Mutex<Option<JoinHandle<()>>>,
    /// So that they can be cut.
    connections: Arc<Mutex<Vec<OwnedFd>>>,
}

/// Certificates of a server that wants those of its clients.
pub(crate) struct Pems {
    pub(crate) ca: String,
    pub(crate) cert: String,
    pub(crate) key: String,
}

#[derive(Clone)]
struct Service {
    host: String,
    exports: PathBuf,
    card: Arc<Card>,
}

impl Dpu {
    pub(crate) fn new(dir: &Path, host: &str) -> Self {
        let exports = dir.join("exports").join(host);
        std::fs::create_dir_all(&exports).unwrap();
        Self {
            host: host.into(),
            exports,
            card: Arc::default(),
            server: Mutex::default(),
            connections: Arc::default(),
        }
    }

    fn service(&self) -> HostVolumesServer<Service> {
        let (host, exports) = (self.host.clone(), self.exports.clone());
        HostVolumesServer::new(Service {
            host,
            exports,
            card: Arc::clone(&self.card),
        })
    }

    /// Serves on a unix socket.
    pub(crate) async fn serve(&self, socket: &Path) {
        let listener = proto::uds::bind(socket).await.unwrap();
        let server = tonic::transport::Server::builder().add_service(self.service());
        let connections = Arc::clone(&self.connections);
        let incoming = proto::uds::incoming(listener).inspect(move |stream| {
            let copy = stream.as_ref().unwrap().as_fd().try_clone_to_owned();
            connections.lock().unwrap().push(copy.unwrap());
        });
        let serving = tokio::spawn(async move {
            let _ = server.serve_with_incoming(incoming).await;
        });
        *self.server.lock().unwrap() = Some(serving);
    }

    /// Serves with TLS; the port.
    pub(crate) async fn serve_tls(&self, pems: &Pems, address: &str) -> u16 {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&pems.cert, &pems.key))
            .client_ca_root(Certificate::from_pem(&pems.ca));
        let server = tonic::transport::Server::builder().tls_config(tls).unwrap();
        let mut server = server;
        let server = server.add_service(self.service());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let serving = tokio::spawn(async move {
            let _ = server.serve_with_incoming(incoming).await;
        });
        *self.server.lock().unwrap() = Some(serving);
        port
    }

    /// It is away; what is attached stays.
    pub(crate) async fn stop(&self) {
        let server = self.server.lock().unwrap().take();
        let server = server.unwrap();
        server.abort();
        let _ = server.await;
        for connection in self.connections.lock().unwrap().drain(..) {
            let _ = nix::sys::socket::shutdown(
                connection.as_raw_fd(),
                nix::sys::socket::Shutdown::Both,
            );
        }
    }

    pub(crate) fn refuse(&self, code: Option<Code>) {
        *self.card.refusal.lock().unwrap() = code;
    }

    pub(crate) fn caller(&self) -> Option<String> {
        self.card.caller.lock().unwrap().clone()
    }

    pub(crate) fn slow(&self, time: Option<Duration>) {
        *self.card.slow.lock().unwrap() = time;
    }

    pub(crate) fn old(&self, yes: bool) {
        *self.card.old.lock().unwrap() = yes;
    }

    /// The queues of the sockets that were asked for since the last time.
    pub(crate) fn queues(&self) -> Vec<Option<u32>> {
        std::mem::take(&mut *self.card.queues.lock().unwrap())
    }

    pub(crate) fn in_use(&self, yes: bool) {
        *self.card.in_use.lock().unwrap() = yes;
    }

    /// The calls since the last time.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut *self.card.calls.lock().unwrap())
    }

    pub(crate) async fn attached(&self) -> Vec<String> {
        self.card.attached.lock().await.keys().cloned().collect()
    }
}

impl Service {
    async fn launch(&self, request: &AttachRequest, uuid: &str) -> Result<Attached, Status> {
        let source = request
            .source
            .clone()
            .and_then(|source: Source| source.kind);
        let Some(Kind::Nbd(nbd)) = source else {
            panic!("not NBD: {source:?}")
        };
        let Some(nbd_source::Address::UnixPath(path)) = nbd.address else {
            panic!("not unix: {nbd:?}")
        };
        let file = self.exports.join(uuid);
        std::fs::File::create(&file).unwrap();
        let writable = if request.read_only { "off" } else { "on" };
        let read_only = if request.read_only { "on" } else { "off" };
        let mut daemon = Command::new("qemu-storage-daemon")
            .args(["--chardev", "stdio,id=m", "--monitor", "m", "--blockdev"])
            .arg(format!(
                "driver=nbd,node-name=n,server.type=unix,server.path={path},export={},reconnect-delay=20,read-only={read_only}",
                nbd.export_name
            ))
            .arg("--export")
            .arg(format!("type=fuse,id=e,node-name=n,mountpoint={},writable={writable}", file.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("run qemu-storage-daemon (`make setup` installs it)");
        let stdin = daemon.stdin.as_mut().unwrap();
        stdin
            .write_all(b"{\"execute\":\"qmp_capabilities\"}\n")
            .await
            .unwrap();
        let size = request.size_bytes;
        if let Err(seen) = size_becomes(&file, size).await {
            let _ = daemon.start_kill();
            let output = daemon.wait_with_output().await.unwrap();
            let why = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Status::failed_precondition(format!(
                "the source has {seen} bytes, not {size}: {why}"
            )));
        }
        let device = Device {
            kind: ExposureKind::LocalBlockDevice.into(),
            // There is none: the test uses the file itself.
            address: Some(Address::Path("/dev/loop0".to_owned())),
            serial: request.serial.clone(),
            uuid: uuid.to_owned(),
            size_bytes: size,
            block_size: 512,
            read_only: request.read_only,
            vhost_user_socket: match request.socket {
                Some(_) if !*self.card.old.lock().unwrap() => {
                    format!("{}/{uuid}.vhost/disk.sock", self.exports.display())
                }
                _ => String::new(),
            },
            ..Device::default()
        };
        Ok(Attached {
            request: request.clone(),
            daemon,
            device,
        })
    }

    fn check(&self, call: &'static str, id: Option<AttachmentId>) -> Result<String, Status> {
        self.card.calls.lock().unwrap().push(call);
        let id = id.unwrap();
        if id.host == self.host {
            Ok(id.volume_uuid)
        } else {
            Err(Status::not_found("another host"))
        }
    }
}

/// Waits until the file has that size.
async fn size_becomes(file: &Path, size: u64) -> Result<(), u64> {
    let mut seen = 0;
    for _ in 0..500 {
        seen = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if seen == size {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(seen)
}

#[tonic::async_trait]
impl HostVolumes for Service {
    async fn attach(
        &self,
        request: Request<AttachRequest>,
    ) -> Result<Response<AttachResponse>, Status> {
        assert!(
            request.metadata().contains_key("grpc-timeout"),
            "the deadline is passed on"
        );
        if let Some(chain) = request.peer_certs() {
            let (_, certificate) = X509Certificate::from_der(&chain[0]).unwrap();
            let subject = certificate.subject().to_string();
            *self.card.caller.lock().unwrap() = Some(subject);
        }
        let request = request.into_inner();
        let uuid = self.check("Attach", request.id.clone())?;
        let queues = request.socket.map(|socket| socket.queues);
        self.card.queues.lock().unwrap().push(queues);
        let refusal = *self.card.refusal.lock().unwrap();
        if let Some(code) = refusal {
            return Err(Status::with_details(
                code,
                "as the test wants it",
                b"details".to_vec().into(),
            ));
        }
        let slow = *self.card.slow.lock().unwrap();
        tokio::time::sleep(slow.unwrap_or_default()).await;
        let mut all = self.card.attached.lock().await;
        if let Some(there) = all.get(&uuid)
            && (&there.request.source, there.request.read_only)
                != (&request.source, request.read_only)
        {
            return Err(Status::already_exists("attached with another source"));
        }
        if !all.contains_key(&uuid) {
            let attached = self.launch(&request, &uuid).await?;
            all.insert(uuid.clone(), attached);
        }
        let device = Some(all[&uuid].device.clone());
        Ok(Response::new(AttachResponse {
            device,
            generation: 1,
            epoch: None,
        }))
    }

    async fn detach(
        &self,
        request: Request<DetachRequest>,
    ) -> Result<Response<DetachResponse>, Status> {
        let request = request.into_inner();
        let uuid = self.check("Detach", request.id)?;
        if *self.card.in_use.lock().unwrap() && !request.force {
            return Err(Status::failed_precondition("the host has it mounted"));
        }
        if let Some(mut attached) = self.card.attached.lock().await.remove(&uuid) {
            let pid = attached.daemon.id().unwrap().cast_signed();
            let pid = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let ended = tokio::time::timeout(Duration::from_secs(5), attached.daemon.wait()).await;
            if ended.is_err() {
                attached.daemon.kill().await.unwrap();
                let dead = self.exports.join(&uuid);
                // The kernel has dropped it already if nobody had the file open.
                let _ = nix::mount::umount2(&dead, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        Ok(Response::new(DetachResponse {}))
    }

    async fn resize(
        &self,
        request: Request<ResizeRequest>,
    ) -> Result<Response<ResizeResponse>, Status> {
        let request = request.into_inner();
        let uuid = self.check("Resize", request.id)?;
        let mut all = self.card.attached.lock().await;
        let attached = all
            .get_mut(&uuid)
            .ok_or_else(|| Status::not_found("not attached"))?;
        let (file, size) = (self.exports.join(&uuid), request.size_bytes);
        // I/O makes the client connect anew: only then does it see the server's size.
        let read = file.clone();
        let _ = tokio::task::spawn_blocking(move || std::fs::read(read).map(drop)).await;
        let line = format!(
            "{{\"execute\":\"block_resize\",\"arguments\":{{\"node-name\":\"n\",\"size\":{size}}}}}\n"
        );
        attached
            .daemon
            .stdin
            .as_mut()
            .unwrap()
            .write_all(line.as_bytes())
            .await
            .unwrap();
        size_becomes(&file, size)
            .await
            .map_err(|seen| Status::unavailable(format!("it still has {seen}")))?;
        attached.device.size_bytes = size;
        Ok(Response::new(ResizeResponse {
            device: Some(attached.device.clone()),
        }))
    }

    async fn health(
        &self,
        request: Request<HealthRequest>,
    ) -> Result<Response<HealthResponse>, Status> {
        let uuid = self.check("Health", request.into_inner().id)?;
        let mut all = self.card.attached.lock().await;
        let attached = all
            .get_mut(&uuid)
            .ok_or_else(|| Status::not_found("not attached"))?;
        let lives = attached.daemon.try_wait().unwrap().is_none();
        let state = if lives { State::Attached } else { State::Lost };
        let message = if lives {
            ""
        } else {
            "the engine's daemon is gone"
        };
        let volume = Volume {
            state: state.into(),
            message: message.into(),
            ..Volume::default()
        };
        Ok(Response::new(HealthResponse {
            volume: Some(volume),
        }))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn capacity(
        &self,
        _: Request<CapacityRequest>,
    ) -> Result<Response<CapacityResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}
