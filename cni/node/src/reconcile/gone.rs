//! Links of attachments that are no longer on the host.
//!
//! A pod's namespace that ends takes its end of the pair along, and the kernel the host's: the end of the link is the end of the
//! sandbox. (Its path in /run/netns is not watched: a namespace whose path is gone lives on while a process is in it.) A DEL makes
//! the same event; it has removed port and record by the time anybody looks, and that look costs no system call.
//!
//! The representor of a host's attachment is the card's. That it went is no end; that there is one again, with another index, or that
//! it is down, is a reason to look.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::info;

use crate::attachment::{Record, is_host_link};
use crate::dpu::plugging;
use crate::netlink::{Event, Events};
use crate::node::Node;
use crate::reconcile::plan::ObservedPort;
use crate::rounds::Pace;
use crate::store::Store;

#[derive(Debug, Default)]
struct Links {
    names: BTreeSet<String>,
    /// Representors that are new or changed.
    representors: BTreeSet<String>,
    /// Events were lost: there may be others.
    more: bool,
}

/// What went since the last look. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Gone(Arc<Mutex<Links>>);

impl Gone {
    /// Follows the links of this node and wakes the loop.
    pub(super) fn follow(pace: &mut Pace, store: Store) -> Self {
        let gone = Self::default();
        let heard = gone.clone();
        let is_representor = move |name: &str| {
            let mut records = store.all().into_iter();
            records.any(|record| record.far().is_some_and(|far| far.link == name))
        };
        pace.wake_on_kernel(Events::links(), move |event| {
            heard.note(event, &is_representor)
        });
        gone
    }

    fn note(&self, event: &Event, is_representor: &impl Fn(&str) -> bool) -> bool {
        // Nothing that holds the lock can panic halfway.
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Link {
                name, gone: true, ..
            } if is_host_link(name) => {
                links.names.insert(name.clone());
                true
            }
            Event::Link {
                name, gone: false, ..
            } if !is_host_link(name) && is_representor(name) => {
                links.representors.insert(name.clone());
                true
            }
            Event::Lost => {
                links.more = true;
                true
            }
            _ => false,
        }
    }

    /// Whether a link that went has left a record or a port, or a representor that came has no port.
    pub(super) async fn left_something(&self, node: &Node) -> bool {
        let Links {
            names,
            representors,
            more,
        } = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let plugged = node.vswitch.ports();
        if more || came_back(node, &representors, &plugged).await {
            return true;
        }
        let records = node.store.all().into_iter().map(|one| one.id.host_link());
        let ports = plugged.into_iter().map(|port| port.name);
        let left: BTreeSet<String> = records
            .chain(ports)
            .filter(|name| names.contains(name))
            .collect();
        if !left.is_empty() {
            info!(links = ?left, "links of attachments are gone before their ports or records");
        }
        !left.is_empty()
    }
}

/// Whether a representor is not as its port needs it.
async fn came_back(node: &Node, names: &BTreeSet<String>, plugged: &[ObservedPort]) -> bool {
    if names.is_empty() {
        return false;
    }
    let records: Vec<Record> = node
        .store
        .all()
        .into_iter()
        .filter(|record| names.contains(&record.link()))
        .collect();
    // What cannot be read is the round's to say.
    let Ok(links) = plugging::representors(node, &records).await else {
        return true;
    };
    links.iter().any(|(name, link)| {
        let port = plugged.iter().find(|port| port.name == *name);
        !link.up || port.is_none_or(|port| port.link != Some(link.index))
    })
}
