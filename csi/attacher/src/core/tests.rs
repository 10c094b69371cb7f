use proptest::prelude::*;
use proto::attacher::v1::{AttachmentSpec, State};
use proto::card::v1::{Function, InventoryResponse, SourceState};
use proto::volume::v1::exposure::Kind;
use proto::volume::v1::{
    BlockDeviceSource, Device, Epoch, Exposure, ExposureKind, FunctionId, Limits, LocalBlockDevice,
    NvmeFunction, Source, VhostUserBlk, VirtioBlkFunction, device, source,
};
use tonic::Code;
use uuid::Uuid;

use super::assess::{asks_for_users, assess, lost, noted};
use super::function::choose;
use super::plan::{Step, plan};
use super::seen::{self, HostEnd, Seen};
use super::wanted::{Content, Wanted, wanted};
use crate::id::Id;
use crate::record::{Goal, Record};
use crate::wire::Wire;

const SIZE: u64 = 1 << 20;

/// What a card that keeps its promises has after `step`; an order that no card accepts panics.
fn after(mut seen: Seen, step: &Step) -> Seen {
    match step {
        Step::CreateSource(volume) => {
            assert!(seen.source.is_none(), "a source of that name exists");
            seen.source = Some(seen::Source {
                volume: volume.clone(),
                state: SourceState::Connected,
                message: String::new(),
            });
        }
        Step::SetLimits(_) => assert!(seen.source.is_some(), "no source to be limited"),
        Step::Create(content) => {
            assert!(seen.source.is_some(), "no source to be exposed");
            let needs = match content {
                Content::Namespace { .. } | Content::Controller { .. } => 1,
                _ => 0,
            };
            assert!(seen.parts.len() >= needs, "no subsystem");
            let old = seen.parts.insert(content.part(), content.clone());
            let equal = old.is_none_or(|old| old == *content);
            assert!(equal, "another object of that name exists");
        }
        Step::Resize(size) => seen.device.as_mut().unwrap().device.size_bytes = *size,
        Step::Delete { part, .. } => {
            assert!(seen.parts.remove(part).is_some(), "nothing to delete");
            assert!(
                seen.parts.keys().all(|left| left < part),
                "deleted under another"
            );
        }
        Step::DeleteSource => {
            assert!(seen.parts.is_empty(), "deleted under its users");
            seen.source = None;
        }
    }
    let whole = seen.source.is_some()
        && match seen.parts.keys().next() {
            Some(super::wanted::Part::Subsystem) => seen.parts.len() == 3,
            other => other.is_some(),
        };
    if !whole {
        seen.device = None;
    } else if seen.device.is_none() {
        seen.device = Some(end(SIZE, false));
    }
    seen
}

fn end(size: u64, in_use: bool) -> HostEnd {
    HostEnd {
        device: Device {
            kind: ExposureKind::LocalBlockDevice.into(),
            size_bytes: size,
            address: Some(device::Address::Path("/dev/loop7".to_owned())),
            ..Device::default()
        },
        in_use,
    }
}

/// What the record remembers of a step that was done.
fn remember(record: &mut Record, step: &Step) {
    match step {
        Step::SetLimits(limits) => record.limits = Some(Wire(*limits)),
        Step::CreateSource(_) | Step::DeleteSource => record.limits = None,
        _ => {}
    }
}

fn record(exposure: u8, path: u8, read_only: bool, iops: u64, size: u64) -> Record {
    let id = Id {
        host: "n1".to_owned(),
        uuid: Uuid::from_u128(7),
    };
    let kind = match exposure {
        0 => Kind::LocalBlockDevice(LocalBlockDevice::default()),
        1 => Kind::VhostUserBlk(VhostUserBlk { queues: 2 }),
        2 => Kind::NvmeFunction(NvmeFunction::default()),
        _ => Kind::VirtioBlkFunction(VirtioBlkFunction::default()),
    };
    let source = source::Kind::BlockDevice(BlockDeviceSource {
        path: format!("/dev/disk{path}"),
    });
    let spec = AttachmentSpec {
        source: Some(Source { kind: Some(source) }),
        exposure: Some(Exposure { kind: Some(kind) }),
        read_only,
        size_bytes: size,
        serial: "S".to_owned(),
        limits: (iops > 0).then(|| Limits {
            iops,
            ..Limits::default()
        }),
        ..AttachmentSpec::default()
    };
    let mut record = Record::new(&id, spec, 1);
    record.function = (exposure > 1).then(|| Wire(FunctionId::default()));
    record
}

