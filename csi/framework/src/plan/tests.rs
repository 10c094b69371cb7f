//! Random operations, killed at random steps, on a disk and daemons that are values.

use std::collections::BTreeMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::volume::{Qos, Source};

/// What an image file has of its own, and what it says it rests on.
#[derive(Debug, Clone, Default)]
struct Image {
    backing: Option<FileId>,
    writes: Vec<u32>,
}

/// The world outside of the catalogue.
#[derive(Debug, Default)]
struct World {
    state: State,
    images: BTreeMap<FileId, Image>,
    /// Which file the daemon of a volume writes to, whatever the catalogue says.
    daemons: BTreeMap<Uuid, FileId>,
}

/// What users were told.
#[derive(Debug, Default)]
struct Told {
    volumes: BTreeMap<Uuid, Vec<u32>>,
    snapshots: BTreeMap<Uuid, Vec<u32>>,
}

impl World {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Image(id) => {
                let backing = self.state.files[id].backing;
                assert!(backing.is_none_or(|b| self.images.contains_key(&b)));
                let writes = Vec::new();
                self.images.insert(*id, Image { backing, writes });
            }
            Step::Converge(uuid) => self.converge(*uuid),
            Step::Together(all) => all.iter().for_each(|uuid| self.converge(*uuid)),
            Step::Unlink(id) => drop(self.images.remove(id)),
            _ => {}
        }
        self.state.apply(step);
        assert_eq!(self.state.missing().next(), None, "{step:?}");
    }

    /// A daemon is on the recorded file or on the one below: that is all that the edge can repair.
    fn converge(&mut self, uuid: Uuid) {
        let top = self.state.volumes[&uuid].top;
        let on = self.daemons.insert(uuid, top).unwrap_or(top);
        assert!(on == top || self.images[&top].backing == Some(on));
    }

    fn contents(&self, file: FileId) -> Vec<u32> {
        let image = &self.images[&file];
        let mut contents = image.backing.map_or_else(Vec::new, |b| self.contents(b));
        // A merge downwards that was cut off has left them below as well: the same write to the same place.
        let new = image
            .writes
            .iter()
            .filter(|write| !contents.contains(write));
        contents.extend(new.copied().collect::<Vec<_>>());
        contents
    }

    /// As after kill -9: what was held is not, daemons go on; everything is converged, swept and merged.
    fn recover(&mut self) {
        self.state.held.clear();
        for uuid in self.state.volumes.keys().copied().collect::<Vec<_>>() {
            self.converge(uuid);
        }
        self.daemons
            .retain(|uuid, _| self.state.volumes.contains_key(uuid));
        self.tidy(300);
    }

    /// Moves `writes` down. False if it is cut off before the child rests on the lower image.
    fn fold(&mut self, merge: &Merge, writes: &[u32], cut_off: bool) -> bool {
        if self.images[&merge.child].backing != Some(merge.gone) {
            return true;
        }
        let onto = merge.onto.unwrap();
        let needed = self.state.needed();
        let mut others = self
            .images
            .iter()
            .filter(|(id, image)| needed.contains(id) && image.backing == Some(onto));
        assert!(
            others.all(|(id, _)| *id == merge.gone),
            "somebody else's contents change"
        );
        self.images.get_mut(&onto).unwrap().writes.extend(writes);
        if !cut_off {
            self.images.get_mut(&merge.child).unwrap().backing = Some(onto);
        }
        !cut_off
    }

    fn tidy(&mut self, most: usize) {
        for step in self.state.sweep().iter().take(most) {
            self.step(step);
        }
        for round in 0..most {
            // After a recovery nobody is, so that nothing may be left.
            let busy = |uuid: Uuid| most < 300 && uuid.as_u128().is_multiple_of(2);
            let merges = self.state.merges(busy);
            let Some(merge) = merges.get((round + most) % merges.len().max(1)) else {
                break;
            };
            // As an operation that is killed, or gives way, after any of its steps.
            let intent = merging(&self.state, merge).unwrap();
            self.step(&intent);
            if most % 3 == 1 {
                return;
            }
            let mut writes = self.images[&merge.gone].writes.clone();
            let down = merge.down.filter(|_| !merge.up || most.is_multiple_of(2));
            if down.is_some() && !self.fold(merge, &writes, most % 4 == 3) {
                return;
            }
            let child = self.images.get_mut(&merge.child).unwrap();
            // A merge that was done, but not recorded, is done again: the child rests elsewhere already.
            if down.is_none() && child.backing == Some(merge.gone) {
                writes.append(&mut child.writes);
                *child = Image {
                    backing: merge.onto,
                    writes,
                };
            }
            if most % 3 == 2 {
                return;
            }
            let record = merged(&self.state, merge).unwrap();
            self.step(&record);
            for step in self.state.sweep() {
                self.step(&step);
            }
        }
    }

    fn check(&self, told: &Told) {
        for (uuid, expected) in &told.volumes {
            assert_eq!(&self.contents(self.state.volumes[uuid].top), expected);
        }
        for (uuid, expected) in &told.snapshots {
            let (snapshot, _) = self.state.snapshot(*uuid).unwrap();
            assert_eq!(&self.contents(snapshot.file), expected);
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Create,
    CloneVolume(usize),
    CloneSnapshot(usize),
    Snapshot(usize),
    Group(usize, usize),
    Delete(usize),
    DeleteSnapshot(usize),
    DeleteGroup(usize),
    Write(usize, u32),
    Tidy(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let n = 0usize..8;
    prop_oneof![
        2 => Just(Op::Create),
        2 => n.clone().prop_map(Op::CloneVolume),
        2 => n.clone().prop_map(Op::CloneSnapshot),
        3 => n.clone().prop_map(Op::Snapshot),
        1 => (n.clone(), n.clone()).prop_map(|(a, b)| Op::Group(a, b)),
        2 => n.clone().prop_map(Op::Delete),
        2 => n.clone().prop_map(Op::DeleteSnapshot),
        1 => n.clone().prop_map(Op::DeleteGroup),
        5 => (n.clone(), any::<u32>()).prop_map(|(v, w)| Op::Write(v, w)),
        2 => n.prop_map(Op::Tidy),
    ]
}

fn record(top: FileId) -> VolumeRecord {
    VolumeRecord {
        name: top.0.to_string(),
        size: 1 << 20,
        created_size: 1 << 20,
        source: Source::Blank,
        qos: Qos::default(),
        block_size: 512,
        write_cache: false,
        top,
        exports: Vec::new(),
        port: None,
    }
}

fn pick<T>(map: &BTreeMap<Uuid, T>, n: usize) -> Option<Uuid> {
    map.keys().nth(n % map.len().max(1)).copied()
}

/// The steps of an operation, and what its user is told when all are done.
fn plan(world: &mut World, told: &Told, op: &Op) -> Option<(Vec<Step>, Told)> {
    let state = &world.state;
    let (uuid, a, b) = (Uuid::new_v4(), FileId::new(), FileId::new());
    let mut new = Told::default();
    let steps = match *op {
        Op::Create => {
            new.volumes.insert(uuid, Vec::new());
            create(uuid, record(a), None)
        }
        Op::CloneVolume(n) => {
            let source = pick(&state.volumes, n)?;
            new.volumes.insert(uuid, told.volumes[&source].clone());
            clone(state, source, a, uuid, record(b))?
        }
        Op::CloneSnapshot(n) => {
            let source = pick(&told.snapshots, n)?;
            new.volumes.insert(uuid, told.snapshots[&source].clone());
            create(uuid, record(a), Some(state.snapshot(source)?.0.file))
        }
        Op::Snapshot(n) => {
            let volume = pick(&state.volumes, n)?;
            new.snapshots.insert(uuid, told.volumes[&volume].clone());
            snapshot(state, volume, a, uuid, "s", 0)?
        }
        Op::Group(n, m) => {
            let (v, w) = (pick(&state.volumes, n)?, pick(&state.volumes, m)?);
            if v == w {
                return None;
            }
            let (s, t) = (Uuid::new_v4(), Uuid::new_v4());
            new.snapshots.insert(s, told.volumes[&v].clone());
            new.snapshots.insert(t, told.volumes[&w].clone());
            group(state, uuid, "g", &[(v, a, s), (w, b, t)], 0)?
        }
        Op::Delete(n) => vec![Step::NoVolume(pick(&state.volumes, n)?)],
        Op::DeleteSnapshot(n) => vec![Step::NoSnapshot(pick(&state.snapshots, n)?)],
        Op::DeleteGroup(n) => vec![Step::NoGroup(pick(&state.groups, n)?)],
        Op::Write(..) | Op::Tidy(_) => Vec::new(),
    };
    world.state.held.extend([a, b]);
    Some((steps, new))
}

fn forget(world: &World, told: &mut Told) {
    told.volumes
        .retain(|uuid, _| world.state.volumes.contains_key(uuid));
    told.snapshots
        .retain(|uuid, _| world.state.snapshot(*uuid).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_was_acknowledged_is_there_and_nothing_else_stays(
        ops in proptest::collection::vec((op(), proptest::option::weighted(0.3, 0usize..12)), 1..60),
    ) {
        let (mut world, mut told) = (World::default(), Told::default());
        for (op, killed) in ops {
            match op {
                Op::Write(n, value) => {
                    if let Some(uuid) = pick(&world.state.volumes, n) {
                        let on = *world.daemons.entry(uuid).or_insert(world.state.volumes[&uuid].top);
                        world.images.get_mut(&on).unwrap().writes.push(value);
                        told.volumes.get_mut(&uuid).unwrap().push(value);
                    }
                }
                Op::Tidy(most) => world.tidy(most),
                op => {
                    let Some((steps, mut new)) = plan(&mut world, &told, &op) else { continue };
                    let before = (world.state.volumes.len(), world.state.snapshots.len(), world.state.groups.len());
                    let last = killed.unwrap_or(usize::MAX).min(steps.len());
                    for step in &steps[..last] {
                        world.step(step);
                    }
                    if last < steps.len() {
                        world.recover();
                        let after = (world.state.volumes.len(), world.state.snapshots.len(), world.state.groups.len());
                        prop_assert_eq!(before, after, "half an operation is none");
                    } else {
                        world.state.held.clear();
                        told.volumes.append(&mut new.volumes);
                        told.snapshots.append(&mut new.snapshots);
                        if killed.is_some() {
                            world.recover();
                        }
                    }
                    forget(&world, &mut told);
                }
            }
            world.check(&told);
        }
        world.recover();
        world.check(&told);
        let needed = world.state.needed();
        prop_assert!(world.images.keys().all(|id| needed.contains(id)), "a file that nobody needs");
        prop_assert!(world.state.files.keys().all(|id| needed.contains(id)), "a record that nobody needs");
        prop_assert!(world.state.sweep().is_empty() && world.state.merges(|_| false).is_empty());
        prop_assert!(world.images.iter().all(|(id, image)| world.state.files[id].backing == image.backing));
    }
}
