//! How much may be promised: thin volumes take less than their size, up to a ratio.

use crate::backend::Capacity;

/// What a pool is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pool {
    /// The file system's size.
    pub(crate) total: u64,
    /// What is free in it.
    pub(crate) free: u64,
    /// The sizes of all volumes together.
    pub(crate) promised: u64,
    /// How much may be promised, in percent of the total: 100 is no over-provisioning.
    pub(crate) percent: u32,
    /// What must stay free for the volumes that exist: below it nothing new is made.
    pub(crate) reserve: u64,
    /// The smallest and the largest volume of the format.
    pub(crate) bounds: (u64, u64),
}

impl Pool {
    /// What may still be promised.
    pub(crate) fn capacity(&self) -> Capacity {
        let limit = u128::from(self.total) * u128::from(self.percent) / 100;
        let rest = limit.saturating_sub(u128::from(self.promised));
        let (smallest, most) = self.bounds;
        let available = if self.free <= self.reserve {
            0
        } else {
            u64::try_from(rest).unwrap_or(u64::MAX)
        };
        Capacity {
            available,
            largest: (available / smallest * smallest).min(most),
            smallest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_accepted_never_exceeds_the_ratio(
            total in 0u64..1 << 50, promised in 0u64..1 << 52, percent in 0u32..5000, free in 0u64..1 << 50,
        ) {
            let pool = Pool { total, free, promised, percent, reserve: 1 << 20, bounds: (4096, 1 << 46) };
            let capacity = pool.capacity();
            prop_assert!(capacity.largest <= capacity.available);
            if capacity.available > 0 {
                let after = u128::from(promised) + u128::from(capacity.available);
                prop_assert!(after <= u128::from(total) * u128::from(percent) / 100);
                prop_assert!(free > 1 << 20);
            }
        }
    }
}
