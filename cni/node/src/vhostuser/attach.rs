//! ADD: volume → mount → port → ovn-installed, journal alongside → device information → result.
//!
//! What Open vSwitch needs is asked, and the pod's volume looked at, before anything is made. ovn-controller installs the flows
//! while nobody serves the socket yet (seen with OVN 23.03: link_state is down, ovn-installed is true): the machine starts after its
//! network is there, as with any other interface.

use std::os::fd::OwnedFd;

use cni_bin::cni::{CNIResult, Interface};
use cni_bin::code;
use fail::fail_point;
use ovsdb::Uuid;
use tokio::time::Instant;

use super::asked::{Asked, Fallback};
use super::mounts::MountError;
use super::needs::{self, Lack};
use super::socket::{Socket, Volume};
use super::tap::Tap;
use super::{VhostUser, device_info, volume};
use crate::attach::installed::installed;
use crate::attachment::{End, Pod, Record};
use crate::call::Add;
use crate::error::{Error, chain};
use crate::node::Node;
use crate::stages::{Stages, timed};
use crate::under_way::Going;
use crate::vswitch::IntegrationBridge;
use crate::wiring::{self, Wiring};

/// Where an interface of this kind is to be: looked at, nothing made.
pub(crate) enum Place {
    /// A socket in that volume.
    Socket(Box<Socket>, OwnedFd),
    /// This node has no DPDK, for these reasons, and the machine gets a tap.
    Tap(Tap, Vec<Lack>),
}

/// Looks whether this node and this pod can have the interface, and as what.
///
/// # Errors
/// What is missing, in sentences.
pub(crate) async fn place(node: &Node, add: &Add, asked: &Asked) -> Result<Place, Error> {
    let look = async {
        let missing = node.vhost.missing(node);
        let tap = asked.fallback == Fallback::Tap && needs::without_dpdk(&missing);
        if !missing.is_empty() && !tap {
            return Err(needs::unable(&missing));
        }
        let (args, pod, volume) = (node.vhost.args.clone(), add.pod.clone(), asked.volume);
        let (volume, opened) = blocking(move || volume::of_pod(&args, &pod, volume)).await?;
        if tap {
            // Nothing else can use one.
            if volume != Volume::HookSidecarSockets {
                return Err(needs::unable(&missing));
            }
            return Ok(Place::Tap(
                Tap::new(&add.pod, &add.id.ifname, asked)?,
                missing,
            ));
        }
        let vhost_dir = &node.vhost.args.vhost_dir;
        let socket = Socket {
            queues: asked.queues,
            device_info: asked.device_info.clone(),
            ..Socket::new(vhost_dir, &add.pod, &add.id.ifname, volume)?
        };
        Ok(Place::Socket(Box::new(socket), opened))
    };
    look.await.inspect_err(|_| {
        node.vhost.metrics.refused.inc();
    })
}

impl Place {
    /// What the journal is to keep.
    pub(crate) fn end(&self, mtu: u32) -> End {
        match self {
            Self::Socket(socket, _) => End::VhostUser(Socket {
                mtu,
                ..(**socket).clone()
            }),
            Self::Tap(tap, _) => End::Tap(Tap { mtu, ..tap.clone() }),
        }
    }
}

/// Makes the interface of a record. The caller undoes what a failure leaves.
pub(crate) async fn make(
    node: &Node,
    bridge: IntegrationBridge,
    record: Record,
    volume: OwnedFd,
    going: &Going<'_>,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<(), Error> {
    let Some(socket) = record.socket().cloned() else {
        return Err(Error::new(
            code::IO_FAILURE,
            "A record of another kind was to be plugged as a vhost-user port.",
            "Report this.",
        ));
    };
    let _claim = node.vhost.claims.claim(&socket.mount);
    fail_point!("vhost::begun");
    let mounted = mounted(node, &record.pod, &socket, volume);
    stages.measure("mount", mounted).await?;
    fail_point!("vhost::mounted");
    let iface_id = record.port.iface_id.clone();
    let plug = going.unless_given_up(plug(node, bridge, &record, deadline));
    let interface = stages.measure("ovs", plug).await?;
    fail_point!("vhost::plugged");
    let installed = installed(node, &iface_id, interface, deadline);
    let ((installed, flows), (kept, journal)) = tokio::join!(
        timed(going.unless_given_up(installed)),
        timed(node.store.insert(record)),
    );
    stages.note("ovn_installed", flows);
    stages.note("journal", journal);
    installed?;
    kept?;
    fail_point!("vhost::installed");
    // After the record: whoever finds the file finds the record that removes it.
    if let Some(file) = socket.device_info.clone() {
        blocking(move || device_info::write(&file, &device_info::of_socket(&socket))).await?;
    }
    fail_point!("vhost::told");
    Ok(())
}

