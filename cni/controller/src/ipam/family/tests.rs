//! Order, restarts, size: by example and against a model.

use super::*;
use proptest::prelude::*;

#[test]
fn fresh_addresses_come_in_order_then_the_one_freed_longest_ago() {
    let mut family = Family::new(1, 6, [(1, 1)]);
    let first: Vec<u128> = (0..3).map(|_| family.pick().unwrap()).collect();
    assert_eq!(first, [2, 3, 4]);
    family.free(3);
    family.free(2);
    let rest: Vec<u128> = (0..4).map(|_| family.pick().unwrap()).collect();
    assert_eq!(rest, [5, 6, 3, 2]);
    assert_eq!(family.pick(), Err(PickError::Full));
    family.free(4);
    assert_eq!(family.pick(), Ok(4));
}

#[test]
fn a_restart_does_not_hand_out_what_was_just_freed() {
    let mut family = Family::new(1, 100, []);
    for _ in 0..10 {
        family.pick().unwrap();
    }
    family.free(4);
    let mut again = Family::new(1, 100, []);
    for ip in [1, 2, 3, 5, 6, 7, 8, 9, 10] {
        again.mark(ip);
    }
    again.restore(family.cursor().to_string().parse().unwrap());
    assert_eq!(again.pick(), Ok(11));
}

#[test]
fn a_restart_of_a_pool_that_has_wrapped_goes_on_around() {
    let mut family = Family::new(1, 5, []);
    for _ in 0..5 {
        family.pick().unwrap();
    }
    family.free(4);
    family.free(2);
    assert_eq!(family.pick(), Ok(4));
    // 2 is free since then; 3 is freed last of all, just before the end.
    family.free(3);
    let mut again = Family::new(1, 5, []);
    for ip in [1, 4, 5] {
        again.mark(ip);
    }
    again.restore(family.cursor());
    assert_eq!((again.pick(), again.pick()), (Ok(2), Ok(3)));
    assert_eq!(again.pick(), Err(PickError::Full));
}

#[test]
fn an_address_with_two_holders_is_free_when_both_gave_it_back() {
    let mut family = Family::new(1, 2, []);
    assert!(family.mark(1));
    assert!(!family.mark(1));
    family.free(1);
    assert_eq!(family.take(1), Err(PickError::Taken));
    family.free(1);
    assert_eq!(family.take(1), Ok(()));
}

#[test]
fn a_lifted_exclusion_makes_addresses_available() {
    let mut family = Family::new(1, 3, [(1, 2)]);
    assert_eq!(family.pick(), Ok(3));
    assert_eq!(family.pick(), Err(PickError::Full));
    family.reserve([]);
    assert_eq!(family.available(), 2);
    assert_eq!((family.pick(), family.pick()), (Ok(1), Ok(2)));
}

#[test]
fn a_large_range_costs_what_is_used() {
    let last = (1 << 64) - 1;
    let mut family = Family::new(1, last, [(1, 1 << 32)]);
    for expected in (1u128 << 32) + 1..(1 << 32) + 100_001 {
        assert_eq!(family.pick(), Ok(expected));
    }
    assert_eq!(family.used(), 100_000);
    assert_eq!(family.available(), last - (1 << 32) - 100_000);
}

proptest! {
    /// Against a model: never an address twice, never a reserved one, full only if full; and
    /// while nothing is asked for by name, the order is fresh first, then first freed.
    #[test]
    fn picks_are_unique_and_in_order(ops in prop::collection::vec(0u8..6, 1..400), reserved in 1u128..30) {
        let mut family = Family::new(1, 40, [(reserved, reserved + 3)]);
        let mut held: Vec<u128> = Vec::new();
        let mut expected: VecDeque<u128> =
            (1..=40).filter(|ip| *ip < reserved || *ip > reserved + 3).collect();
        for op in ops {
            if op < 4 {
                match family.pick() {
                    Ok(ip) => {
                        prop_assert_eq!(Some(ip), expected.pop_front());
                        held.push(ip);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, PickError::Full);
                        prop_assert!(expected.is_empty());
                    }
                }
            } else if !held.is_empty() {
                let ip = held.remove(usize::from(op) % held.len());
                prop_assert!(family.free(ip));
                expected.push_back(ip);
            }
            prop_assert_eq!(family.used(), held.len() as u128);
            prop_assert_eq!(family.available(), expected.len() as u128);
        }
    }

    /// With restarts and requests by name there is no such simple order, but still no address
    /// twice and nothing lost.
    #[test]
    fn restarts_lose_nothing(ops in prop::collection::vec((0u8..10, 1u128..=20), 1..300)) {
        let mut family = Family::new(1, 20, []);
        let mut held: HashSet<u128> = HashSet::new();
        for (op, ip) in ops {
            match op {
                0..4 => match family.pick() {
                    Ok(ip) => prop_assert!(held.insert(ip)),
                    Err(_) => prop_assert_eq!(held.len(), 20),
                },
                4 => match family.take(ip) {
                    Ok(()) => prop_assert!(held.insert(ip)),
                    Err(error) => {
                        prop_assert_eq!(error, PickError::Taken);
                        prop_assert!(held.contains(&ip));
                    }
                },
                5..9 => prop_assert_eq!(family.free(ip), held.remove(&ip)),
                _ => {
                    let cursor = family.cursor();
                    family = Family::new(1, 20, []);
                    for ip in &held {
                        family.mark(*ip);
                    }
                    family.restore(cursor);
                }
            }
        }
    }
}
