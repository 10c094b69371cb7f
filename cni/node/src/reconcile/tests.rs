use std::collections::BTreeSet;
use std::path::Path;

use ovsdb::Uuid;
use proptest::prelude::*;

use super::plan::{Action, Observed, ObservedPort, Representor, plan};
use crate::attachment::{AttachmentId, End, Far, Pod, PortRecord, Record};
use crate::dpu::representor::{CardFunction, Plug};
use crate::vhostuser::order;
use crate::vhostuser::socket::{Socket, Volume};

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
        end: End::Veth,
    }
}

/// The same of a host: containers 10 and above are its sandboxes; each has the function of its number.
fn far(container: u8, iface: u8, ordinal: u64) -> Record {
    Record {
        end: End::Representor(Far {
            link: rep(container),
            plug: Plug::System,
            host: "h1".into(),
            function: CardFunction {
                physical: 0,
                vf: Some(container.into()),
            },
            attempt: ordinal,
            mtu: 1400,
        }),
        ..record(container, iface, ordinal)
    }
}

fn rep(container: u8) -> String {
    format!("pf0vf{container}")
}

/// A port of a host's attachment, plugged when its representor had that index.
fn far_port(container: u8, iface: u8, row: u128, link: u32) -> ObservedPort {
    ObservedPort {
        name: rep(container),
        link: Some(link),
        ..port(container, iface, row)
    }
}

fn port(container: u8, iface: u8, row: u128) -> ObservedPort {
    ObservedPort {
        interface: Uuid::from_u128(row),
        name: id(container).host_link(),
        iface_id: format!("p{iface}"),
        id: id(container),
        link: None,
        socket: None,
    }
}

/// Attachments that are sockets: containers 20 and above; two of them are in one pod.
fn vhost(container: u8, iface: u8, ordinal: u64) -> Record {
    let pod = Pod {
        namespace: "vms".into(),
        name: "a".into(),
        uid: format!("u{}", container / 2),
    };
    let dir = Path::new("/run/v");
    let socket = Socket::new(dir, &pod, "net1", Volume::HookSidecarSockets).unwrap();
    Record {
        end: End::VhostUser(socket),
        ..record(container, iface, ordinal)
    }
}

fn mount(container: u8) -> String {
    vhost(container, 0, 0).socket().unwrap().mount.clone()
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
                let name = record.link();
                world
                    .ports
                    .retain(|other| other.iface_id != iface_id && other.name != name);
                let link = world.representors.get_mut(&name).map(|link| {
                    link.up = true;
                    link.index
                });
                world.ports.push(ObservedPort {
                    interface: Uuid::new_v4(),
                    name,
                    iface_id,
                    id: record.id.clone(),
                    link,
                    socket: record.socket().map(|socket| socket.server_path.clone()),
                });
            }
            Action::SetUp(record) => {
                world.representors.get_mut(&record.link()).unwrap().up = true;
            }
            Action::RemoveLink(name) => {
                world.links.remove(name);
            }
            Action::Mount(record) => {
                let mount = &record.socket().unwrap().mount;
                world.sockets.mounts.insert(mount.clone());
                let records = world.records.iter();
                let same = records.filter(|one| one.socket().is_some_and(|s| s.mount == *mount));
                for one in same {
                    world.sockets.unmounted.remove(&one.id);
                }
            }
            Action::Unmount(name) => {
                world.sockets.mounts.remove(name);
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
    let fars = proptest::collection::btree_map(10..14u8, (4..6u8, 0..9u64), 0..4);
    let far_ports = proptest::collection::vec((10..15u8, 4..6u8, 1..3u32), 0..4);
    let representors = proptest::collection::btree_map(10..14u8, (1..3u32, any::<bool>()), 0..4);
    // Whether the mount is missing, and whether the sandbox has ended.
    let sockets = proptest::collection::btree_map(
        20..24u8,
        (7..9u8, 0..9u64, any::<bool>(), any::<bool>()),
        0..4,
    );
    let socket_ports = proptest::collection::vec((20..25u8, 7..9u8, any::<bool>()), 0..4);
    let mounts = proptest::collection::btree_set(20..26u8, 0..4);
    let sockets = (sockets, socket_ports, mounts);
    let everything = (
        records,
        ports,
        links,
        fars,
        far_ports,
        representors,
        sockets,
    );
    everything.prop_map(
        |(
            records,
            ports,
            links,
            fars,
            far_ports,
            representors,
            (sockets, socket_ports, mounts),
        )| Observed {
            sockets: order::Observed {
                mounts: mounts.into_iter().map(mount).collect(),
                unmounted: sockets
                    .iter()
                    .filter(|(_, (_, _, unmounted, _))| *unmounted)
                    .map(|(container, _)| id(*container))
                    .collect(),
                ended: sockets
                    .iter()
                    .filter(|(_, (_, _, _, ended))| *ended)
                    .map(|(container, _)| id(*container))
                    .collect(),
            },
            records: records
                .into_iter()
                // Ordinals are unique.
                .map(|(container, (iface, ordinal))| {
                    record(container, iface, ordinal * 10 + u64::from(container))
                })
                .chain(fars.iter().map(|(container, (iface, ordinal))| {
                    far(*container, *iface, ordinal * 10 + u64::from(*container))
                }))
                .chain(sockets.iter().map(|(container, (iface, ordinal, ..))| {
                    vhost(*container, *iface, ordinal * 10 + u64::from(*container))
                }))
                .collect(),
            representors: representors
                .into_iter()
                .filter(|(container, _)| fars.contains_key(container))
                .map(|(container, (index, up))| (rep(container), Representor { index, up }))
                .collect(),
            ports: ports
                .into_iter()
                .enumerate()
                .map(|(row, (container, iface))| port(container, iface, row as u128))
                .chain(
                    far_ports
                        .into_iter()
                        .enumerate()
                        .map(|(row, (container, iface, link))| {
                            far_port(container, iface, 100 + row as u128, link)
                        }),
                )
                .chain(socket_ports.into_iter().enumerate().map(
                    |(row, (container, iface, right))| ObservedPort {
                        socket: right.then(|| {
                            let record = vhost(container, iface, 0);
                            record.socket().unwrap().server_path.clone()
                        }),
                        ..port(container, iface, 200 + row as u128)
                    },
                ))
                .collect(),
            links: links
                .into_iter()
                .map(|container| id(container).host_link())
                .collect(),
        },
    )
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
            let of_host = record.far().is_some();
            let is_socket = record.socket().is_some();
            let alive = match is_socket {
                true => !world.sockets.ended.contains(&record.id),
                false => of_host || world.links.contains(&record.id.host_link()),
            };
            prop_assert_eq!(after.records.contains(record), alive);
            if alive && is_socket && world.sockets.unmounted.contains(&record.id) {
                let mount = &record.socket().unwrap().mount;
                prop_assert!(after.sockets.mounts.contains(mount));
            }
            if alive && !of_host && !is_socket {
                prop_assert!(after.links.contains(&record.id.host_link()));
            }
            let iface_id = &record.port.iface_id;
            let holders = after.ports.iter().filter(|port| port.iface_id == *iface_id);
            // A representor may be away.
            let expected = if of_host { 0..=1 } else { 1..=1 };
            if alive {
                prop_assert!(expected.contains(&holders.count()));
            }
        }
        // A port of a representor that is there was plugged for this very link, and the link is up.
        for port in &after.ports {
            if let Some(link) = after.representors.get(&port.name) {
                prop_assert!(link.up && port.link == Some(link.index));
            }
        }
        let owned: BTreeSet<_> = after.records.iter().map(Record::link).collect();
        prop_assert!(after.links.iter().all(|link| owned.contains(link)));
        prop_assert!(after.ports.iter().all(|port| owned.contains(&port.name)));
        let sockets = after.records.iter().filter_map(Record::socket);
        let needed: BTreeSet<_> = sockets.map(|socket| &socket.mount).collect();
        prop_assert!(after.sockets.mounts.iter().all(|mount| needed.contains(mount)));
    }
}

