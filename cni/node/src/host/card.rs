//! The host's card: which functions there are, and who holds which.
//!
//! A function is handed out when nobody holds it and its link is at home. One that was let go of but has not come home is nobody's
//! and nobody gets it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cni_bin::code;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::function::{Function, FunctionId, Provider};
use super::metrics::Metrics;
use crate::attachment::AttachmentId;
use crate::error::{Error, chain};

/// How many functions move at a time, and how many are set up. The kernel moves one at a time, for many milliseconds each, and lets
/// the settings of other interfaces spin meanwhile: more threads only make everybody as late as the last.
const WIDTH: usize = 2;

#[derive(Debug, Default)]
struct State {
    functions: BTreeMap<FunctionId, Function>,
    held: BTreeMap<FunctionId, AttachmentId>,
}

/// See the module.
pub(crate) struct Card {
    provider: Arc<dyn Provider>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    moves: Semaphore,
    settings: Semaphore,
    metrics: Metrics,
}

impl Card {
    /// A card nobody has looked at yet; `held` is what the journal says.
    pub(crate) fn new(
        provider: Arc<dyn Provider>,
        held: impl IntoIterator<Item = (FunctionId, AttachmentId)>,
        metrics: Metrics,
    ) -> Self {
        Self {
            provider,
            state: Mutex::new(State {
                functions: BTreeMap::new(),
                held: held.into_iter().collect(),
            }),
            changed: watch::Sender::new(()),
            moves: Semaphore::new(WIDTH),
            settings: Semaphore::new(WIDTH),
            metrics,
        }
    }

    pub(crate) fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.provider)
    }

    /// Waits for the turn to move a function. Whoever has it does nothing else than that.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.moves.acquire().await.ok()
    }

    /// Waits for the turn to set up a function that has moved.
    pub(crate) async fn turn_to_set_up(&self) -> Option<SemaphorePermit<'_>> {
        self.settings.acquire().await.ok()
    }

    /// Changes whenever a function may have become free.
    pub(crate) fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Looks anew.
    pub(crate) async fn look(&self) -> Result<BTreeMap<FunctionId, Function>, Error> {
        let provider = self.provider();
        let looked = tokio::task::spawn_blocking(move || provider.inventory()).await;
        let functions = looked.map_err(|why| {
            Error::new(
                code::IO_FAILURE,
                format!("The look at the card broke off: {}", chain(&why)),
                "Report this.",
            )
        })??;
        let functions: BTreeMap<_, _> = functions
            .into_iter()
            .map(|function| (function.id, function))
            .collect();
        self.locked().functions.clone_from(&functions);
        self.tell();
        Ok(functions)
    }

    /// Gives the lowest free function to an attachment.
    pub(crate) fn claim(&self, owner: &AttachmentId) -> Option<Function> {
        let mut state = self.locked();
        let free = state
            .functions
            .values()
            .find(|function| is_free(&state, function) && !function.vfio)?
            .clone();
        state.held.insert(free.id, owner.clone());
        drop(state);
        self.tell();
        Some(free)
    }

    /// Gives a certain function to an attachment, if it is free.
    pub(crate) fn claim_this(&self, id: FunctionId, owner: &AttachmentId) -> Option<Function> {
        let mut state = self.locked();
        let free = state.functions.get(&id)?;
        if !is_free(&state, free) {
            return None;
        }
        let free = free.clone();
        state.held.insert(id, owner.clone());
        drop(state);
        self.tell();
        Some(free)
    }

    /// The function that a `deviceID` names, and who holds it.
    pub(crate) fn by_device(&self, device: &str) -> Option<(Function, Option<AttachmentId>)> {
        let state = self.locked();
        let function = state.functions.values().find(|one| one.device == device)?;
        Some((function.clone(), state.held.get(&function.id).cloned()))
    }

    /// A function as it was when it was looked at last.
    pub(crate) fn function(&self, id: FunctionId) -> Option<Function> {
        self.locked().functions.get(&id).cloned()
    }

    /// Notes where a function's link is, after it was moved.
    pub(crate) fn moved(&self, id: FunctionId, here: Option<String>) {
        if let Some(function) = self.locked().functions.get_mut(&id) {
            function.here = here;
        }
    }

    /// An attachment lets go of a function.
    pub(crate) fn release(&self, id: FunctionId, owner: &AttachmentId) {
        let mut state = self.locked();
        if state.held.get(&id) == Some(owner) {
            state.held.remove(&id);
        }
        drop(state);
        self.tell();
    }

    /// Whether a link of that name is known as one of the card's that are at home.
    pub(crate) fn knows_at_home(&self, name: &str) -> bool {
        let state = self.locked();
        let mut functions = state.functions.values();
        functions.any(|function| function.here.as_deref() == Some(name))
    }

    fn tell(&self) {
        let state = self.locked();
        let free = state.functions.values().filter(|one| is_free(&state, one));
        self.metrics.functions(state.functions.len(), free.count());
        drop(state);
        self.changed.send_replace(());
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_free(state: &State, function: &Function) -> bool {
    (function.here.is_some() || function.vfio) && !state.held.contains_key(&function.id)
}
