//! Which mounts ADDs that are under way need: before their record says so.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Names of mounts, each with the number of ADDs that need it.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<BTreeMap<String, usize>>);

/// One claim, as long as it lives.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    all: &'a Claims,
    mount: String,
}

impl Claims {
    /// Keeps a mount until the claim is dropped.
    pub(super) fn claim(&self, mount: &str) -> Claim<'_> {
        let mut claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *claims.entry(mount.to_owned()).or_default() += 1;
        Claim {
            all: self,
            mount: mount.to_owned(),
        }
    }

    /// Whether an ADD needs the mount now.
    pub(super) fn holds(&self, mount: &str) -> bool {
        let claims = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        claims.contains_key(mount)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut claims = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = claims.get_mut(&self.mount) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&self.mount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_held_until_the_last_claim_is_gone() {
        let claims = Claims::default();
        let (one, two) = (claims.claim("a"), claims.claim("a"));
        drop(one);
        assert!(claims.holds("a") && !claims.holds("b"));
        drop(two);
        assert!(!claims.holds("a"));
    }
}
