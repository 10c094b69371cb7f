//! What two releases have in common.

use std::ops::RangeInclusive;

/// The versions of the protocol that this release speaks: its own, and that of the release before.
pub const VERSIONS: RangeInclusive<u32> = 1..=1;
/// What this release can do beyond its version.
pub const FEATURES: &[&str] = &[];

/// What one side speaks.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    pub(crate) versions: RangeInclusive<u32>,
    pub(crate) features: &'static [&'static str],
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            versions: VERSIONS,
            features: FEATURES,
        }
    }
}

impl Dialect {
    /// What a side says in Hello: the newest.
    pub(crate) fn newest(&self) -> u32 {
        *self.versions.end()
    }

    pub(crate) fn features(&self) -> Vec<String> {
        self.features.iter().map(|&f| f.to_owned()).collect()
    }

    /// What both speak, if `theirs` is the newest that the other side does: the older side's, unless this one has forgotten it.
    pub(crate) fn common(&self, theirs: u32) -> Option<u32> {
        let version = theirs.min(self.newest());
        self.versions.contains(&version).then_some(version)
    }

    /// What both can do, in our order.
    pub(crate) fn common_features(&self, theirs: &[String]) -> Vec<String> {
        let both = self.features.iter();
        both.filter(|ours| theirs.iter().any(|theirs| theirs == *ours))
            .map(|&feature| feature.to_owned())
            .collect()
    }

    /// For sentences.
    pub(crate) fn spoken(&self) -> String {
        let (oldest, newest) = (self.versions.start(), self.versions.end());
        if oldest == newest {
            format!("version {newest}")
        } else {
            format!("versions {oldest} to {newest}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_side_counts_unless_it_is_forgotten() {
        let ours = Dialect {
            versions: 3..=4,
            features: &["a", "b"],
        };
        assert_eq!(ours.common(3), Some(3));
        assert_eq!(ours.common(4), Some(4));
        assert_eq!(ours.common(5), Some(4));
        assert_eq!(ours.common(2), None);
        assert_eq!(ours.common(0), None);
        assert_eq!(ours.common_features(&["x".into(), "b".into()]), ["b"]);
        assert_eq!(ours.spoken(), "versions 3 to 4");
        assert_eq!(Dialect::default().spoken(), "version 1");
    }
}
