//! The embedded default: thin qcow2 images in a directory, one qemu-storage-daemon per exported volume.
//!
//! Every operation is a list of steps (`crate::plan`): the catalogue records the intent, then the effect is brought about,
//! and the last record acknowledges. The program may die between any two: on opening, images and daemons are made as
//! recorded, and what nobody needs is removed. A call that its caller gives up is carried on.
//!
//! * A **snapshot** freezes the file that took the writes; a new one over it takes them. A **clone** is a new file over a
//!   frozen one. Nothing is copied. Any object may be deleted at any time: a file lives as long as something needs it, and
//!   a nameless one between two others is merged away in the background ([`tidy`]).
//! * A **group snapshot** lets all members' daemons wait inside of a transaction until all are quiet ([`gate`]).
//! * An **exported** volume has a daemon at outboard-engine; its recipe is a pure function of the record ([`recipe`]),
//!   and [`converge`] makes a running daemon equal to it. Others have none.

mod config;
mod converge;
mod exports;
mod gate;
mod images;
mod monitor;
mod owner;
mod peers;
mod perform;
mod recipe;
mod renew;
mod snapshots;
mod tidy;
mod together;
mod volumes;
mod written;

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use uuid::Uuid;

pub use config::{Aio, Config, Listen};

use crate::backend::{Backend, Capabilities, Capacity, Health};
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::export::{Access, Export, Host, Target};
use crate::identity::{GroupId, SnapshotId, VolumeId};
use crate::keyed::{Keyed, Locked};
use crate::page::Page;
use crate::snapshot::{GroupSnapshot, Snapshot, SnapshotFilter};
use crate::volume::{CreateVolume, Qos, SizeRange, Volume};
use monitor::Monitor;

/// The backend's name in ids.
pub const NAME: &str = "local";
/// Sizes are multiples of this: the largest block that a volume may have.
const UNIT: u64 = 4096;
/// qcow2 with clusters of 128 KiB could hold more; nobody has tried.
const LARGEST: u64 = 64 << 40;
/// How long qemu-img may take for what does not depend on the amount of data, and the engine for a daemon.
const PATIENCE: Duration = Duration::from_secs(8);

/// The backend. Dropping it leaves daemons and exports as they are.
#[derive(Debug)]
pub struct Local {
    inner: Arc<Inner>,
    tidying: AbortHandle,
}

#[derive(Debug)]
struct Inner {
    config: Config,
    catalogue: Arc<Catalogue>,
    engine: engine::Client,
    images: qemu::Image,
    locks: Keyed,
    /// TCP ports are taken one at a time.
    ports: tokio::sync::Mutex<()>,
    /// Volumes whose daemon may be other than recorded.
    unsure: Mutex<BTreeSet<Uuid>>,
    monitors: Mutex<HashMap<Uuid, Monitor>>,
    /// The certificates that all daemons show, by the name of their object.
    shown: Mutex<String>,
    /// Something may be left to remove or merge.
    untidy: Notify,
    /// One at a time does that.
    tidying: tokio::sync::Mutex<()>,
}

impl Drop for Local {
    fn drop(&mut self) {
        self.tidying.abort();
    }
}

impl Local {
    /// Opens the backend and makes everything as recorded. Volumes whose daemon can't be reached are left for the next
    /// operation on them: the others work.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: the directory can't be used, or another process has it. [`Error::Invalid`]: its images were
    /// made on the node of another engine.
    pub async fn open(config: Config) -> Result<Self> {
        let unavailable = |why: String| Error::Unavailable {
            object: format!("backend {NAME}"),
            why,
        };
        let path = &config.dir;
        if !path.is_absolute() || path.as_os_str().len() > 60 {
            let why = format!(
                "{}: not an absolute path of at most 60 bytes",
                path.display()
            );
            return Err(unavailable(why));
        }
        for dir in [path.join("images"), path.join("run")] {
            images::make_dir(&dir)
                .map_err(|why| unavailable(format!("{}: {why}", dir.display())))?;
        }
        let dir = path.join("catalogue");
        let (root, engine_id) = (path.clone(), config.engine_id.clone());
        let catalogue = perform::blocking(move || Catalogue::open(&dir))
            .await
            .map_err(|why| unavailable(why.to_string()))?;
        perform::blocking(move || owner::check(&root, &engine_id)).await?;
        let unsure = catalogue.state().volumes.keys().copied().collect();
        let inner = Arc::new(Inner {
            engine: engine::Client::new(config.engine_socket.clone()),
            images: qemu::Image::default(),
            locks: Keyed::default(),
            ports: tokio::sync::Mutex::default(),
            unsure: Mutex::new(unsure),
            monitors: Mutex::default(),
            shown: Mutex::default(),
            untidy: Notify::new(),
            tidying: tokio::sync::Mutex::default(),
            catalogue: Arc::new(catalogue),
            config,
        });
        inner.recover().await;
        let tidying = tokio::spawn(tidy::run(Arc::downgrade(&inner))).abort_handle();
        Ok(Self { inner, tidying })
    }

    /// Returns when nothing is left to remove or to merge now, and every daemon shows the certificates that lie there.
    pub async fn tidy(&self) {
        self.inner.tidy().await;
    }