fn any_record() -> impl Strategy<Value = Record> {
    let size = prop_oneof![Just(0), Just(SIZE), Just(2 * SIZE)];
    (0..4u8, 0..2u8, any::<bool>(), 0..2u64, size).prop_map(|(e, p, r, i, s)| record(e, p, r, i, s))
}

/// Plans until nothing is left to do, and is killed after `kill` steps in all, if that comes first.
fn converge(record: &mut Record, mut seen: Seen, mut kill: usize) -> Seen {
    for _ in 0..4 {
        let steps = plan(&wanted(record), &seen);
        if steps.is_empty() {
            return seen;
        }
        for step in steps {
            if kill == 0 {
                return seen;
            }
            kill -= 1;
            seen = after(seen, &step);
            remember(record, &step);
        }
    }
    panic!("it never ends: {:?}", plan(&wanted(record), &seen));
}

proptest! {
    #[test]
    fn a_plan_made_after_apply_is_empty(mut record in any_record(), gone in any::<bool>()) {
        let seen = converge(&mut record, Seen::default(), usize::MAX);
        prop_assert_eq!(plan(&wanted(&record), &seen), vec![]);
        if gone {
            record.goal = Goal::Gone { force: false };
            let seen = converge(&mut record, seen, usize::MAX);
            prop_assert!(seen.is_nothing());
            prop_assert_eq!(plan(&wanted(&record), &seen), vec![]);
        }
    }

    #[test]
    fn every_crash_point_converges_to_the_last_goal(
        mut before in any_record(), made in 0..8usize, mut now in any_record(), done in 0..8usize, gone in any::<bool>(),
    ) {
        let seen = converge(&mut before, Seen::default(), made);
        // The card may even have objects of an attachment that this journal never knew.
        now.limits = before.limits.clone();
        let seen = converge(&mut now, seen, done);
        if gone {
            now.goal = Goal::Gone { force: true };
        }
        let seen = converge(&mut now, seen, usize::MAX);
        match wanted(&now) {
            Wanted::Gone { .. } => prop_assert!(seen.is_nothing()),
            Wanted::Attached(wanted) => {
                prop_assert_eq!(seen.parts.len(), wanted.parts.len());
                prop_assert_eq!(&seen.source.unwrap().volume, &wanted.volume);
                prop_assert!(seen.device.unwrap().device.size_bytes >= wanted.size);
                let told = now.limits.map(|l| l.0).unwrap_or_default();
                prop_assert_eq!(told, wanted.limits);
            }
        }
    }
}

#[test]
fn a_host_is_thrown_out_only_by_a_forced_detach() {
    let mut first = record(0, 0, false, 0, 0);
    let seen = converge(&mut first, Seen::default(), usize::MAX);
    let other = record(0, 1, false, 0, 0);
    for step in plan(&wanted(&other), &seen) {
        assert!(!matches!(step, Step::Delete { force: true, .. }));
    }
    first.goal = Goal::Gone { force: true };
    let steps = plan(&wanted(&first), &seen);
    assert!(matches!(steps[0], Step::Delete { force: true, .. }));
}

#[test]
fn a_device_that_the_card_lost_is_made_again() {
    for exposure in 0..4 {
        let mut record = record(exposure, 0, false, 0, 0);
        let mut seen = converge(&mut record, Seen::default(), usize::MAX);
        let Wanted::Attached(wanted_of_it) = wanted(&record) else {
            unreachable!("it is attached")
        };
        let last = Step::Create(wanted_of_it.parts.last().unwrap().clone());
        for lost in [None, Some(end(0, false))] {
            seen.device = lost;
            assert_eq!(plan(&wanted(&record), &seen), vec![last.clone()]);
        }
        // Nobody knows: nothing is done.
        seen.unsaid = Some("the card does not answer".to_owned());
        assert_eq!(plan(&wanted(&record), &seen), []);
    }
}

#[test]
fn states_follow_what_the_card_says() {
    let mut record = record(0, 0, false, 0, 0);
    let whole = converge(&mut record, Seen::default(), usize::MAX);
    assert_eq!(assess(&record, &Seen::default()).0, State::Attaching);
    record.acknowledged = true;
    assert_eq!(assess(&record, &whole), (State::Attached, String::new()));
    let mut away = whole.clone();
    let source = away.source.as_mut().unwrap();
    (source.state, source.message) = (SourceState::Reconnecting, "198.18.0.9 is away".to_owned());
    let (state, why) = assess(&record, &away);
    assert_eq!(state, State::Degraded);
    assert!(why.contains("requests wait") && why.contains("198.18.0.9 is away"));
    let mut dead = whole.clone();
    dead.device = Some(end(0, false));
    assert_eq!(assess(&record, &dead).0, State::Degraded);
    record.lost = Some(lost(&record, "the engine died"));
    assert!(asks_for_users(&record, &life("1", false), true));
    let (state, why) = assess(&record, &whole);
    assert_eq!(state, State::Lost);
    assert!(why.contains("opened anew"), "{why}");
    record.goal = Goal::Gone { force: false };
    assert_eq!(assess(&record, &whole).0, State::Detaching);
}

