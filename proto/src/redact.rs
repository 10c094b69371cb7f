//! What stands in the place of a secret when a message is printed.

use std::fmt;

/// Says that something is there and how much of it, not what.
pub(crate) struct Redacted {
    count: usize,
    of: &'static str,
}

impl Redacted {
    /// A map.
    #[cfg(feature = "csi")]
    pub(crate) fn keys(count: usize) -> Self {
        Self { count, of: "keys" }
    }

    /// A list.
    #[cfg(feature = "csi")]
    pub(crate) fn values(count: usize) -> Self {
        Self {
            count,
            of: "values",
        }
    }

    /// A string or bytes.
    #[cfg(any(feature = "kubevirt", feature = "opi"))]
    pub(crate) fn bytes(count: usize) -> Self {
        Self { count, of: "bytes" }
    }
}

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[redacted, {} {}]", self.count, self.of)
    }
}
