//! A disk that is taken for a moment. Who sets up a loop device claims the number that was free when it asked for one, and gives it
//! back when another was quicker (Linux, `loop_configure`): by then it may be a volume's. So who finds a disk taken looks a few times
//! before it believes that.

use std::time::Duration;

/// Nothing tells when a claim is given back.
pub(crate) const LOOKS: usize = 4;
/// Between two looks.
pub(crate) const MOMENT: Duration = Duration::from_millis(50);

/// What `attempt` comes to once the disk is not taken, or after the last look. Blocks.
#[expect(
    clippy::disallowed_methods,
    reason = "callers are on threads that may block"
)]
pub(crate) fn patiently<T>(mut attempt: impl FnMut() -> T, taken: impl Fn(&T) -> bool) -> T {
    for _ in 1..LOOKS {
        let came = attempt();
        if !taken(&came) {
            return came;
        }
        std::thread::sleep(MOMENT);
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_taken_for_a_moment_is_had_and_who_stays_taken_is_told() {
        for (free_after, had) in [(0, true), (LOOKS - 1, true), (LOOKS, false)] {
            let mut looks = 0;
            let look = || {
                looks += 1;
                looks > free_after
            };
            assert_eq!(patiently(look, |had| !had), had);
            assert_eq!(looks, LOOKS.min(free_after + 1));
        }
    }
}
