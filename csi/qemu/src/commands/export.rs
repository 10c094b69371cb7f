//! Exports of nodes (QAPI: block-export.json).

use std::path::PathBuf;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::{Done, command, none};

command! {
    /// Starts the NBD server; a daemon has one.
    NbdServerStart = "nbd-server-start" -> Done {
        /// Where it listens. A socket file that is there is replaced.
        #[serde(serialize_with = "legacy")]
        addr: Address,
        /// A `tls-creds-x509` object of endpoint `server`: from then on no client comes in without TLS.
        #[serde(skip_serializing_if = "none")]
        tls_creds: Option<String>,
        /// An `authz-*` object that is asked about the distinguished name of the client's certificate.
        #[serde(skip_serializing_if = "none")]
        tls_authz: Option<String>,
        /// Connections at a time; 0 for any number.
        #[serde(skip_serializing_if = "none")]
        max_connections: Option<u32>,
    }

    /// Stops the NBD server: its exports go, its clients are cut off.
    NbdServerStop = "nbd-server-stop" -> Done {}

    /// Takes an export away.
    BlockExportDel = "block-export-del" -> Done {
        /// The export.
        id: String,
        /// With clients: refuse, or cut them off. The end of it is the event `BLOCK_EXPORT_DELETED`.
        #[serde(skip_serializing_if = "none")]
        mode: Option<RemoveMode>,
    }

    /// All exports.
    QueryBlockExports = "query-block-exports" -> Vec<ExportInfo> {}

    /// Adds an export. For FUSE the mount point must be a regular file, and is mounted over when this is answered.
    BlockExportAdd = "block-export-add" -> Done {
        /// Its id.
        id: String,
        /// The node.
        node_name: String,
        /// How it is exported.
        #[serde(flatten)]
        kind: Export,
        /// Whether clients may write.
        #[serde(skip_serializing_if = "none")]
        writable: Option<bool>,
        /// True flushes after every write.
        #[serde(skip_serializing_if = "none")]
        writethrough: Option<bool>,
        /// An `iothread` object that serves it.
        #[serde(skip_serializing_if = "none")]
        iothread: Option<String>,
    }
}

/// How a node is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "type",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Export {
    /// By the NBD server.
    Nbd {
        /// The export's name for clients; the node's name if not given.
        #[serde(skip_serializing_if = "none")]
        name: Option<String>,
    },
    /// As a file in a FUSE mount on a file.
    Fuse {
        /// The file that is mounted over.
        mountpoint: PathBuf,
        /// True lets writes beyond the end grow the node.
        #[serde(skip_serializing_if = "none")]
        growable: Option<bool>,
        /// Whether other users than the daemon's may open it.
        #[serde(skip_serializing_if = "none")]
        allow_other: Option<AllowOther>,
    },
    /// To a virtual machine over a vhost-user socket.
    VhostUserBlk {
        /// The socket, where the daemon listens.
        addr: Address,
        /// 512 to 4096.
        #[serde(skip_serializing_if = "none")]
        logical_block_size: Option<u32>,
        /// Request queues.
        #[serde(skip_serializing_if = "none")]
        num_queues: Option<u16>,
    },
}

/// Who may open a FUSE export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllowOther {
    /// The daemon's user (root, too, only if that is root).
    Off,
    /// Everybody whom the file's mode lets.
    On,
    /// `On` where it is allowed.
    Auto,
}

/// What becomes of an export's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoveMode {
    /// The command fails if there are any.
    Safe,
    /// They are cut off.
    Hard,
}

/// Where a socket is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Address {
    /// TCP.
    Inet {
        /// Address or name.
        host: String,
        /// Port, as text.
        port: String,
    },
    /// A unix socket.
    Unix {
        /// Its path, at most 107 bytes.
        path: PathBuf,
    },
}

/// `SocketAddressLegacy`: the members are one level deeper.
fn legacy<S: Serializer>(address: &Address, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(tag = "type", content = "data", rename_all = "kebab-case")]
    enum Legacy<'a> {
        Inet { host: &'a str, port: &'a str },
        Unix { path: &'a PathBuf },
    }
    match address {
        Address::Inet { host, port } => Legacy::Inet { host, port }.serialize(serializer),
        Address::Unix { path } => Legacy::Unix { path }.serialize(serializer),
    }
}

/// An export as [`QueryBlockExports`] tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExportInfo {
    /// Its id.
    pub id: String,
    /// `nbd`, `fuse`, `vhost-user-blk`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The node.
    pub node_name: String,
    /// True while it waits for its clients to go.
    pub shutting_down: bool,
}

command! {
    /// Adds a character device; here the sockets of vhost-user devices. QEMU and qemu-storage-daemon.
    ChardevAdd = "chardev-add" -> serde_json::Value {
        /// Its id.
        id: String,
        /// What it is.
        backend: ChardevSocket,
    }

    /// All character devices.
    QueryChardev = "query-chardev" -> Vec<ChardevInfo> {}

    /// Removes a character device that nothing uses.
    ChardevRemove = "chardev-remove" -> Done {
        /// The device.
        id: String,
    }
}

/// A character device as [`QueryChardev`] tells it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ChardevInfo {
    /// Its id.
    pub label: String,
    /// What it is, in QEMU's words; of a socket without a connection `disconnected:…`.
    pub filename: String,
}

impl ChardevInfo {
    /// A socket that nobody is connected to, or that has lost its server.
    #[must_use]
    pub fn is_disconnected(&self) -> bool {
        self.filename.starts_with("disconnected:")
    }
}

/// A character device that is a unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChardevSocket {
    /// The socket.
    pub path: PathBuf,
    /// True listens, false connects.
    pub server: bool,
    /// Of a client: milliseconds between attempts to connect again; 0 for none.
    pub reconnect_ms: u32,
}

impl Serialize for ChardevSocket {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Unix<'a> {
            path: &'a PathBuf,
        }
        #[derive(Serialize)]
        struct Addr<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            data: Unix<'a>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "kebab-case")]
        struct Data<'a> {
            addr: Addr<'a>,
            server: bool,
            #[serde(skip_serializing_if = "none")]
            wait: Option<bool>,
            #[serde(skip_serializing_if = "none")]
            reconnect_ms: Option<u32>,
        }
        let data = Data {
            addr: Addr {
                kind: "unix",
                data: Unix { path: &self.path },
            },
            server: self.server,
            wait: self.server.then_some(false),
            reconnect_ms: (!self.server && self.reconnect_ms > 0).then_some(self.reconnect_ms),
        };
        let mut backend = serializer.serialize_struct("backend", 2)?;
        backend.serialize_field("type", "socket")?;
        backend.serialize_field("data", &data)?;
        backend.end()
    }
}
