//! Which attachment of the host holds which function, and which attempts are too old. Pure.
//!
//! The host's attempts rise within its boot: of two attachments that claim one interface or one function the higher attempt is the
//! younger, and has it. What was detached or lost its function is remembered for as long as a late request of it may come. A full
//! set is the host's whole truth, and begins everything anew.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use super::representor::CardFunction;
use crate::attachment::{AttachmentId, Record};

/// Attachments that are over and are still remembered.
const PAST: usize = 4096;

/// A claim of an attachment.
#[derive(Debug, Clone)]
struct Claim {
    attempt: u64,
    function: CardFunction,
    /// Fires when a younger one takes it.
    lost: CancellationToken,
    /// Operations that are under way for it.
    active: usize,
}

#[derive(Debug, Default)]
struct State {
    held: HashMap<AttachmentId, Claim>,
    past: HashMap<AttachmentId, u64>,
    order: VecDeque<AttachmentId>,
}

/// All claims on this card.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<State>);

/// A claim as long as an operation works on it.
#[derive(Debug)]
pub(super) struct Taken<'a> {
    all: &'a Claims,
    id: AttachmentId,
    attempt: u64,
    /// Fires when a younger one takes it.
    pub(super) lost: CancellationToken,
    /// Those that hold the function no more: to be removed before it is plugged.
    pub(super) displaced: Vec<AttachmentId>,
}

/// Why a claim is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refused {
    /// A later attempt of the same interface is known.
    Interface(u64),
    /// Another attachment has the function by a later attempt.
    Function(AttachmentId),
}

impl Claims {
    /// What the journal says.
    pub(super) fn of(records: &[Record]) -> Self {
        let mut state = State::default();
        for record in records {
            if let Some(far) = record.far() {
                let claim = Claim {
                    attempt: far.attempt,
                    function: far.function,
                    lost: CancellationToken::new(),
                    active: 0,
                };
                state.held.insert(record.id.clone(), claim);
            }
        }
        Self(Mutex::new(state))
    }

    /// Claims a function for an attachment.
    pub(super) fn take(
        &self,
        id: &AttachmentId,
        attempt: u64,
        function: CardFunction,
    ) -> Result<Taken<'_>, Refused> {
        let mut state = self.state();
        if let Some(past) = state.past.get(id).filter(|past| **past >= attempt) {
            return Err(Refused::Interface(*past));
        }
        if let Some(held) = state.held.get(id)
            && (held.attempt > attempt || held.attempt == attempt && held.function != function)
        {
            return Err(Refused::Interface(held.attempt));
        }
        let mut others = state.held.iter().filter(|(other, _)| *other != id);
        let holder = others.find(|(_, claim)| claim.function == function);
        let displaced = match holder {
            Some((other, claim)) if claim.attempt >= attempt => {
                return Err(Refused::Function(other.clone()));
            }
            Some((other, _)) => vec![other.clone()],
            None => Vec::new(),
        };
        Ok(self.put(&mut state, id, attempt, function, displaced))
    }

    /// Claims it on the word of a full set, whatever the attempts are.
    pub(super) fn take_of_set(
        &self,
        id: &AttachmentId,
        attempt: u64,
        function: CardFunction,
    ) -> Taken<'_> {
        let mut state = self.state();
        let others = state.held.iter();
        let displaced = others
            .filter(|(other, claim)| *other != id && claim.function == function)
            .map(|(other, _)| other.clone())
            .collect();
        self.put(&mut state, id, attempt, function, displaced)
    }

    fn put(
        &self,
        state: &mut State,
        id: &AttachmentId,
        attempt: u64,
        function: CardFunction,
        displaced: Vec<AttachmentId>,
    ) -> Taken<'_> {
        for other in &displaced {
            if let Some(claim) = state.held.remove(other) {
                claim.lost.cancel();
                state.bury(other.clone(), claim.attempt);
            }
        }
        let same = state
            .held
            .get_mut(id)
            .filter(|held| held.attempt == attempt);
        let lost = match same {
            Some(held) if held.function == function => {
                held.active += 1;
                held.lost.clone()
            }
            _ => {
                let claim = Claim {
                    attempt,
                    function,
                    lost: CancellationToken::new(),
                    active: 1,
                };
                let lost = claim.lost.clone();
                if let Some(older) = state.held.insert(id.clone(), claim) {
                    older.lost.cancel();
                }
                lost
            }
        };
        Taken {
            all: self,
            id: id.clone(),
            attempt,
            lost,
            displaced,
        }
    }

    /// An attachment is over. `false`: a later attempt has the interface, and nothing is over.
    pub(super) fn end(&self, id: &AttachmentId, attempt: u64) -> bool {
        let mut state = self.state();
        if let Some(held) = state.held.get(id) {
            if held.attempt > attempt {
                return false;
            }
            held.lost.cancel();
            state.held.remove(id);
        }
        state.bury(id.clone(), attempt);
        true
    }

    /// A full set begins: what it does not name and nobody works on is forgotten, and so is what is past.
    pub(super) fn begin_anew(&self, named: impl Fn(&AttachmentId) -> bool) {
        let mut state = self.state();
        state.held.retain(|id, claim| claim.active > 0 || named(id));
        state.past.clear();
        state.order.clear();
    }

    /// Whether an operation works on the attachment.
    pub(super) fn is_active(&self, id: &AttachmentId) -> bool {
        let state = self.state();
        state.held.get(id).is_some_and(|claim| claim.active > 0)
    }

    /// The attempt that holds an interface.
    pub(super) fn attempt(&self, id: &AttachmentId) -> Option<u64> {
        self.state().held.get(id).map(|claim| claim.attempt)
    }

    /// How many functions are held.
    pub(super) fn len(&self) -> usize {
        self.state().held.len()
    }

    /// No code under this lock leaves a half-made change when it panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bury(&mut self, id: AttachmentId, attempt: u64) {
        let past = self.past.entry(id.clone()).or_insert_with(|| {
            self.order.push_back(id);
            attempt
        });
        *past = attempt.max(*past);
        if self.order.len() > PAST
            && let Some(oldest) = self.order.pop_front()
        {
            self.past.remove(&oldest);
        }
    }
}

impl Taken<'_> {
    /// The operation failed: nobody holds the function, and the same attempt may be tried again.
    pub(super) fn give_back(&self) {
        let mut state = self.all.state();
        if state
            .held
            .get(&self.id)
            .is_some_and(|claim| claim.attempt == self.attempt)
        {
            state.held.remove(&self.id);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let mut state = self.all.state();
        if let Some(claim) = state.held.get_mut(&self.id)
            && claim.attempt == self.attempt
        {
            claim.active = claim.active.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
