use std::collections::BTreeSet;

use ovsdb::Uuid;
use proptest::prelude::*;

use super::plan::{Action, Observed, ObservedPort, plan};
use crate::attachment::{AttachmentId, Pod, PortRecord, Record};

fn id(container: u8) -> AttachmentId {
    AttachmentId {
        container: format!("c{container}"),
        ifname: "eth0".into(),
    }
}

fn record(container: u8, iface: u8, ordinal: u64) -> Record {
    Record {
        id: id(container),
        network: "pods".into(),
        pod: Pod {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u1".into(),
        },
        netns: "/run/netns/a".into(),
        port: PortRecord {
            iface_id: format!("p{iface}"),
            mac: String::new(),
            ips: Vec::new(),
        },
        ordinal,
    }
}

fn port(container: u8, iface: u8, row: u128) -> ObservedPort {
    ObservedPort {
        interface: Uuid::from_u128(row),
        name: id(container).host_link(),
        iface_id: format!("p{iface}"),
        id: id(container),
    }
}

/// What the world is after an action, as the actions promise.
fn apply(mut world: Observed, actions: &[Action]) -> Observed {
    for action in actions {
        match action {
            Action::RemovePort(port) => world
                .ports
                .retain(|other| other.interface != port.interface),
            Action::Plug(record) => {
                let iface_id = record.port.iface_id.clone();
                world.ports.retain(|other| other.iface_id != iface_id);
                world.ports.push(ObservedPort {
                    interface: Uuid::new_v4(),
                    name: record.id.host_link(),
                    iface_id,
                    id: record.id.clone(),
                });
            }
            Action::RemoveLink(name) => {
                world.links.remove(name);
            }
            Action::Forget(id) => world.records.retain(|record| record.id != *id),
        }
    }
    world
}

fn world() -> impl Strategy<Value = Observed> {
    let records = proptest::collection::btree_map(0..6u8, (0..3u8, 0..9u64), 0..6);
    let ports = proptest::collection::vec((0..8u8, 0..3u8), 0..6);
    let links = proptest::collection::btree_set(0..8u8, 0..8);
    (records, ports, links).prop_map(|(records, ports, links)| Observed {
        records: records
            .into_iter()
            // Ordinals are unique.
            .map(|(container, (iface, ordinal))| {
                record(container, iface, ordinal * 10 + u64::from(container))
            })
            .collect(),
        ports: ports
            .into_iter()
            .enumerate()
            .map(|(row, (container, iface))| port(container, iface, row as u128))
            .collect(),
        links: links
            .into_iter()
            .map(|container| id(container).host_link())
            .collect(),
    })
}

proptest! {
    #[test]
    fn a_plan_after_an_apply_is_empty(world in world()) {
        let after = apply(world.clone(), &plan(&world));
        prop_assert_eq!(plan(&after), Vec::new());
    }

    /// An attachment that lives loses neither its link nor its record, and one claimant of each iface-id is plugged.
    #[test]
    fn what_lives_stays(world in world()) {
        let after = apply(world.clone(), &plan(&world));
        for record in &world.records {
            let alive = world.links.contains(&record.id.host_link());
            prop_assert_eq!(after.records.contains(record), alive);
            if alive {
                prop_assert!(after.links.contains(&record.id.host_link()));
            }
            if alive {
                let iface_id = &record.port.iface_id;
                let holders = after.ports.iter().filter(|port| port.iface_id == *iface_id);
                prop_assert_eq!(holders.count(), 1);
            }
        }
        let owned: BTreeSet<_> = after.records.iter().map(|record| record.id.host_link()).collect();
        prop_assert!(after.links.iter().all(|link| owned.contains(link)));
        prop_assert!(after.ports.iter().all(|port| owned.contains(&port.name)));
    }
}

#[test]
fn the_younger_sandbox_of_a_pod_holds_the_port() {
    let world = Observed {
        records: vec![record(1, 0, 1), record(2, 0, 2)],
        ports: vec![port(2, 0, 7)],
        links: [id(1).host_link(), id(2).host_link()].into(),
    };
    assert_eq!(plan(&world), Vec::new());
}

#[test]
fn a_port_that_the_database_lost_is_plugged_again() {
    let lost = record(1, 0, 1);
    let world = Observed {
        records: vec![lost.clone()],
        links: [id(1).host_link()].into(),
        ..Observed::default()
    };
    assert_eq!(plan(&world), vec![Action::Plug(lost)]);
}

#[test]
fn an_add_that_was_killed_leaves_nothing() {
    let world = Observed {
        records: Vec::new(),
        ports: vec![port(1, 0, 7)],
        links: [id(1).host_link()].into(),
    };
    let steps = [
        Action::RemovePort(port(1, 0, 7)),
        Action::RemoveLink(id(1).host_link()),
    ];
    assert_eq!(plan(&world), steps);
}
