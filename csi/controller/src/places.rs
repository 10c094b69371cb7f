//! A node's places for volumes, while some are about to be taken: calls for different volumes do not wait for each other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Who is about to take a place, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places(Arc<Mutex<Vec<(String, String)>>>);

/// A place that is about to be taken; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    node: String,
    volume: String,
    /// Volumes that came before this one.
    before: BTreeSet<String>,
}

impl Places {
    /// Lines up for a place at a node.
    pub(crate) fn line_up(&self, node: &str, volume: &str) -> Place {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at_node = all.iter().filter(|(other, _)| other == node);
        let before = at_node.map(|(_, volume)| volume.clone()).collect();
        all.push((node.to_owned(), volume.to_owned()));
        Place {
            places: self.clone(),
            node: node.to_owned(),
            volume: volume.to_owned(),
            before,
        }
    }
}

impl Place {
    /// How many places are taken, or will be by those who came before. `there`: the volumes at the node, read after this
    /// one lined up, so that whoever left the line meanwhile is among them or gave up.
    pub(crate) fn taken(&self, there: impl IntoIterator<Item = String>) -> usize {
        let mut all = self.before.clone();
        all.extend(there);
        all.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = |(node, volume): &(String, String)| *node == self.node && *volume == self.volume;
        if let Some(at) = all.iter().position(mine) {
            all.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_in_line_has_the_last_place() {
        let places = Places::default();
        let (a, b) = (places.line_up("n", "a"), places.line_up("n", "b"));
        let elsewhere = places.line_up("m", "c");
        let there = || ["x".to_owned()];
        assert_eq!(
            (a.taken(there()), b.taken(there()), elsewhere.taken([])),
            (1, 2, 0)
        );
        // Its export is made: counted once.
        assert_eq!(b.taken(["x".to_owned(), "a".to_owned()]), 2);
        drop((a, b, elsewhere));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
