//! Objects by their names: create, get, list, update, delete. The wish is on disk before the card does anything.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proto::card::v1::{Event, event};
use proto::volume::v1::Epoch;
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::time::Instant;
use uuid::Uuid;

use crate::calls::Calls;
use crate::card::{Card, Error, Look, Result};
use crate::objects::{Objects, collection};
use crate::resource::Resource;
use crate::wanted;

/// How long work may take that its caller does not wait for any more.
pub(crate) const WORK: Duration = Duration::from_secs(90);
/// Entries of a page.
const PAGE: usize = 1000;

/// All of the bridge but the wire.
pub(crate) struct Bridge {
    pub(crate) card: Arc<dyn Card>,
    pub(crate) objects: Objects,
    pub(crate) calls: Calls,
    pub(crate) events: broadcast::Sender<Event>,
    /// Whoever looks at several objects and then writes one holds it.
    pub(crate) changing: tokio::sync::Mutex<()>,
    volumes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    boot: String,
    /// Volumes that are not as wanted: tried again by and by.
    pub(crate) broken: Mutex<BTreeSet<String>>,
}

/// One page of names.
pub(crate) struct Page<R> {
    pub(crate) items: Vec<R>,
    pub(crate) next: String,
}

impl Bridge {
    pub(crate) fn new(card: Arc<dyn Card>, objects: Objects, boot: String) -> Arc<Self> {
        Arc::new(Bridge {
            card,
            objects,
            calls: Calls::default(),
            events: broadcast::channel(4096).0,
            changing: tokio::sync::Mutex::default(),
            volumes: Mutex::default(),
            boot,
            broken: Mutex::default(),
        })
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch {
            boot_id: self.boot.clone(),
            engine: self.card.epoch(),
        }
    }

    pub(crate) fn tell(&self, kind: event::Kind) {
        // Nobody may be watching.
        let _ = self.events.send(Event {
            epoch: Some(self.epoch()),
            kind: Some(kind),
        });
    }

