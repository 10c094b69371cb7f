use std::collections::BTreeMap;

use proptest::prelude::*;

use super::plan::{Action, Observed, Place, PodState, Seen, plan};
use crate::attachment::AttachmentId;
use crate::host::function::FunctionId;

fn id(container: u32) -> AttachmentId {
    AttachmentId {
        container: format!("c{container}"),
        ifname: "eth0".to_owned(),
    }
}

fn function(number: u32) -> FunctionId {
    FunctionId {
        physical: 0,
        r#virtual: Some(number),
    }
}

/// What the world is after an action, as the actions promise.
fn apply(mut world: Observed, actions: &[Action]) -> Observed {
    for action in actions {
        match action {
            Action::Remove(id) => {
                let at = world
                    .records
                    .iter()
                    .position(|seen| seen.id == *id)
                    .unwrap();
                let gone = world.records.remove(at);
                if let Some(place @ Place::Home { .. }) = world.places.get_mut(&gone.function) {
                    *place = Place::Home { tidy: true };
                }
            }
            Action::Place(id) => {
                let seen = world.records.iter().find(|seen| seen.id == *id).unwrap();
                world.places.insert(seen.function, Place::Away);
            }
            Action::Restore(function) => {
                world.places.insert(*function, Place::Home { tidy: true });
            }
        }
    }
    world
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        any::<bool>().prop_map(|tidy| Place::Home { tidy }),
        Just(Place::Away),
        Just(Place::Vfio),
    ]
}

fn pod() -> impl Strategy<Value = PodState> {
    prop_oneof![
        Just(PodState::Host),
        Just(PodState::Alive),
        Just(PodState::Gone)
    ]
}

fn world() -> impl Strategy<Value = Observed> {
    // Each function is held by one attachment at most.
    let held = proptest::collection::btree_map(0..8u32, (any::<bool>(), pod()), 0..8);
    let places = proptest::collection::btree_map(0..10u32, place(), 0..10);
    (held, places).prop_map(|(held, places)| Observed {
        records: held
            .into_iter()
            .map(|(number, (whole, pod))| Seen {
                id: id(number),
                whole,
                function: function(number),
                pod,
            })
            .collect(),
        places: places
            .into_iter()
            .map(|(number, place)| (function(number), place))
            .collect(),
    })
}

proptest! {
    #[test]
    fn a_plan_after_an_apply_is_empty(world in world()) {
        let after = apply(world.clone(), &plan(&world));
        prop_assert_eq!(plan(&after), Vec::new());
    }

    /// An attachment that is whole stays as long as its pod does, whatever the card does meanwhile.
    #[test]
    fn what_lives_stays(world in world()) {
        let after = apply(world.clone(), &plan(&world));
        for seen in world.records.iter().filter(|seen| seen.whole && seen.pod != PodState::Gone) {
            prop_assert!(after.records.contains(seen));
        }
        for seen in &after.records {
            prop_assert!(seen.whole);
        }
    }
}

#[test]
fn a_function_that_came_back_goes_to_its_pod_and_that_of_a_dead_pod_is_free() {
    let seen = |number, whole, pod| Seen {
        id: id(number),
        whole,
        function: function(number),
        pod,
    };
    let home = Place::Home { tidy: true };
    let world = Observed {
        records: vec![
            seen(0, true, PodState::Alive),
            seen(1, true, PodState::Gone),
            seen(2, false, PodState::Alive),
            seen(3, true, PodState::Alive),
            seen(4, true, PodState::Host),
            seen(5, true, PodState::Alive),
        ],
        places: BTreeMap::from([
            (function(0), home),
            (function(1), home),
            (function(2), Place::Away),
            (function(3), Place::Away),
            (function(4), Place::Home { tidy: false }),
            (function(7), Place::Home { tidy: false }),
        ]),
    };
    let steps = [
        Action::Place(id(0)),
        Action::Remove(id(1)),
        Action::Remove(id(2)),
        Action::Restore(function(7)),
    ];
    assert_eq!(plan(&world), steps);
}
