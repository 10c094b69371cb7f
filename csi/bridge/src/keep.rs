//! Makes the card do what the objects want: at a call, after a restart of ours, after one of the engine's.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use proto::card::v1::{DeviceChanged, EngineRestarted, FunctionsChanged, Replayed, event};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use uuid::Uuid;

use crate::bridge::{Bridge, WORK};
use crate::card::{Error, Look, Notice, Result, Shape};
use crate::fits::is_exposer;
use crate::objects::collection;
use crate::wanted;

/// Volumes that are brought back at a time.
const ABREAST: usize = 8;
/// What failed is tried again, and what nobody told of is found.
const AGAIN: Duration = Duration::from_secs(30);

impl Bridge {
    /// Brings every volume that `name` is about to what is wanted; the last of them as it is then.
    pub(crate) async fn settle(&self, name: &str, deadline: Instant) -> Result<Option<Look>> {
        let mut look = None;
        for base in wanted::bases(&self.objects, name) {
            look = Some(self.bring(&base, deadline).await?);
        }
        Ok(look)
    }

    /// Brings the volume at `base` to what is wanted, or notes that it is not.
    pub(crate) async fn bring(&self, base: &str, deadline: Instant) -> Result<Look> {
        let brought = self.try_bring(base, deadline).await;
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        match &brought {
            Ok(_) => broken.remove(base),
            Err(_) => broken.insert(base.to_owned()),
        };
        brought
    }

    async fn try_bring(&self, base: &str, deadline: Instant) -> Result<Look> {
        let _volume = self.lock(base).await;
        if self.objects.deleting(base).is_some() {
            return Err(Error::Precondition(format!("{base} is being taken away")));
        }
        let volume = wanted::volume(&self.objects, base, None)?;
        match &volume.exposed {
            Some(_) => self.card.expose(&volume, deadline).await,
            None => self.card.connect(&volume, deadline).await,
        }
    }

    /// Undoes what the object, which is marked, stands for, and forgets it.
    pub(crate) async fn finish_delete(
        &self,
        name: &str,
        force: bool,
        deadline: Instant,
    ) -> Result<()> {
        match self.undo(name, force, deadline).await {
            Ok(()) => {}
            Err(why) => {
                if !why.is_passing() {
                    self.objects.set_deleting(name, None)?;
                }
                return Err(why);
            }
        }
        fail::fail_point!("delete::undone");
        let bases = wanted::bases(&self.objects, name);
        self.objects.remove(name)?;
        fail::fail_point!("delete::removed");
        if collection(name) == Some("qosVolumes") {
            for base in bases {
                self.bring(&base, deadline).await?;
            }
        }
        if is_exposer(name) {
            self.tell(event::Kind::Device(DeviceChanged {
                name: name.to_owned(),
                device: None,
            }));
        }
        if takes_function(name) {
            self.tell_functions().await;
        }
        Ok(())
    }

