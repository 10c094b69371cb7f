//! A copy of parts of a database that follows it.

use crate::client::Client;
use crate::condition::Condition;
use crate::driver::Command;
use crate::error::{DecodeError, NotSynced};
use crate::monitor::MonitorSpec;
use crate::row::{Row, TableLayout};
use crate::store::{self, Desync, Store};
use crate::strings::Strings;
use crate::subscription::Change;
use crate::table::Table;
use crate::update;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

/// A replica of some tables, columns and rows: see [`Client::monitor`]. A cheap handle; the
/// monitor ends when the last clone is dropped. It keeps its client's connection alive.
///
/// The contents survive a lost connection; until [`Replica::synced`] is true again they may be
/// old. An update is applied before the answer to a transaction that the server sent after it, so
/// a client finds in its replica what it has just written.
#[derive(Debug, Clone)]
pub struct Replica(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    client: Client,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.client.send(Command::Cancel(self.shared.id));
    }
}

/// What the handle shares with the connection.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) id: u64,
    wanted: Mutex<Wanted>,
    store: RwLock<Store>,
    strings: Mutex<Strings>,
    changed: watch::Sender<u64>,
    synced: watch::Sender<bool>,
}

/// The specification and how often it was changed.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) spec: MonitorSpec,
    pub(crate) revision: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(id: u64, spec: MonitorSpec) -> Self {
        Shared {
            id,
            wanted: Mutex::new(Wanted { spec, revision: 0 }),
            store: RwLock::new(Store::default()),
            strings: Mutex::new(Strings::new()),
            changed: watch::Sender::new(0),
            synced: watch::Sender::new(false),
        }
    }

    pub(crate) fn wanted(&self) -> Wanted {
        lock(&self.wanted).clone()
    }

    pub(crate) fn revision(&self) -> u64 {
        lock(&self.wanted).revision
    }

    /// Says that the contents are those of the server, if they are of this revision.
    pub(crate) fn set_synced(&self, revision: Option<u64>) {
        let wanted = lock(&self.wanted);
        let synced = revision == Some(wanted.revision);
        self.synced
            .send_if_modified(|old| std::mem::replace(old, synced) != synced);
    }

    /// As [`Replica::read`].
    pub(crate) fn read<R>(&self, read: impl FnOnce(Snapshot<'_>) -> R) -> R {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        read(Snapshot { store: &store })
    }

    /// Reads and applies updates, or, if `replace`, new contents.
    pub(crate) fn take(
        &self,
        text: &str,
        layout: &[Arc<TableLayout>],
        replace: bool,
    ) -> Result<(), TakeError> {
        let updates = update::read(text, layout, &mut lock(&self.strings))?;
        let generation = if replace {
            let tables = store::fill(layout, updates);
            let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
            store.replace(tables);
            store.generation
        } else {
            let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
            store.apply(updates)?;
            store.generation
        };
        self.changed
            .send_if_modified(|old| std::mem::replace(old, generation) != generation);
        Ok(())
    }
}

/// Why updates could not be applied: the contents have to be fetched anew.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error("an update cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Desync(#[from] Desync),
}

impl Replica {
    pub(crate) fn new(client: Client, shared: Arc<Shared>) -> Self {
        Replica(Arc::new(Handle { shared, client }))
    }

    /// Reads the contents as they are at this moment. No update is applied while the closure runs:
    /// let it be short.
    pub fn read<R>(&self, read: impl FnOnce(Snapshot<'_>) -> R) -> R {
        self.0.shared.read(read)
    }

    /// The number of updates that changed something, to be awaited.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.shared.changed.subscribe()
    }

    /// Every change from now on. The first item is [`Change::Reset`]; what comes after it is not
    /// yet in a snapshot that was taken before, and may be in one that is taken later. Changes
    /// wait in memory until they are received.
    pub fn subscribe(&self) -> UnboundedReceiver<Change> {
        let (sender, changes) = unbounded_channel();
        self.0
            .shared
            .store
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .subscribe(sender);
        changes
    }

    /// Whether the contents are the server's: fetched, followed without a gap until now, and by
    /// the conditions that were set last.
    pub fn synced(&self) -> bool {
        *self.0.shared.synced.borrow()
    }

    /// [`Replica::synced`], to be awaited.
    pub fn watch_synced(&self) -> watch::Receiver<bool> {
        self.0.shared.synced.subscribe()
    }

    /// Waits until [`Replica::synced`].
    ///
    /// # Errors
    /// The deadline passed; the error says what stands in the way.
    pub async fn wait_synced(&self, deadline: Instant) -> Result<(), NotSynced> {
        let mut synced = self.0.shared.synced.subscribe();
        if tokio::time::timeout_at(deadline, synced.wait_for(|synced| *synced))
            .await
            .is_ok()
        {
            return Ok(());
        }
        let status = self.0.client.status().borrow().clone();
        let reason = match (status.connected, status.last_error) {
            (false, Some(error)) => error,
            (false, None) => "not connected yet".into(),
            (true, _) => "the first fetch is under way".into(),
        };
        Err(NotSynced {
            database: self.0.client.database().to_owned(),
            reason,
        })
    }

    /// Replaces the conditions of a table of the specification: it then holds the rows that meet
    /// one of them, none at all if there is no condition. [`Replica::synced`] is false until the
    /// server has carried the change out (`monitor_cond_change`, ovsdb-server(7)).
    pub fn set_condition(&self, table: &str, conditions: impl IntoIterator<Item = Condition>) {
        let conditions = Some(conditions.into_iter().collect());
        {
            let mut wanted = lock(&self.0.shared.wanted);
            let Some(spec) = wanted
                .spec
                .tables
                .iter_mut()
                .find(|spec| spec.name == table)
            else {
                return;
            };
            if spec.conditions == conditions {
                return;
            }
            spec.conditions = conditions;
            wanted.revision += 1;
        }
        self.0.shared.set_synced(None);
        self.0.client.send(Command::Condition(self.0.shared.id));
    }

    /// The client that the replica belongs to.
    pub fn client(&self) -> &Client {
        &self.0.client
    }
}

/// The contents of a replica at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    store: &'a Store,
}

impl<'a> Snapshot<'a> {
    /// All rows of a typed table, in no order.
    pub fn rows<T: Table>(&self) -> impl Iterator<Item = Result<T, DecodeError>> + use<'a, T> {
        self.raw(T::NAME).map(|row| row.decode())
    }

    /// A typed row.
    ///
    /// # Errors
    /// As [`Table::decode`].
    pub fn row<T: Table>(&self, uuid: Uuid) -> Result<Option<T>, DecodeError> {
        self.get(T::NAME, uuid).map(|row| row.decode()).transpose()
    }

    /// All rows of a table, in no order; none if the replica or the database lacks the table.
    pub fn raw(&self, table: &str) -> impl Iterator<Item = Row> + use<'a> {
        self.store
            .table(table)
            .into_iter()
            .flat_map(|table| table.rows())
    }

    /// A row.
    pub fn get(&self, table: &str, uuid: Uuid) -> Option<Row> {
        self.store.table(table)?.get(uuid)
    }

    /// The number of rows of a table.
    pub fn len(&self, table: &str) -> usize {
        self.store
            .table(table)
            .map_or(0, |table| table.rows().len())
    }

    /// Whether the table has no rows here.
    pub fn is_empty(&self, table: &str) -> bool {
        self.len(table) == 0
    }

    /// The number of updates that changed something, up to this moment.
    pub fn generation(&self) -> u64 {
        self.store.generation
    }
}
