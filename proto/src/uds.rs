//! gRPC over unix sockets: a channel to one, a listener on one.
//!
//! **Authority.** HTTP/2 servers refuse a request whose `:authority` is no authority, such as a percent-encoded path. Ours is always
//! `localhost`, as that of kubelet and of the CSI sidecars; a server here can't help clients that send a path (test programs in
//! Python: set `grpc.default_authority`).
//!
//! **The directory belongs to others.** [`bind`] leaves nothing beside the socket, since the CSI spec forbids that and kubelet takes
//! every file in its plugin directory for a socket. So it locks the directory for a moment instead of keeping a lock file, as
//! `daemon::socket` does for sockets of our own.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;
/// How long others may take to bind in the same directory.
const LOCK: Duration = Duration::from_secs(5);
/// A unix socket answers at once, or its server is stuck.
const CONNECT: Duration = Duration::from_secs(5);

/// Why a socket can't be bound.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A living process accepts connections there.
    #[error(
        "socket {}: another process serves it; end that one first, or give this one another path",
        .path.display()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket lies there: it is not ours to remove.
    #[error("socket {}: a file that is not a socket lies there; remove it, or choose another path", .path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The operating system refused a step.
    #[error("socket {}: can't {step}", .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The step, as a verb and its object.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A channel to the server at `path`. It connects at the first call and again after every loss; a call while nobody listens ends as
/// UNAVAILABLE at once. Call it within a tokio runtime.
pub fn channel(path: impl Into<PathBuf>) -> Channel {
    let path = path.into();
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The connector goes to the socket whatever this says; it becomes `:authority`.
    Endpoint::from_static("http://localhost")
        .connect_timeout(CONNECT)
        .connect_with_connector_lazy(connector)
}

/// A listener at `path` with mode 0600, in a directory that exists. What an ended process left there is replaced; a living one is not.
/// The socket stays behind at the end: a client then sees "connection refused". Call it within a tokio runtime.
///
/// # Errors
///
/// Every [`Error`].
pub async fn bind(path: &Path) -> Result<UnixListener, Error> {
    let io = |step| {
        move |source| Error::Io {
            path: path.to_owned(),
            step,
            source,
        }
    };
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let dir = File::open(dir).map_err(io("open its directory"))?;
    let _locked = lock(path, dir).await?;
    remove_stale(path).await?;
    let socket = UnixSocket::new_stream().map_err(io("make it"))?;
    socket.bind(path).map_err(io("bind it"))?;
    // Before `listen`, so that nobody connects while the mode is what the umask made it.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))
        .map_err(io("set its mode to 0600"))?;
    socket.listen(BACKLOG).map_err(io("listen on it"))
}

/// What `tonic::transport::Server::serve_with_incoming` takes, from [`bind`] or from `daemon::socket`. Each request then has the
/// peer's process and user in its extensions (`tonic::transport::server::UdsConnectInfo`).
#[must_use]
pub fn incoming(listener: UnixListener) -> UnixListenerStream {
    UnixListenerStream::new(listener)
}

/// Against a second process between our look and our bind. Held for a moment only, also by those who bind another socket in the same
/// directory: so it is waited for. Ends when the file is closed.
async fn lock(path: &Path, dir: File) -> Result<File, Error> {
    let io = |source| Error::Io {
        path: path.to_owned(),
        step: "lock its directory",
        source,
    };
    let locking = tokio::task::spawn_blocking(move || dir.lock().map(|()| dir));
    match tokio::time::timeout(LOCK, locking).await {
        Ok(Ok(locked)) => locked.map_err(io),
        Ok(Err(ended)) => Err(io(io::Error::other(ended))),
        Err(_) => Err(io(io::ErrorKind::TimedOut.into())),
    }
}

async fn remove_stale(path: &Path) -> Result<(), Error> {
    let io = |step| {
        move |source| Error::Io {
            path: path.to_owned(),
            step,
            source,
        }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at what is there")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    // Never waits: a full backlog is an error here.
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io("remove the one left by an earlier process"))
        }
        Ok(_) => Err(Error::Busy {
            path: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Error::Busy {
            path: path.to_owned(),
        }),
        Err(error) => Err(io("find out whether somebody serves it")(error)),
    }
}
