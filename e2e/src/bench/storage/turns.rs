//! Who goes first: no kind of work always follows the same other kind.

/// The order of a round: all of `0..kinds`, begun with another one each time.
pub(super) fn order(kinds: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..kinds).map(move |turn| (turn + round) % kinds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_kind_comes_once_in_a_round_and_first_in_one_of_them() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|r| super::order(3, r).collect()).collect();
        assert_eq!(rounds, [vec![0, 1, 2], vec![1, 2, 0], vec![2, 0, 1]]);
    }
}
