//! What crosses the engine's socket: JSON-RPC 2.0, one object of parameters per method.
//!
//! | method | parameters | result |
//! |---|---|---|
//! | `put` | `id`, `owner`, `recipe`, `settle_ms`, `expected` (or null: whatever it is) | [`Daemon`] |
//! | `remove` | `id` | null |
//! | `get` | `id` | [`Daemon`] or null |
//! | `list` | `owner` (or null: all) | list of [`Daemon`] |
//! | `watch` | | list of [`Daemon`], then notifications `changed` with a [`Daemon`] |
//! | `info` | | [`Info`] |

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Recipe;
use crate::place::{BACKEND, CARD, ENGINE};

/// The wish for a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Put {
    /// Its id: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first being no dot.
    pub id: String,
    /// Who keeps its recipe; nobody else may change it.
    pub owner: String,
    /// What it does after a start.
    pub recipe: Recipe,
}

/// A daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its id.
    pub id: String,
    /// Who keeps its recipe.
    pub owner: String,
    /// What it does after a start.
    pub recipe: Recipe,
    /// How many recipes were put, this one included.
    pub revision: u64,
    /// The revision that the process that runs now was started with.
    pub applied: Option<u64>,
    /// How it is.
    pub state: State,
    /// Boot id, process id and start time: changes exactly when the daemon is another process.
    pub epoch: Option<String>,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// Its directory, with its sockets and its log.
    pub dir: PathBuf,
}

/// How a daemon is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It does not serve: it is being started, or found again after the engine's restart, or about to be removed then.
    Starting,
    /// Its recipe has been run.
    Running,
    /// It could not be started, and will be tried again.
    Failed {
        /// The sentence of what failed.
        why: String,
    },
    /// It has been removed.
    Stopped,
}

impl Daemon {
    /// The monitor for the storage back end: one client at a time.
    #[must_use]
    pub fn qmp_backend(&self) -> PathBuf {
        self.dir.join(BACKEND)
    }

    /// The monitor for the card: one client at a time.
    #[must_use]
    pub fn qmp_card(&self) -> PathBuf {
        self.dir.join(CARD)
    }

    /// The monitor that the engine itself uses, only while it starts or ends the daemon.
    #[must_use]
    pub fn qmp_engine(&self) -> PathBuf {
        self.dir.join(ENGINE)
    }

    /// A place for the daemon's NBD server, if it is to listen on a unix socket.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.dir.join("nbd.sock")
    }
}

/// What the engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// Parent of the daemons' directories, which are named by their ids.
    pub daemons: PathBuf,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The engine's version.
    pub version: String,
    /// The storage daemon's version, if it could be asked.
    pub storage_daemon: Option<String>,
}

/// Codes of errors (JSON-RPC 2.0 §5.1).
pub(crate) mod code {
    /// No such method.
    pub(crate) const METHOD: i64 = -32601;
    /// The parameters are not of the expected form.
    pub(crate) const PARAMS: i64 = -32602;
    /// The id belongs to another owner.
    pub(crate) const OWNED: i64 = 2;
    /// The engine can't at present; try again.
    pub(crate) const UNAVAILABLE: i64 = 3;
    /// The recipe is not the one that was expected.
    pub(crate) const CONFLICT: i64 = 4;
}

/// The error member of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Refusal {
    pub(crate) code: i64,
    pub(crate) message: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PutParams {
    #[serde(flatten)]
    pub(crate) put: Put,
    /// For how long the answer may wait for the end of the start.
    #[serde(default)]
    pub(crate) settle_ms: u64,
    /// The revision that the recipe was made from; 0: there was none.
    #[serde(default)]
    pub(crate) expected: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdParams {
    pub(crate) id: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListParams {
    #[serde(default)]
    pub(crate) owner: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}