/// The way of a sandbox's volume to Open vSwitch: directory, mount, and no former socket.
async fn mounted(node: &Node, pod: &Pod, socket: &Socket, volume: OwnedFd) -> Result<(), Error> {
    let (args, owner, place) = (node.vhost.args.clone(), pod.clone(), socket.clone());
    let made = blocking(move || {
        let directory = volume::directory(&args, &owner, place.volume, volume)?;
        volume::clear(&directory, &owner, &place).map(|()| directory)
    });
    let directory = made.await.inspect_err(|_| {
        node.vhost.metrics.refused.inc();
    })?;
    fail_point!("vhost::directory");
    node.vhost.mount(node, &socket.mount, directory).await
}

/// Plugs the port of a record. Whoever had the socket before, Open vSwitch must have let go of it: two ports of one path are no error
/// to it, and one of them is deaf.
pub(crate) async fn plug(
    node: &Node,
    bridge: IntegrationBridge,
    record: &Record,
    deadline: Instant,
) -> Result<Uuid, Error> {
    let name = record.link();
    let path = record.socket().map(|socket| socket.server_path.as_str());
    for other in node.vswitch.at_socket(path.unwrap_or_default()) {
        let ids = &other.external_ids;
        let ours = ids.get("uid") == Some(&record.pod.uid) && ids.contains_key("outboard");
        if !ours {
            let owner = ids.get("pod").map_or("somebody else", String::as_str);
            return Err(Error::new(
                code::REFUSED,
                format!(
                    "Pod {}, interface {}: port {} of {owner} is connected to its socket, {}.",
                    record.pod,
                    record.id.ifname,
                    other.name,
                    path.unwrap_or_default()
                ),
                "A socket has one port: remove the other one (ovs-vsctl del-port), and look who made it.",
            ));
        }
        if other.name != name {
            node.vswitch.vacate(&other.name, deadline).await?;
        }
    }
    node.vswitch.vacate(&name, deadline).await?;
    node.vswitch.plug(bridge, record, None, deadline).await
}

impl VhostUser {
    /// Mounts a directory at its short place, unless it is there already.
    pub(super) async fn mount(
        &self,
        node: &Node,
        name: &str,
        directory: OwnedFd,
    ) -> Result<(), Error> {
        // One staging place: one mount at a time. It takes a millisecond.
        let _alone = node.locks.lock(STAGING_LOCK).await;
        self.mount_alone(name, directory).await
    }

    /// The same for who holds the staging place.
    pub(super) async fn mount_alone(&self, name: &str, directory: OwnedFd) -> Result<(), Error> {
        let (mounts, place) = (self.mounts.clone(), name.to_owned());
        let staged = blocking(move || {
            let seen = mounts.observe().map_err(|why| refused(&why))?;
            let wanted = volume::identity(&directory).ok();
            let there = seen
                .get(&place)
                .is_some_and(|seen| seen.guarded && seen.directory == wanted);
            if there {
                return Ok(false);
            }
            mounts.stage(&directory).map_err(|why| refused(&why))?;
            Ok(true)
        });
        if !staged.await? {
            return Ok(());
        }
        fail_point!("vhost::staged");
        let (mounts, place) = (self.mounts.clone(), name.to_owned());
        blocking(move || mounts.publish(&place).map_err(|why| refused(&why))).await?;
        fail_point!("vhost::published");
        let mounts = self.mounts.clone();
        blocking(move || mounts.unstage().map_err(|why| refused(&why))).await
    }
}

/// The lock of the staging place: no attachment's link has this name.
pub(super) const STAGING_LOCK: &str = "vhost/.staging";

/// The result of the ADD: no link on the host, and the pod's interface is a socket. It has a sandbox, or Multus would not count it.
pub(crate) fn result(wiring: &Wiring, add: &Add, socket: &Socket) -> CNIResult {
    let mut result = wiring::result_after(None, None, wiring, add);
    let ours = |interface: &&mut Interface| interface.name == add.id.ifname;
    if let Some(interface) = result.interfaces.iter_mut().rev().find(ours) {
        interface.socket_path = Some(socket.container_path.clone());
    }
    result
}

pub(super) fn refused(why: &MountError) -> Error {
    Error::new(
        code::IO_FAILURE,
        format!(
            "Open vSwitch cannot be given the pod's socket: {}",
            chain(why)
        ),
        "Mount --vhost-dir (/run/outboard/vhost) into cni-node's pod with mountPropagation Bidirectional; that pod must be privileged.",
    )
}

/// Runs work that waits for the file system.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(why) => Err(Error::new(
            code::IO_FAILURE,
            format!("Work on a pod's volume ended early: {why}."),
            "Report this.",
        )),
    }
}