    async fn undo(&self, name: &str, force: bool, deadline: Instant) -> Result<()> {
        match collection(name) {
            Some("sources" | "aioVolumes" | "nullVolumes") => {
                let _volume = self.lock(name).await;
                let volume = wanted::volume(&self.objects, name, None)?;
                self.card.disconnect(&volume, deadline).await
            }
            Some("localDevices" | "virtioBlks" | "nvmeNamespaces" | "nvmeControllers") => {
                for base in wanted::bases(&self.objects, name) {
                    let _volume = self.lock(&base).await;
                    let volume = wanted::volume(&self.objects, &base, Some(name))?;
                    self.card.unexpose(&volume, force, deadline).await?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// All volumes at the start, and later those that are not as wanted; never ends.
    pub(crate) async fn replay_all(self: Arc<Self>, first: daemon::readiness::Check) {
        let mut due = self.all_bases();
        loop {
            let names = self.objects.names();
            for name in names
                .iter()
                .filter(|name| self.objects.deleting(name).is_some())
            {
                let force = self.objects.deleting(name).unwrap_or_default();
                if let Err(why) = self.finish_delete(name, force, Instant::now() + WORK).await {
                    tracing::warn!(object = %name, "what was being taken away is still there: {why}");
                }
            }
            due.retain(|base| self.objects.is_there(base) && self.objects.deleting(base).is_none());
            let failed = self.replay(due).await;
            for (name, why) in &failed {
                tracing::warn!(object = %name, "can't be brought back: {why}");
            }
            first.ready();
            tokio::time::sleep(AGAIN).await;
            due = self.due();
        }
    }

    fn all_bases(&self) -> Vec<String> {
        let names = self.objects.names().into_iter();
        let volume = |name: &String| {
            matches!(
                collection(name),
                Some("sources" | "aioVolumes" | "nullVolumes")
            )
        };
        names.filter(volume).collect()
    }

    /// What failed, and what is plugged into a machine: nobody tells that this was started anew.
    fn due(&self) -> Vec<String> {
        let mut due =
            std::mem::take(&mut *self.broken.lock().unwrap_or_else(PoisonError::into_inner));
        for (_, name) in wanted::functions(&self.objects) {
            due.extend(wanted::bases(&self.objects, &name));
        }
        due.into_iter().collect()
    }

    /// Brings volumes back; those that can't be, with the reason, by the names of their objects.
    async fn replay(&self, bases: Vec<String>) -> BTreeMap<String, String> {
        let results = futures::stream::iter(bases).map(|base| async move {
            let result = self.bring(&base, Instant::now() + WORK).await;
            let gone = !self.objects.is_there(&base);
            result
                .err()
                .filter(|_| !gone)
                .map(|why| (base, why.to_string()))
        });
        results
            .buffer_unordered(ABREAST)
            .filter_map(std::future::ready)
            .collect()
            .await
    }

    /// Heals what the card tells of; never ends.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut notices = self.card.notices();
        loop {
            match notices.recv().await {
                Ok(Notice::Lost(uuid)) => {
                    let bridge = Arc::clone(&self);
                    tokio::spawn(async move { bridge.heal(uuid).await });
                }
                Ok(Notice::Changed(uuid)) => {
                    if let Some(base) = self.base_of(uuid) {
                        self.announce(&base).await;
                    }
                }
                Ok(Notice::Outdated(uuid)) => {
                    let bridge = Arc::clone(&self);
                    tokio::spawn(async move { bridge.renew(uuid).await });
                }
                // Those that were missed are found by the timer.
                Err(RecvError::Lagged(_)) => {
                    let all = self.all_bases();
                    self.broken
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .extend(all);
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn heal(&self, uuid: Uuid) {
        let Some(base) = self.base_of(uuid) else {
            return;
        };
        let exposed = wanted::volume(&self.objects, &base, None)
            .ok()
            .and_then(|volume| volume.exposed);
        // Behind a loop device requests fail, behind a vhost-user socket they are never answered; an NBD client's wait.
        let lost: Vec<_> = exposed
            .iter()
            .filter(|exposed| !matches!(exposed.shape, Shape::Nvme(_)))
            .map(|exposed| exposed.by.clone())
            .collect();
        tracing::warn!(volume = %base, ?lost, "the volume's daemon was started anew");
        self.tell(event::Kind::EngineRestarted(EngineRestarted { lost }));
        let failed = self.replay(vec![base.clone()]).await;
        self.tell(event::Kind::Replayed(Replayed { failed }));
        let about = exposed.map_or(base, |exposed| exposed.by);
        self.announce(&about).await;
    }

    /// What fails is tried again with all that is not as wanted.
    async fn renew(&self, uuid: Uuid) {
        if let Some(base) = self.base_of(uuid)
            && let Err(why) = self.bring(&base, Instant::now() + WORK).await
        {
            tracing::warn!(volume = %base, "not brought up to date yet: {why}");
        }
    }

    fn base_of(&self, uuid: Uuid) -> Option<String> {
        let mut bases = self.all_bases().into_iter();
        bases.find(|name| wanted::uuid_of(&self.objects, name) == Some(uuid))
    }

    /// Tells the watchers how an object is now.
    pub(crate) async fn announce(&self, name: &str) {
        self.announce_as(name, None).await;
    }

    /// The same for one that was looked at in this moment.
    pub(crate) async fn announce_as(&self, name: &str, look: Option<&Look>) {
        if collection(name) == Some("sources") {
            let source = match look {
                Some(look) => self.described(name, Ok(look.clone())),
                None => self.source(name).await,
            };
            if let Ok(source) = source {
                self.tell(event::Kind::Source(source));
            }
        }
        if is_exposer(name) {
            match look.and_then(|look| look.device.clone()) {
                Some(device) => self.tell(event::Kind::Device(DeviceChanged {
                    name: name.to_owned(),
                    device: Some(device),
                })),
                None => self.tell_device(name).await,
            }
        }
        if collection(name) == Some("nvmeControllers") {
            for base in wanted::bases(&self.objects, name) {
                for exposer in wanted::exposers(&self.objects, &base) {
                    self.tell_device(&exposer).await;
                }
            }
        }
        if takes_function(name) {
            self.tell_functions().await;
        }
    }

    async fn tell_device(&self, name: &str) {
        if let Ok(Look { device, .. }) = self.look(name, false).await {
            self.tell(event::Kind::Device(DeviceChanged {
                name: name.to_owned(),
                device,
            }));
        }
    }

    async fn tell_functions(&self) {
        if let Ok(inventory) = self.inventory().await
            && !inventory.functions.is_empty()
        {
            self.tell(event::Kind::Functions(FunctionsChanged {
                counts: inventory.counts,
            }));
        }
    }

    /// The host's end of an exposing object, observed now; with `users` also whether somebody has it.
    pub(crate) async fn look(&self, name: &str, users: bool) -> Result<Look> {
        if !self.objects.is_there(name) {
            return Err(Error::NotFound(format!("there is no {name}")));
        }
        if !is_exposer(name) {
            return Err(Error::Invalid(format!(
                "name: {name} is none that a host sees"
            )));
        }
        let bases = wanted::bases(&self.objects, name);
        let base = bases
            .first()
            .ok_or_else(|| Error::NotFound(format!("{name}: its volume is not there")))?;
        let volume = wanted::volume(&self.objects, base, Some(name))?;
        if volume
            .exposed
            .as_ref()
            .is_none_or(|exposed| exposed.by != name)
        {
            return Err(Error::Precondition(format!(
                "{name} is not exposed: its subsystem has no controller on a PCI function"
            )));
        }
        self.card
            .look(&volume, users, Instant::now() + Duration::from_secs(30))
            .await
    }
}

/// Whether the functions that are free are others with and without the object.
fn takes_function(name: &str) -> bool {
    matches!(
        collection(name),
        Some("nvmeControllers" | "nvmeNamespaces" | "virtioBlks")
    )
}
