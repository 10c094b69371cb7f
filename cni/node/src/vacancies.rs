//! Which link names ovs-vswitchd may still hold.
//!
//! It keeps an open link by its name. Where a port goes and another one of the same name comes before it has looked, it
//! keeps the dead link, and the new port is deaf. `Open_vSwitch.next_cfg` numbers the changes, `cur_cfg` says up to which
//! one it has looked (ovs-vswitchd.conf.db(5)). A database that was made anew counts anew: its root row is another.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use ovsdb::Uuid;

/// How far ovs-vswitchd has looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LookedAt {
    /// The root row of the database.
    pub(crate) database: Uuid,
    /// `cur_cfg`.
    pub(crate) change: i64,
}

/// Names that were given up, each with the change that did it.
#[derive(Debug, Default)]
pub(crate) struct Vacancies(Mutex<HashMap<String, LookedAt>>);

impl Vacancies {
    /// Notes that change `next` gives names up, and forgets all that lie behind.
    pub(crate) fn note(
        &self,
        names: impl IntoIterator<Item = String>,
        next: i64,
        looked_at: LookedAt,
    ) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, needs| needs.is_to_come(looked_at));
        let needs = LookedAt {
            change: next,
            ..looked_at
        };
        held.extend(names.into_iter().map(|name| (name, needs)));
    }

    /// Whether nobody holds the name by now.
    pub(crate) fn is_free(&self, name: &str, looked_at: LookedAt) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.get(name)
            .is_none_or(|needs| !needs.is_to_come(looked_at))
    }
}

impl LookedAt {
    /// Whether ovs-vswitchd has yet to look at this change. One of another database it never will, and it has begun anew with that.
    fn is_to_come(self, looked_at: Self) -> bool {
        self.database == looked_at.database && self.change > looked_at.change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free_when_its_going_was_looked_at() {
        let vacancies = Vacancies::default();
        let database = Uuid::from_u128(1);
        let at = |change| LookedAt { database, change };
        vacancies.note(["a".to_owned()], 7, at(5));
        assert!(!vacancies.is_free("a", at(6)) && vacancies.is_free("b", at(6)));
        assert!(vacancies.is_free("a", at(7)));
        let anew = LookedAt {
            database: Uuid::from_u128(2),
            change: 0,
        };
        assert!(vacancies.is_free("a", anew));
        vacancies.note(["b".to_owned()], 8, at(7));
        assert_eq!(vacancies.0.lock().unwrap().len(), 1);
    }
}
