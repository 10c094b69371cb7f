//! Which link names ovs-vswitchd may still hold.
//!
//! It keeps an open link by its name. Where a port goes and another one of the same name comes before it has looked, it
//! keeps the dead link, and the new port is deaf. `Open_vSwitch.next_cfg` numbers the changes, `cur_cfg` says up to which
//! one it has looked (ovs-vswitchd.conf.db(5)).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Names that were given up, each with the change that did it.
#[derive(Debug, Default)]
pub(crate) struct Vacancies(Mutex<HashMap<String, i64>>);

impl Vacancies {
    /// Notes that change `next` gives names up, and forgets all that lie behind `current`.
    pub(crate) fn note(&self, names: impl IntoIterator<Item = String>, next: i64, current: i64) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, change| *change > current);
        held.extend(names.into_iter().map(|name| (name, next)));
    }

    /// Whether nobody holds the name once everything up to `current` was looked at.
    pub(crate) fn is_free(&self, name: &str, current: i64) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(name).is_none_or(|change| *change <= current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free_when_its_going_was_looked_at() {
        let vacancies = Vacancies::default();
        vacancies.note(["a".to_owned()], 7, 5);
        assert!(!vacancies.is_free("a", 6) && vacancies.is_free("b", 6));
        assert!(vacancies.is_free("a", 7));
        vacancies.note(["b".to_owned()], 8, 7);
        assert_eq!(vacancies.0.lock().unwrap().len(), 1);
    }
}