fn epoch(engine: &str) -> Epoch {
    Epoch {
        boot_id: "b".to_owned(),
        engine: engine.to_owned(),
    }
}

fn life(engine: &str, in_use: bool) -> Seen {
    Seen {
        device: Some(end(SIZE, in_use)),
        epoch: Some(epoch(engine)),
        ..Seen::default()
    }
}

#[test]
fn a_restart_that_nobody_told_of_is_a_loss_until_the_host_opens_the_device_anew() {
    let mut record = record(0, 0, false, 0, 0);
    record.acknowledged = true;
    let record = noted(record, &life("1", true), false);
    assert_eq!(record.lost, None);
    assert!(!asks_for_users(&record, &life("1", false), false));
    assert!(!asks_for_users(&record, &life("2", false), true));
    assert!(asks_for_users(&record, &life("2", false), false));
    // In use through the restart: that can't have been this device.
    assert_eq!(noted(record.clone(), &life("2", true), false).lost, None);
    assert_eq!(noted(record.clone(), &life("2", false), true).lost, None);
    let lost = noted(record, &life("2", false), false);
    assert!(lost.lost.is_some());
    assert!(noted(lost.clone(), &life("2", false), false).lost.is_some());
    assert_eq!(noted(lost, &life("2", true), false).lost, None);
}

#[test]
fn a_dead_device_that_is_still_held_is_not_taken_for_a_healed_one() {
    let mut record = record(0, 0, false, 0, 0);
    record.acknowledged = true;
    let mut record = noted(record, &life("1", true), false);
    record.lost = Some(lost(&record, "the engine died"));
    assert!(asks_for_users(&record, &life("1", false), true));
    let held = noted(record, &life("2", true), false);
    assert!(held.lost.is_some(), "the mount of before holds it");
    let released = noted(held, &life("2", false), false);
    assert!(released.lost.is_some());
    assert_eq!(noted(released, &life("2", true), false).lost, None);
}

#[test]
fn functions_are_given_once() {
    let nvme = Exposure {
        kind: Some(Kind::NvmeFunction(NvmeFunction::default())),
    };
    let number = |physical| FunctionId {
        physical,
        ..FunctionId::default()
    };
    let function = |physical, used_by: &str, held_by_host| Function {
        id: Some(number(physical)),
        kinds: vec![ExposureKind::NvmeFunction.into()],
        used_by: used_by.to_owned(),
        held_by_host,
        ..Function::default()
    };
    let inventory = InventoryResponse {
        card: "test".to_owned(),
        functions: vec![
            function(0, "nvmeSubsystems/att-x", false),
            function(1, "", true),
            function(2, "", false),
            function(3, "", false),
        ],
        ..InventoryResponse::default()
    };
    let choose = |exposure, reserved: &[FunctionId], object: &str| {
        choose(exposure, &inventory, reserved, object)
    };
    assert_eq!(choose(nvme, &[], "att-y").unwrap(), number(2));
    assert_eq!(choose(nvme, &[number(2)], "att-y").unwrap(), number(3));
    assert_eq!(
        choose(nvme, &[], "att-x").unwrap(),
        number(0),
        "its own, of before a crash"
    );
    let full = choose(nvme, &[number(2), number(3)], "att-y").unwrap_err();
    assert_eq!(full.code, Code::ResourceExhausted);
    let certain = |physical| Exposure {
        kind: Some(Kind::NvmeFunction(NvmeFunction {
            function: Some(number(physical)),
        })),
    };
    assert_eq!(choose(certain(3), &[], "att-y").unwrap(), number(3));
    assert_eq!(
        choose(certain(1), &[], "att-y").unwrap_err().code,
        Code::ResourceExhausted
    );
    let blk = Exposure {
        kind: Some(Kind::VirtioBlkFunction(VirtioBlkFunction::default())),
    };
    assert_eq!(
        choose(blk, &[], "att-y").unwrap_err().code,
        Code::Unimplemented
    );
}