    /// The card does one thing at a time for a volume.
    pub(crate) async fn lock(&self, base: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
            volumes.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(volumes.entry(base.to_owned()).or_default())
        };
        lock.lock_owned().await
    }

    /// The full name of an object to be made.
    pub(crate) fn name<R: Resource>(parent: Option<&str>, id: &str) -> Result<String> {
        let id = if id.is_empty() && !R::OWN_ID {
            Uuid::new_v4().to_string()
        } else {
            id.to_owned()
        };
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !(1..=63).contains(&id.len()) || !id.bytes().all(plain) {
            return Err(Error::Invalid(format!(
                "id {id:?} of {}: must be 1 to 63 characters of a-z, 0-9 and -",
                R::COLLECTION
            )));
        }
        match (R::PARENT, parent) {
            (Some(above), Some(parent)) if collection(parent) == Some(above) => {
                Ok(format!("{parent}/{}/{id}", R::COLLECTION))
            }
            (Some(above), _) => Err(Error::Invalid(format!(
                "parent: must be the name of one of {above}"
            ))),
            (None, _) => Ok(format!("{}/{id}", R::COLLECTION)),
        }
    }

    /// Makes an object, or finds the equal one.
    pub(crate) async fn create<R: Resource>(&self, wish: R, name: String) -> Result<R> {
        self.create_seen(wish, name).await.map(|(made, _)| made)
    }

    /// The same, with how its volume is then, if it is about one.
    pub(crate) async fn create_seen<R: Resource>(
        &self,
        mut wish: R,
        name: String,
    ) -> Result<(R, Option<Look>)> {
        let deadline = Instant::now() + WORK;
        wish.wish();
        wish.set_name(name.clone());
        wish.check()?;
        let fresh = {
            let _changing = self.changing.lock().await;
            match self.objects.get::<R>(&name) {
                Some(there) if there.deleting.is_some() => {
                    return Err(Error::Busy(format!(
                        "{name} is being taken away; call again when it is gone"
                    )));
                }
                Some(there) => {
                    if let Some(field) = there.wish.differs(&wish) {
                        return Err(Error::Exists(format!(
                            "{name} exists with another {field}; delete it first, or choose another id"
                        )));
                    }
                    false
                }
                None => {
                    self.fits(&wish).await?;
                    self.objects.write(&wish)?;
                    true
                }
            }
        };
        fail::fail_point!("create::recorded");
        let look = match self.settle(&name, deadline).await {
            Ok(look) => look,
            Err(why) if fresh && !why.is_passing() => {
                self.objects.set_deleting(&name, Some(true))?;
                self.finish_delete(&name, true, deadline).await?;
                return Err(why);
            }
            Err(why) => return Err(why),
        };
        fail::fail_point!("create::done");
        self.announce_as(&name, look.as_ref()).await;
        Ok((self.get::<R>(&name)?, look))
    }

    /// The wish as it is.
    pub(crate) fn get<R: Resource>(&self, name: &str) -> Result<R> {
        let found = self.objects.get::<R>(name);
        found
            .map(|object| object.wish)
            .ok_or_else(|| Error::NotFound(format!("there is no {name}")))
    }

    /// The objects of a kind behind a token, in order of names.
    pub(crate) fn list<R: Resource>(
        &self,
        parent: Option<&str>,
        size: i64,
        token: &str,
    ) -> Result<Page<R>> {
        let size = usize::try_from(size)
            .map_err(|_| Error::Invalid("page_size: must not be negative".into()))?;
        let size = if size == 0 { PAGE } else { size.min(PAGE) };
        let after = match token {
            "" => String::new(),
            token => {
                let bytes = URL_SAFE_NO_PAD.decode(token).ok();
                let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
                name.filter(|name| collection(name) == Some(R::COLLECTION))
                    .ok_or_else(|| Error::Invalid("page_token: is none of this service's".into()))?
            }
        };
        let all = self
            .objects
            .all::<R>()
            .into_iter()
            .map(|object| object.wish);
        let mut rest = all
            .filter(|wish| {
                parent.is_none_or(|parent| crate::objects::parent(wish.name()) == Some(parent))
            })
            .skip_while(|wish| wish.name() <= after.as_str())
            .peekable();
        let items: Vec<R> = rest.by_ref().take(size).collect();
        let last = rest.peek().and(items.last());
        let next = last
            .map(|wish| URL_SAFE_NO_PAD.encode(wish.name()))
            .unwrap_or_default();
        Ok(Page { items, next })
    }

    /// Changes what may change.
    pub(crate) async fn update<R: Resource>(
        &self,
        wish: R,
        mask: Option<prost_types::FieldMask>,
        allow_missing: bool,
    ) -> Result<R> {
        let name = wish.name().to_owned();
        let Some(there) = self.objects.get::<R>(&name) else {
            if !allow_missing {
                return Err(Error::NotFound(format!(
                    "there is no {name}; allow_missing makes it"
                )));
            }
            let id = name.rsplit('/').next().unwrap_or_default();
            if Self::name::<R>(crate::objects::parent(&name), id)? != name {
                return Err(Error::Invalid(format!(
                    "name: {name:?} is not of this kind"
                )));
            }
            return self.create(wish, name).await;
        };
        let mut wanted = there.wish.clone();
        match mask.filter(|mask| !mask.paths.is_empty()) {
            None => {
                wanted = wish;
                wanted.wish();
            }
            Some(mask) => {
                for path in &mask.paths {
                    if !wanted.take_over(&wish, path) {
                        return Err(Error::Invalid(format!(
                            "update_mask: there is no field {path}"
                        )));
                    }
                }
            }
        }
        wanted.check()?;
        match there.wish.differs(&wanted) {
            None => return Ok(there.wish),
            Some(field) if !R::changeable(field) => {
                return Err(Error::Invalid(format!(
                    "{name}: {field} can't change while the object lives; delete it and make it anew"
                )));
            }
            Some(_) => {}
        }
        {
            let _changing = self.changing.lock().await;
            self.objects.write(&wanted)?;
        }
        fail::fail_point!("update::recorded");
        self.settle(&name, Instant::now() + WORK).await?;
        self.get::<R>(&name)
    }

    /// Takes an object away.
    pub(crate) async fn delete(&self, name: &str, allow_missing: bool, force: bool) -> Result<()> {
        {
            let _changing = self.changing.lock().await;
            if !self.objects.is_there(name) {
                return if allow_missing {
                    Ok(())
                } else {
                    Err(Error::NotFound(format!(
                        "there is no {name}; with allow_missing that is OK"
                    )))
                };
            }
            if let Some(user) = wanted::users(&self.objects, name).first() {
                return Err(Error::Precondition(format!(
                    "{name} is used by {user}: delete that first"
                )));
            }
            self.objects.set_deleting(name, Some(force))?;
        }
        fail::fail_point!("delete::recorded");
        self.finish_delete(name, force, Instant::now() + WORK).await
    }
}
