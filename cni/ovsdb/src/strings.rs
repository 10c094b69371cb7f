//! What repeats in the text of updates is kept once.

use crate::atom::Atom;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;

/// Lets strings that repeat, and the keys of maps that have the same ones, share one allocation.
/// Bounded: a slot holds the last one that fell into it.
pub(crate) struct Strings {
    texts: Box<[Option<Arc<str>>]>,
    keys: Box<[Option<Arc<[Atom]>>]>,
    hasher: RandomState,
}

impl Strings {
    const SLOTS: usize = 4096;
    /// Longer strings repeat too seldom to be worth a hash.
    const LONGEST: usize = 64;

    pub(crate) fn new() -> Self {
        Strings {
            texts: vec![None; Self::SLOTS].into(),
            keys: vec![None; Self::SLOTS].into(),
            hasher: RandomState::new(),
        }
    }

    pub(crate) fn share(&mut self, text: &str) -> Arc<str> {
        if text.len() > Self::LONGEST {
            return Arc::from(text);
        }
        let slot = &mut self.texts[slot(self.hasher.hash_one(text))];
        match slot {
            Some(shared) if **shared == *text => shared.clone(),
            _ => slot.insert(Arc::from(text)).clone(),
        }
    }

    /// The keys of a map. Only those that are strings are looked for.
    pub(crate) fn share_keys(&mut self, keys: Vec<Atom>) -> Arc<[Atom]> {
        let mut hasher = self.hasher.build_hasher();
        for key in &keys {
            match key {
                Atom::String(text) => text.hash(&mut hasher),
                _ => return keys.into(),
            }
        }
        let slot = &mut self.keys[slot(hasher.finish())];
        match slot {
            Some(shared) if **shared == *keys => shared.clone(),
            _ => slot.insert(keys.into()).clone(),
        }
    }
}

fn slot(hash: u64) -> usize {
    usize::try_from(hash % Strings::SLOTS as u64).unwrap_or(0)
}

impl fmt::Debug for Strings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Strings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_strings_share_their_text() {
        let mut strings = Strings::new();
        let first = strings.share("external");
        assert!(Arc::ptr_eq(&first, &strings.share("external")));
    }

    #[test]
    fn the_same_keys_are_shared_and_others_are_not() {
        let mut strings = Strings::new();
        let mut keys =
            |keys: &[&str]| strings.share_keys(keys.iter().copied().map(Atom::from).collect());
        let first = keys(&["a", "b"]);
        assert!(Arc::ptr_eq(&first, &keys(&["a", "b"])));
        assert_eq!(*keys(&["a", "bc"]), [Atom::from("a"), Atom::from("bc")]);
        let numbers = strings.share_keys(vec![Atom::Integer(1)]);
        assert_eq!(*numbers, [Atom::Integer(1)]);
    }
}
