//! What the backend is told.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// How the `local` backend works.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where images and catalogue lie: one file system, best of its own. Absolute, at most 60 bytes (sockets lie in it).
    pub dir: PathBuf,
    /// The unix socket of the outboard-engine of this machine.
    pub engine_socket: PathBuf,
    /// What hosts call that engine: a [`Host`](crate::Host) that names it uses the volume's daemon itself.
    pub engine_id: String,
    /// Where volumes are served.
    pub listen: Listen,
    /// How much may be promised, in percent of the file system's size.
    pub percent: u32,
    /// Bytes that stay free for volumes that exist: below it nothing new is made.
    pub reserve: u64,
    /// Bytes of a volume of which no size was asked for.
    pub default_size: u64,
    /// How images are read and written.
    pub aio: Aio,
    /// Files that a volume's contents may be spread over: snapshots make them, their deletion merges them.
    pub max_chain: usize,
}

impl Config {
    /// Unix sockets, four times over-provisioned, 1 GiB in reserve.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, engine_socket: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            engine_socket: engine_socket.into(),
            engine_id: String::from("local"),
            listen: Listen::Unix,
            percent: 400,
            reserve: 1 << 30,
            default_size: 1 << 30,
            aio: Aio::IoUring,
            max_chain: 128,
        }
    }
}

/// Where volumes are served by NBD.
#[derive(Debug, Clone)]
pub enum Listen {
    /// On a unix socket for each volume, for hosts of this machine.
    Unix,
    /// On a TCP port for each volume.
    Tcp {
        /// To listen on.
        address: IpAddr,
        /// What hosts are told; the address if not given.
        advertise: Option<String>,
        /// One for each exported volume.
        ports: RangeInclusive<u16>,
        /// A directory with `ca-cert.pem`, `server-cert.pem`, `server-key.pem`, and better `dh-params.pem`, which QEMU else makes at
        /// each start. Without TLS whoever reaches the port reaches the volume.
        tls: Option<PathBuf>,
    },
}

/// QEMU's name for a way to do I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aio {
    /// `io_uring`.
    IoUring,
    /// `threads`: where the kernel or a seccomp profile refuses the other.
    Threads,
}

impl Aio {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Threads => "threads",
        }
    }
}
