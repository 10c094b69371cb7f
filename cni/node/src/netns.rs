//! Network namespaces: which one a path names, and running code inside it.
//!
//! The only place that calls setns. A thread that has changed its namespace is never used again: it is an OS thread of
//! its own that ends with the work. What such a thread opens (sockets, /proc/sys/net) belongs to the pod's namespace.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{FsType, fstatfs};
use tokio::sync::oneshot;

const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
const OWN: &str = "/proc/self/ns/net";

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetnsError {
    /// Nothing is at the path: the sandbox is gone, or the mount did not reach this container.
    #[error("network namespace {path} does not exist here")]
    Missing {
        /// The path as the runtime gave it.
        path: PathBuf,
    },
    /// Something else is at the path.
    #[error("{path} is not a network namespace")]
    NotOne {
        /// The path as the runtime gave it.
        path: PathBuf,
    },
    /// The path names the host's namespace (CNI specification: a plugin refuses its own).
    #[error("{path} is the host's own network namespace")]
    Host {
        /// The path as the runtime gave it.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("cannot enter network namespace {path}")]
    Io {
        /// The path as the runtime gave it.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
}

/// An open network namespace; open, it lives on even when its path goes.
#[derive(Debug, Clone)]
pub(crate) struct Netns {
    path: PathBuf,
    fd: Arc<OwnedFd>,
    identity: (u64, u64),
    /// It is the one that this program runs in.
    own: bool,
}

impl Netns {
    /// Opens the namespace that a runtime names for a pod. The host's own is refused.
    pub(crate) fn of_pod(path: &Path) -> Result<Self, NetnsError> {
        let netns = Self::open(path)?;
        let host = Self::host()?;
        if netns.identity == host.identity {
            return Err(NetnsError::Host {
                path: path.to_owned(),
            });
        }
        Ok(netns)
    }

    /// Opens a namespace that is no pod's.
    pub(crate) fn at(path: &Path) -> Result<Self, NetnsError> {
        Self::open(path)
    }

    /// The namespace that this program runs in: the host's.
    pub(crate) fn host() -> Result<Self, NetnsError> {
        Ok(Self {
            own: true,
            ..Self::open(Path::new(OWN))?
        })
    }

    /// What tells it from all others of this boot that live.
    pub(crate) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// The descriptor, to hand to the kernel.
    pub(crate) fn fd(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.fd)
    }

    /// Runs blocking work inside the namespace: on a thread of its own, unless it is the namespace of all threads here.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        if self.own {
            return tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| self.panicked());
        }
        self.run_after(|| (), |()| work()).await
    }

    /// Runs `before` in the namespace that this program runs in and then, on the same thread, `work` inside.
    pub(crate) async fn run_after<A, T: Send + 'static>(
        &self,
        before: impl FnOnce() -> A + Send + 'static,
        work: impl FnOnce(A) -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let (done, answer) = oneshot::channel();
        self.thread(move |enter| {
            let before = before();
            // A receiver that has gone only means that nobody waits for the answer.
            let _ = done.send(enter().map(|()| work(before)));
        })?;
        self.answer(answer.await)
    }

    /// Runs work inside the namespace, for a caller that may block.
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, NetnsError> {
        let (done, answer) = std::sync::mpsc::sync_channel(1);
        self.thread(move |enter| {
            let _ = done.send(enter().map(|()| work()));
        })?;
        self.answer(answer.recv())
    }

    /// Starts a thread that ends with `body`, which gets the way into the namespace.
    fn thread(
        &self,
        body: impl FnOnce(&dyn Fn() -> Result<(), Errno>) + Send + 'static,
    ) -> Result<(), NetnsError> {
        let fd = self.fd();
        let started = std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                body(&|| {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "the one thread that may: it ends below"
                    )]
                    let entered = setns(&*fd, CloneFlags::CLONE_NEWNET);
                    entered
                });
            });
        started.map(drop).map_err(|source| self.io(source))
    }

    fn answer<T, E>(&self, answer: Result<Result<T, Errno>, E>) -> Result<T, NetnsError> {
        match answer {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(Errno::EINVAL)) => Err(NetnsError::NotOne {
                path: self.path.clone(),
            }),
            Ok(Err(errno)) => Err(self.io(errno.into())),
            Err(_) => Err(self.panicked()),
        }
    }

    fn panicked(&self) -> NetnsError {
        self.io(io::Error::other("the work in it panicked"))
    }

    fn open(path: &Path) -> Result<Self, NetnsError> {
        let failure = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NetnsError::Missing {
                path: path.to_owned(),
            },
            _ => NetnsError::Io {
                path: path.to_owned(),
                source,
            },
        };
        // Non-blocking, so that a FIFO at the path cannot hold us.
        let file: File = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .map_err(failure)?;
        let kind = fstatfs(&file)
            .map_err(|errno| failure(errno.into()))?
            .filesystem_type();
        if kind != NSFS_MAGIC {
            return Err(NetnsError::NotOne {
                path: path.to_owned(),
            });
        }
        let metadata = file.metadata().map_err(failure)?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self {
            path: path.to_owned(),
            fd: Arc::new(file.into()),
            identity,
            own: false,
        })
    }

    fn io(&self, source: io::Error) -> NetnsError {
        NetnsError::Io {
            path: self.path.clone(),
            source,
        }
    }
}
