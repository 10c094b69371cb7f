use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn id(sandbox: u8) -> AttachmentId {
    AttachmentId::of_host("h1", &format!("s{sandbox}"), "eth0")
}

fn function(vf: u32) -> CardFunction {
    CardFunction {
        physical: 0,
        vf: Some(vf),
    }
}

#[test]
fn the_younger_attempt_gets_the_function_with_its_row_and_the_older_one_hears_of_it() {
    let claims = Claims::default();
    let old = claims.take(&id(1), 5, function(0)).unwrap();
    assert_eq!((old.hold(), claims.len()), (Ok(vec![]), 1));
    let refused = claims.take(&id(2), 4, function(0)).unwrap_err();
    assert_eq!(refused, Refused::Function(id(1)));
    assert!(!old.lost.is_cancelled());
    // One that gives up before its row came has touched nothing.
    let hopeless = claims.take(&id(3), 6, function(0)).unwrap();
    hopeless.give_back();
    drop(hopeless);
    let new = claims.take(&id(2), 6, function(0)).unwrap();
    assert!(!old.lost.is_cancelled() && claims.len() == 1);
    // While it waits nobody older may begin.
    let refused = claims.take(&id(4), 3, function(0)).unwrap_err();
    assert!(matches!(refused, Refused::Function(_)));
    assert_eq!(new.hold(), Ok(vec![id(1)]));
    assert!(old.lost.is_cancelled());
    assert_eq!(old.hold(), Err(Refused::Interface(5)));
    // Its own failure takes nothing from the younger one, and it cannot come back.
    old.give_back();
    drop(old);
    assert_eq!(claims.attempt(&id(2)), Some(6));
    assert_eq!(
        claims.take(&id(1), 5, function(3)).unwrap_err(),
        Refused::Interface(5)
    );
    // A late DEL of it touches nothing of the other.
    assert!(claims.end(&id(1), 5));
    assert!(claims.is_active(&id(2)));
}

#[test]
fn a_repetition_is_the_same_claim_and_an_older_attempt_is_refused() {
    let claims = Claims::default();
    let first = claims.take(&id(1), 5, function(0)).unwrap();
    let again = claims.take(&id(1), 5, function(0)).unwrap();
    assert_eq!((first.hold(), again.hold()), (Ok(vec![]), Ok(vec![])));
    assert!(!first.lost.is_cancelled());
    for (attempt, vf) in [(4, 0), (5, 1)] {
        let refused = claims.take(&id(1), attempt, function(vf)).unwrap_err();
        assert_eq!(refused, Refused::Interface(5));
    }
    drop(first);
    assert!(claims.is_active(&id(1)));
    drop(again);
    assert!(!claims.is_active(&id(1)));
    assert!(!claims.end(&id(1), 4));
    assert!(claims.end(&id(1), 5));
    assert_eq!(
        claims.take(&id(1), 5, function(0)).unwrap_err(),
        Refused::Interface(5),
        "an ADD that comes after its DEL"
    );
    assert!(claims.take(&id(1), 6, function(0)).is_ok());
}

#[test]
fn a_full_set_begins_everything_anew() {
    let claims = Claims::default();
    drop(claims.take(&id(1), 50, function(0)).unwrap());
    drop(claims.take(&id(2), 51, function(1)).unwrap());
    assert!(claims.end(&id(2), 51));
    let under_way = claims.take(&id(3), 52, function(2)).unwrap();
    // The host was booted: its attempts begin at the bottom.
    claims.begin_anew(|_| false);
    assert_eq!(claims.attempt(&id(1)), None);
    assert!(claims.take(&id(2), 1, function(1)).is_ok());
    let (_taken, displaced) = claims.take_of_set(&id(4), 2, function(2));
    assert_eq!(displaced, [id(3)]);
    assert!(under_way.lost.is_cancelled());
}

#[test]
fn what_is_past_is_bounded() {
    let claims = Claims::default();
    for number in 0..2 * PAST {
        let id = AttachmentId::of_host("h1", &number.to_string(), "eth0");
        assert!(claims.end(&id, 1));
    }
    assert_eq!(claims.state().past.len(), PAST);
}

proptest! {
    /// Whatever comes in whatever order: a function has one holder at most, and nobody younger was there before.
    #[test]
    fn one_holder_per_function(
        steps in proptest::collection::vec((0..4u8, 1..9u64, 0..3u32, 0..3u8), 0..40),
    ) {
        let claims = Claims::default();
        let mut highest: BTreeMap<u8, u64> = BTreeMap::new();
        for (sandbox, attempt, vf, what) in steps {
            let before = claims.attempt(&id(sandbox));
            if what > 0 {
                let taken = claims.take(&id(sandbox), attempt, function(vf));
                let known = highest.get(&sandbox).copied().unwrap_or_default();
                if let Ok(taken) = taken {
                    prop_assert!(attempt >= known);
                    if what > 1 {
                        prop_assert!(taken.hold().is_ok());
                        let lost = taken.lost.is_cancelled();
                        prop_assert!(!lost);
                    }
                    highest.insert(sandbox, attempt);
                } else {
                    prop_assert_eq!(claims.attempt(&id(sandbox)), before);
                }
            } else if claims.end(&id(sandbox), attempt) {
                let known = highest.entry(sandbox).or_default();
                *known = attempt.max(*known);
            }
            let state = claims.state();
            let holders = state.held.values().filter(|claim| claim.holds);
            let mut functions: Vec<_> = holders.map(|claim| claim.function).collect();
            let all = functions.len();
            functions.sort();
            functions.dedup();
            prop_assert_eq!(functions.len(), all);
        }
    }
}