#[test]
fn the_younger_sandbox_of_a_pod_holds_the_port() {
    let world = Observed {
        records: vec![record(1, 0, 1), record(2, 0, 2)],
        ports: vec![port(2, 0, 7)],
        links: [id(1).host_link(), id(2).host_link()].into(),
        ..Observed::default()
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
        ..Observed::default()
    };
    let steps = [
        Action::RemovePort(port(1, 0, 7)),
        Action::RemoveLink(id(1).host_link()),
    ];
    assert_eq!(plan(&world), steps);
}

#[test]
fn a_socket_is_no_broken_attachment_for_having_no_link() {
    let lives = vhost(20, 7, 1);
    let mut world = Observed {
        records: vec![lives.clone()],
        ports: vec![ObservedPort {
            socket: Some(lives.socket().unwrap().server_path.clone()),
            ..port(20, 7, 9)
        }],
        ..Observed::default()
    };
    world.sockets.mounts.insert(mount(20));
    assert_eq!(plan(&world), Vec::new());
    world.sockets.mounts.clear();
    world.sockets.unmounted.insert(id(20));
    assert_eq!(plan(&world), vec![Action::Mount(lives.clone())]);
    world.sockets.mounts.insert(mount(20));
    world.sockets.ended.insert(id(20));
    let steps = [
        Action::RemovePort(world.ports[0].clone()),
        Action::Forget(id(20)),
        Action::Unmount(mount(20)),
    ];
    assert_eq!(plan(&world), steps);
}

#[test]
fn a_representor_that_comes_back_is_plugged_again_and_one_that_is_away_is_left() {
    let lost = far(11, 0, 1);
    let there = |link: Option<(u32, bool)>| Observed {
        records: vec![lost.clone()],
        ports: vec![far_port(11, 0, 7, 4)],
        representors: link
            .map(|(index, up)| (rep(11), Representor { index, up }))
            .into_iter()
            .collect(),
        ..Observed::default()
    };
    assert_eq!(plan(&there(Some((4, true)))), Vec::new());
    assert_eq!(plan(&there(None)), Vec::new());
    assert_eq!(
        plan(&there(Some((4, false)))),
        vec![Action::SetUp(lost.clone())]
    );
    let steps = [
        Action::RemovePort(far_port(11, 0, 7, 4)),
        Action::Plug(lost.clone()),
    ];
    assert_eq!(plan(&there(Some((9, false)))), steps);
}
