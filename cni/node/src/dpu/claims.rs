//! Which attachment of the host holds which function, and which attempts are too old. Pure.
//!
//! The host's attempts rise within its boot: of two attachments that claim one interface or one function the higher attempt is the
//! younger, and gets it: the function as soon as its row was found, for until then it could not use it. What was detached or lost its function is remembered for as long as a late request of it may come. A full
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
    /// It has the function; else it still waits for its row.
    holds: bool,
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
                    holds: true,
                    lost: CancellationToken::new(),
                    active: 0,
                };
                state.held.insert(record.id.clone(), claim);
            }
        }
        Self(Mutex::new(state))
    }

    /// Claims a function for an attachment. Who has it keeps it until [`Taken::hold`].
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
        let mut others = state.others(id, function);
        if let Some((other, _)) = others.find(|(_, claim)| claim.attempt >= attempt) {
            return Err(Refused::Function(other.clone()));
        }
        drop(others);
        Ok(self.put(&mut state, id, attempt, function))
    }

    /// Claims it on the word of a full set, whatever the attempts are; and who holds it no more, to be removed before it is plugged.
    pub(super) fn take_of_set(
        &self,
        id: &AttachmentId,
        attempt: u64,
        function: CardFunction,
    ) -> (Taken<'_>, Vec<AttachmentId>) {
        let mut state = self.state();
        let taken = self.put(&mut state, id, attempt, function);
        let displaced = state.displace(id, function, |_| true);
        (taken, displaced)
    }

    fn put(
        &self,
        state: &mut State,
        id: &AttachmentId,
        attempt: u64,
        function: CardFunction,
    ) -> Taken<'_> {
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
                    holds: false,
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
        let state = self.state();
        state.held.values().filter(|claim| claim.holds).count()
    }

    /// No code under this lock leaves a half-made change when it panics.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The claims of other attachments on a function.
    fn others(
        &self,
        id: &AttachmentId,
        function: CardFunction,
    ) -> impl Iterator<Item = (&AttachmentId, &Claim)> {
        let all = self.held.iter();
        all.filter(move |(other, claim)| *other != id && claim.function == function)
    }

    /// Gives a function to an attachment that claims it, and ends the claims of those others that it takes it from: which.
    fn displace(
        &mut self,
        id: &AttachmentId,
        function: CardFunction,
        from: impl Fn(&Claim) -> bool,
    ) -> Vec<AttachmentId> {
        let others = self.others(id, function);
        let displaced: Vec<AttachmentId> = others
            .filter(|(_, claim)| from(claim))
            .map(|(other, _)| other.clone())
            .collect();
        for other in &displaced {
            if let Some(claim) = self.held.remove(other) {
                claim.lost.cancel();
                self.bury(other.clone(), claim.attempt);
            }
        }
        if let Some(claim) = self.held.get_mut(id) {
            claim.holds = true;
        }
        displaced
    }

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
    /// Its row was found: the function is its own now. Those that had it until now, or waited for it, are to be removed before it is
    /// plugged.
    pub(super) fn hold(&self) -> Result<Vec<AttachmentId>, Refused> {
        let mut state = self.all.state();
        let claim = state.held.get(&self.id);
        let Some(function) = claim
            .filter(|claim| claim.attempt == self.attempt)
            .map(|claim| claim.function)
        else {
            let later = claim.map(|claim| claim.attempt);
            let past = state.past.get(&self.id).copied();
            return Err(Refused::Interface(later.or(past).unwrap_or(self.attempt)));
        };
        let older = |other: &Claim| other.attempt < self.attempt;
        Ok(state.displace(&self.id, function, older))
    }

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
