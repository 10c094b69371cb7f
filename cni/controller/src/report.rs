//! What is to be said to people: Events on objects, states of Subnets and Vpcs.
//!
//! The engine never waits for the API server: Events wait in a bounded channel, states on a board
//! on which a newer one replaces the older.

use crate::rows::{Problem, Unit};
use api::Usage;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, mpsc};

/// Events that wait for the API server; more than these are dropped and counted.
const WAITING: usize = 4096;

/// The object that something is said of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// That of a unit.
    Unit(Unit),
    /// The Dpu of that name; no rows follow from it.
    Dpu(String),
}

impl From<Unit> for Subject {
    fn from(unit: Unit) -> Self {
        Self::Unit(unit)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unit(unit) => write!(f, "{unit}"),
            Self::Dpu(name) => write!(f, "dpu/{name}"),
        }
    }
}

/// Something to be said of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The object.
    pub about: Subject,
    /// The object's UID.
    pub uid: String,
    /// What is wrong.
    pub problem: Problem,
}

/// How a Subnet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetState {
    /// IPv4 addresses.
    pub v4: Option<Usage>,
    /// IPv6 addresses.
    pub v6: Option<Usage>,
    /// Its rows are in OVN and addresses can be had, or why not.
    pub ready: Result<(), Problem>,
    /// Ports in it: as long as there are any, the object stays.
    pub ports: usize,
    /// The object's generation that this is the state of.
    pub generation: i64,
}

/// How a Vpc is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VpcState {
    /// Names of its Subnets.
    pub subnets: Vec<String>,
    /// Its rows are in OVN, or why not.
    pub ready: Result<(), Problem>,
    /// The object's generation that this is the state of.
    pub generation: i64,
}

/// The states that are to be written, newest only.
#[derive(Debug, Default)]
pub struct Board {
    states: Mutex<States>,
    wake: Notify,
}

/// States by name.
#[derive(Debug, Default)]
pub struct States {
    /// Of Subnets.
    pub subnets: BTreeMap<String, SubnetState>,
    /// Of Vpcs.
    pub vpcs: BTreeMap<String, VpcState>,
}

impl Board {
    /// Puts states up.
    pub fn put(&self, put: impl FnOnce(&mut States)) {
        put(&mut self.states.lock().unwrap_or_else(PoisonError::into_inner));
        self.wake.notify_one();
    }

    /// Takes all states that wait.
    pub fn take(&self) -> States {
        std::mem::take(&mut *self.states.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns when something has been put up since the last call.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

/// The engine's side.
#[derive(Clone, Debug)]
pub struct Reports {
    notices: mpsc::Sender<Notice>,
    /// Where states go.
    pub board: Arc<Board>,
}

impl Reports {
    /// With the receiving ends.
    pub fn new() -> (Self, mpsc::Receiver<Notice>) {
        let (notices, receiver) = mpsc::channel(WAITING);
        let board = Arc::default();
        (Self { notices, board }, receiver)
    }

    /// Says what is wrong with an object. It is logged in any case.
    pub fn notice(&self, notice: Notice) {
        let Problem { reason, sentence } = &notice.problem;
        tracing::warn!(about = %notice.about, reason, "{sentence}");
        if self.notices.try_send(notice).is_err() {
            tracing::warn!("an Event was dropped: {WAITING} wait for the API server already");
        }
    }
}