    /// Carries the operation to its end though the caller may not wait for it.
    async fn carry<T, F>(&self, operation: impl FnOnce(Arc<Inner>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let task = tokio::spawn(operation(Arc::clone(&self.inner)));
        let done = task.await.unwrap_or_else(|why| {
            Err(Error::Unknown {
                object: format!("backend {NAME}"),
                why: why.to_string(),
            })
        });
        self.inner.untidy.notify_one();
        done
    }
}

impl Inner {
    async fn lock<S: ToString>(&self, keys: impl IntoIterator<Item = S>) -> Result<Locked> {
        self.locks
            .lock(keys)
            .await
            .map_err(|object| Error::Busy { object })
    }

    fn is_sure(&self, uuid: Uuid, sure: bool) {
        let mut unsure = self.unsure.lock().unwrap_or_else(PoisonError::into_inner);
        if sure {
            unsure.remove(&uuid);
        } else {
            unsure.insert(uuid);
        }
    }

    /// Before an operation: the volume's daemon is as recorded.
    async fn ensure(&self, uuid: Uuid) -> Result<()> {
        let unsure = self
            .unsure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&uuid);
        if unsure {
            self.converge(uuid).await
        } else {
            Ok(())
        }
    }

    fn socket_dir(&self) -> std::path::PathBuf {
        self.config.dir.join("run")
    }
}

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// For questions to the engine, which is on the same machine: one that is not there is found out in time for an answer.
fn soon() -> Instant {
    Instant::now() + Duration::from_secs(2)
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// An error of the file system.
fn failed(object: &impl ToString, path: &Path, error: &std::io::Error) -> Error {
    let (object, why) = (object.to_string(), format!("{}: {error}", path.display()));
    match error.raw_os_error().map(nix::errno::Errno::from_raw) {
        Some(nix::errno::Errno::ENOSPC | nix::errno::Errno::EDQUOT) => {
            Error::NoSpace { object, why }
        }
        _ => Error::Unavailable { object, why },
    }
}

#[async_trait]
impl Backend for Local {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            expand: true,
            expand_online: true,
            snapshots: true,
            clones: true,
            groups: true,
            qos: true,
            multi: true,
        }
    }

    async fn create(&self, volume: CreateVolume) -> Result<Volume> {
        self.carry(|inner| async move { inner.create(volume).await })
            .await
    }

    async fn delete(&self, id: &VolumeId) -> Result<()> {
        let id = id.clone();
        self.carry(|inner| async move { inner.delete(&id).await })
            .await
    }

    async fn get(&self, id: &VolumeId) -> Result<Volume> {
        self.inner.get(id)
    }

    async fn list(&self, max: usize, token: Option<&str>) -> Result<Page<Volume>> {
        self.inner.list(max, token)
    }

    async fn expand(&self, id: &VolumeId, size: SizeRange) -> Result<Volume> {
        let id = id.clone();
        self.carry(move |inner| async move { inner.expand(&id, size).await })
            .await
    }

    async fn modify(&self, id: &VolumeId, qos: Qos) -> Result<Volume> {
        let id = id.clone();
        self.carry(move |inner| async move { inner.modify(&id, qos).await })
            .await
    }

    async fn snapshot(&self, name: &str, volume: &VolumeId) -> Result<Snapshot> {
        let (name, volume) = (name.to_owned(), volume.clone());
        self.carry(|inner| async move { inner.snapshot(&name, &volume).await })
            .await
    }

    async fn delete_snapshot(&self, id: &SnapshotId) -> Result<()> {
        let id = id.clone();
        self.carry(|inner| async move { inner.delete_snapshot(&id).await })
            .await
    }

    async fn get_snapshot(&self, id: &SnapshotId) -> Result<Snapshot> {
        self.inner.get_snapshot(id)
    }

    async fn list_snapshots(
        &self,
        filter: &SnapshotFilter,
        max: usize,
        token: Option<&str>,
    ) -> Result<Page<Snapshot>> {
        self.inner.list_snapshots(filter, max, token)
    }

    async fn group_snapshot(&self, name: &str, volumes: &[VolumeId]) -> Result<GroupSnapshot> {
        let (name, volumes) = (name.to_owned(), volumes.to_vec());
        self.carry(|inner| async move { inner.group_snapshot(&name, &volumes).await })
            .await
    }

    async fn delete_group_snapshot(&self, id: &GroupId) -> Result<()> {
        let id = id.clone();
        self.carry(|inner| async move { inner.delete_group_snapshot(&id).await })
            .await
    }

    async fn get_group_snapshot(&self, id: &GroupId) -> Result<GroupSnapshot> {
        self.inner.get_group_snapshot(id)
    }

    async fn capacity(&self) -> Result<Capacity> {
        self.inner.capacity()
    }

    async fn export(
        &self,
        id: &VolumeId,
        host: &Host,
        access: Access,
        multi: bool,
    ) -> Result<Target> {
        let (id, host) = (id.clone(), host.clone());
        self.carry(move |inner| async move { inner.export(&id, &host, access, multi).await })
            .await
    }

    async fn unexport(&self, id: &VolumeId, host: &str) -> Result<()> {
        let (id, host) = (id.clone(), host.to_owned());
        self.carry(|inner| async move { inner.unexport(&id, &host).await })
            .await
    }

    async fn exports(&self, id: &VolumeId) -> Result<Vec<Export>> {
        self.inner.exports(id).await
    }

    async fn written(&self, id: &VolumeId) -> Result<bool> {
        let id = id.clone();
        self.carry(|inner| async move { inner.written(&id).await })
            .await
    }

    async fn health(&self, id: &VolumeId) -> Result<Health> {
        self.inner.health(id).await
    }
}
