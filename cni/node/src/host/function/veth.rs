//! The emulated card: function N is a veth pair, `vf<N>` at home and `pf0vf<N>` in the DPU's network namespace.
//!
//! A pair dies with the namespace of either end, where a real function would come home: it is made anew then, as soon as the DPU's
//! end is seen to be gone. Which link is the function's is known by the pair alone, never by a name that a pod could change.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::Mac;
use cni_bin::code;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Function, FunctionId, Provider};
use crate::error::{Error, chain};
use crate::netlink::{Change, Event, Events, Link, Netlink, Veth};
use crate::netns::Netns;
use crate::plumb::{checksum_off, kernel, no_socket};

/// Bytes; the pod's end gets its own when it is handed out.
const MTU: u32 = 1500;
/// Packets.
const QUEUE: u32 = 1000;
/// How soon the DPU's namespace is looked for again while it is not there.
const PERIOD: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Card {
    count: u32,
    path: PathBuf,
    /// Into the DPU's namespace as it was when it was opened last.
    far: Mutex<Option<Far>>,
    /// Wakes the follower of the DPU's namespace when that is another one.
    replaced: Arc<Notify>,
    changed: watch::Sender<()>,
}

/// A socket in the DPU's namespace. It stays there whatever thread uses it.
struct Far {
    netns: Netns,
    netlink: Netlink,
}

impl Card {
    /// `path` names the DPU's namespace. Follows it until `stop`.
    pub(super) fn start(count: u32, path: PathBuf, stop: CancellationToken) -> Self {
        let card = Self {
            count,
            path,
            far: Mutex::new(None),
            replaced: Arc::new(Notify::new()),
            changed: watch::Sender::new(()),
        };
        tokio::spawn(follow(
            card.path.clone(),
            card.changed.clone(),
            Arc::clone(&card.replaced),
            stop,
        ));
        card
    }

    fn near_name(number: u32) -> String {
        format!("vf{number}")
    }

    /// Does something with a socket in the DPU's namespace.
    fn there<T>(&self, work: impl FnOnce(&mut Far) -> Result<T, Error>) -> Result<T, Error> {
        // The worst that a panic can leave here is nothing.
        let mut far = self.far.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Netns::at(&self.path).map_err(|why| {
            // A socket would keep a namespace alive that is given up.
            if far.take().is_some() {
                self.replaced.notify_one();
            }
            Error::new(
                code::TRY_AGAIN_LATER,
                format!("The emulated card has no DPU: {}", chain(&why)),
                "Start the DPU, or correct --card-netns.",
            )
        })?;
        if far.as_ref().map(|far| far.netns.identity()) != Some(now.identity()) {
            if far.is_some() {
                self.replaced.notify_one();
            }
            let netlink = now
                .run_blocking(Netlink::open)?
                .map_err(|why| no_socket(&why))?;
            *far = Some(Far {
                netns: now,
                netlink,
            });
        }
        let Some(far) = far.as_mut() else {
            return Err(Error::new(
                code::IO_FAILURE,
                "The DPU's namespace was opened and is not there.",
                "Report this.",
            ));
        };
        work(far)
    }

    fn look(&self, far: &mut Far) -> Result<Vec<Function>, Error> {
        let mut near = Netlink::open().map_err(|why| no_socket(&why))?;
        let mut here = by_index(near.links().map_err(|why| unreadable(&why))?);
        let there = far.netlink.links().map_err(|why| unreadable(&why))?;
        let there: BTreeMap<String, Link> = there
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        let mut functions = Vec::new();
        for number in 0..self.count {
            let id = FunctionId {
                physical: 0,
                r#virtual: Some(number),
            };
            let home = Self::near_name(number);
            let link = match there.get(&id.to_string()) {
                Some(end) => end
                    .peer
                    .and_then(|peer| here.remove(&peer))
                    .filter(|link| is_pair(link, end)),
                None => Some(make(&mut near, far, id, &home)?),
            };
            functions.push(Function {
                id,
                device: home.clone(),
                pci: None,
                home,
                here: link.map(|link| link.name),
                vfio: false,
            });
        }
        Ok(functions)
    }
}

impl Provider for Card {
    fn inventory(&self) -> Result<Vec<Function>, Error> {
        self.there(|far| self.look(far))
    }

    fn prepare(&self, _function: &Function, _mac: Mac) -> Result<(), Error> {
        Ok(())
    }

    fn find(&self, id: FunctionId, netlink: &mut Netlink) -> Result<Option<Link>, Error> {
        let unreadable = |why| unreadable(&why);
        let end = self.there(|far| far.netlink.link(&id.to_string()).map_err(unreadable))?;
        let Some((end, peer)) = end.and_then(|end| end.peer.map(|peer| (end, peer))) else {
            return Ok(None);
        };
        let link = netlink.link_at(peer).map_err(unreadable)?;
        Ok(link.filter(|link| is_pair(link, &end)))
    }

    fn tidy(&self, _function: &Function) -> Result<(), Error> {
        Ok(())
    }

    fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

fn by_index(links: Vec<Link>) -> BTreeMap<u32, Link> {
    links.into_iter().map(|link| (link.index, link)).collect()
}

fn is_pair(link: &Link, end: &Link) -> bool {
    link.veth && end.veth && link.peer == Some(end.index) && end.peer == Some(link.index)
}

/// Makes a pair that is not there. What has the name at home lost its far end with an earlier namespace of the DPU.
fn make(near: &mut Netlink, far: &Far, id: FunctionId, home: &str) -> Result<Link, Error> {
    debug!(function = %id, "the emulated card makes a function");
    near.apply(&[
        Change::DeleteLink {
            name: home.to_owned(),
        },
        Change::AddVeth(Veth {
            name: home.to_owned(),
            mtu: MTU,
            queue: QUEUE,
            up: false,
            peer: id.to_string(),
            peer_mac: None,
            peer_netns: far.netns.fd().as_raw_fd(),
        }),
    ])?;
    // OVS's userspace datapath may be at the far end. The link keeps this wherever it goes.
    checksum_off(home)?;
    near.link(home)
        .map_err(|why| unreadable(&why))?
        .ok_or_else(|| {
            Error::new(
                code::TRY_AGAIN_LATER,
                format!("Function {id} of the emulated card was made and is gone again."),
                "Look who removes links on this host or its DPU.",
            )
        })
}

fn unreadable(why: &std::io::Error) -> Error {
    kernel("read the emulated card's links", why)
}

/// Tells when the DPU's end of a function goes: the host's end may be in a pod, of whose links nobody here is told.
async fn follow(
    path: PathBuf,
    changed: watch::Sender<()>,
    replaced: Arc<Notify>,
    stop: CancellationToken,
) {
    loop {
        let handle = Handle::current();
        let events = match Netns::at(&path) {
            Ok(netns) => netns
                .run(move || {
                    // The socket is the namespace's, its readiness the runtime's.
                    let _runtime = handle.enter();
                    Events::links()
                })
                .await
                .ok()
                .and_then(Result::ok),
            Err(_) => None,
        };
        changed.send_replace(());
        let over = async {
            match events {
                Some(events) => listen(events, &changed).await,
                None => tokio::time::sleep(PERIOD).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = replaced.notified() => {}
            () = over => {}
        }
    }
}

async fn listen(mut events: Events, changed: &watch::Sender<()>) {
    loop {
        let concerns = match events.next().await {
            Ok(Event::Link { name, gone, .. }) => gone && name.starts_with("pf0vf"),
            Ok(Event::Lost) => true,
            Ok(_) => false,
            Err(_) => return,
        };
        if concerns {
            changed.send_replace(());
        }
    }
}
