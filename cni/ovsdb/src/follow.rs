//! How a session fills replicas and keeps them up to date.

use crate::connect::take_update;
use crate::replica::Shared;
use crate::row::TableLayout;
use crate::session::{End, Monitors, Pending, Session};
use jsonrpc::{Raw, RemoteError};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::sync::Arc;

/// Texts above this size are decoded on a thread of their own.
const LARGE: usize = 64 << 10;

/// A replica as the connection sees it.
#[derive(Debug)]
pub(crate) struct Monitor {
    shared: Arc<Shared>,
    layout: Arc<Vec<Arc<TableLayout>>>,
    /// The last transaction whose effect the replica has, where the server tells.
    last_txn: Option<String>,
    /// The revision of the conditions by which the contents are; `None` until there are any.
    revision: Option<u64>,
    /// The revision that was sent and not answered.
    asked: Option<u64>,
    /// Whether the contents are those of this session's server.
    live: bool,
}

impl Monitor {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let layout = Arc::default();
        Monitor {
            shared,
            layout,
            last_txn: None,
            revision: None,
            asked: None,
            live: false,
        }
    }

    /// After a session: the contents can be resumed only if no change of the conditions was on
    /// its way, since part of it may have been carried out.
    pub(crate) fn disconnected(&mut self) {
        if self.asked.take().is_some() {
            self.last_txn = None;
        }
        self.live = false;
        self.shared.set_synced(None);
    }

    pub(crate) fn name(&self) -> String {
        format!("replica-{}", self.shared.id)
    }

    fn publish(&self) {
        self.shared.set_synced(self.revision.filter(|_| self.live));
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.live && self.revision == Some(self.shared.revision())
    }
}

/// How replicas are asked for, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    CondSince,
    Cond,
    Plain,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::CondSince => "monitor_cond_since",
            Method::Cond => "monitor_cond",
            Method::Plain => "monitor",
        }
    }

    fn next(self) -> Option<Self> {
        match self {
            Method::CondSince => Some(Method::Cond),
            Method::Cond => Some(Method::Plain),
            Method::Plain => None,
        }
    }
}

impl Session {
    /// Asks for a replica's contents, from where it was if that is possible.
    pub(crate) fn ask(&mut self, monitor: &mut Monitor) -> Result<(), End> {
        let wanted = monitor.shared.wanted();
        let layout = wanted.spec.layout(&self.schema);
        if layout != *monitor.layout || monitor.revision != Some(wanted.revision) {
            monitor.last_txn = None;
        }
        monitor.layout = Arc::new(layout);
        monitor.asked = Some(wanted.revision);
        let plain = self.method == Method::Plain;
        let requests = wanted.spec.requests(&monitor.layout, plain);
        let mut params = vec![json!(self.schema.name), json!(monitor.name()), requests];
        if self.method == Method::CondSince {
            let nothing = || uuid::Uuid::nil().to_string();
            params.push(json!(monitor.last_txn.clone().unwrap_or_else(nothing)));
        }
        let pending = Pending::Monitor {
            id: monitor.shared.id,
            method: self.method,
        };
        self.request(self.method.name(), &params, pending)
    }

    /// Asks for a change of the conditions unless an answer is awaited, after which it is asked.
    pub(crate) fn ask_condition(&mut self, monitor: &mut Monitor) -> Result<(), End> {
        let wanted = monitor.shared.wanted();
        if monitor.asked.is_some() || monitor.revision == Some(wanted.revision) {
            return Ok(());
        }
        if self.method == Method::Plain {
            monitor.revision = Some(wanted.revision);
            monitor.publish();
            return Ok(());
        }
        monitor.asked = Some(wanted.revision);
        let conditions = wanted.spec.conditions(&monitor.layout);
        let params = json!([monitor.name(), monitor.name(), conditions]);
        let pending = Pending::Condition {
            id: monitor.shared.id,
        };
        self.request("monitor_cond_change", &params, pending)
    }

    pub(crate) fn take_condition(
        &mut self,
        monitor: &mut Monitor,
        outcome: Result<Raw, RemoteError>,
    ) -> Result<(), End> {
        outcome.map_err(|error| End::lost(format!("monitor_cond_change: {error}")))?;
        monitor.revision = monitor.asked.take();
        monitor.publish();
        self.ask_condition(monitor)
    }

    /// Takes in the answer to a monitor request, or asks again in an older way.
    pub(crate) async fn take_contents(
        &mut self,
        monitor: &mut Monitor,
        method: Method,
        outcome: Result<Raw, RemoteError>,
    ) -> Result<(), End> {
        match outcome {
            Err(error) if error.message.starts_with("unknown method") => {
                // Requests that were sent before the first such answer come here as well.
                if self.method == method {
                    let older = method.next();
                    self.method = older.ok_or_else(|| End::lost("it has no monitors"))?;
                }
                monitor.last_txn = None;
                self.ask(monitor)
            }
            Err(error) => Err(End::lost(format!("{}: {error}", method.name()))),
            Ok(contents) => {
                monitor.last_txn = self.fill(monitor, contents, method).await?;
                monitor.revision = monitor.asked.take();
                monitor.live = true;
                monitor.publish();
                self.ask_condition(monitor)
            }
        }
    }

    /// Takes in the answer to a monitor request; gives the last transaction's id.
    async fn fill(
        &self,
        monitor: &mut Monitor,
        contents: Raw,
        method: Method,
    ) -> Result<Option<String>, End> {
        let (shared, layout) = (monitor.shared.clone(), monitor.layout.clone());
        let resumed = monitor.last_txn.take().is_some();
        let size = contents.get().len();
        let work = move || {
            if method != Method::CondSince {
                shared
                    .take(contents.get(), &layout, true)
                    .map_err(|e| e.to_string())?;
                return Ok(None);
            }
            let (found, last, updates) =
                self::contents(contents.get()).map_err(|e| e.to_string())?;
            let replace = !(found && resumed);
            shared
                .take(updates.get(), &layout, replace)
                .map_err(|e| e.to_string())?;
            Ok::<_, String>(Some(last))
        };
        heavy(size, work).await?.map_err(End::lost)
    }

    pub(crate) async fn take_update(
        &mut self,
        params: Raw,
        monitors: &mut Monitors,
    ) -> Result<(), End> {
        if take_update(&params, &mut self.server) {
            return self.server.check().map_err(End::lost);
        }
        let (id, last_txn) = update_head(params.get()).map_err(End::lost)?;
        let number = id
            .as_str()
            .and_then(|id| id.strip_prefix("replica-")?.parse::<u64>().ok());
        // An update may cross with the monitor's cancellation.
        let Some(monitor) = number.and_then(|id| monitors.get_mut(&id)) else {
            return Ok(());
        };
        if !monitor.live {
            return Err(End::lost("an update came before the contents"));
        }
        let (shared, layout) = (monitor.shared.clone(), monitor.layout.clone());
        let size = params.get().len();
        let work = move || shared.take(updates(params.get())?, &layout, false);
        if let Err(error) = heavy(size, work).await? {
            monitor.last_txn = None;
            monitor.revision = None;
            return Err(End::Lost {
                reason: error.to_string(),
                advance: false,
            });
        }
        if last_txn.is_some() {
            monitor.last_txn = last_txn;
        }
        Ok(())
    }
}

/// The result of `monitor_cond_since`: `[<found>, <last-txn-id>, <table-updates2>]`.
pub(crate) fn contents(result: &str) -> Result<(bool, String, &RawValue), serde_json::Error> {
    serde_json::from_str(result)
}

/// The `<updates>` of what [`update_head`] reads.
pub(crate) fn updates(params: &str) -> Result<&str, serde_json::Error> {
    let parts: Vec<&RawValue> = serde_json::from_str(params)?;
    Ok(parts.last().map_or("{}", |updates| updates.get()))
}

/// `[<monitor-id>, <updates>]`, or `[<monitor-id>, <last-txn-id>, <updates>]`.
pub(crate) fn update_head(params: &str) -> Result<(Value, Option<String>), serde_json::Error> {
    let parts: Vec<&RawValue> = serde_json::from_str(params)?;
    let id = parts
        .first()
        .map_or(Ok(Value::Null), |id| serde_json::from_str(id.get()))?;
    let last = (parts.len() > 2)
        .then(|| serde_json::from_str(parts[1].get()))
        .transpose()?;
    Ok((id, last))
}

/// Runs what takes long for large texts where it holds up nobody.
async fn heavy<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, End> {
    if size > LARGE {
        blocking(work).await
    } else {
        Ok(work())
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, End> {
    tokio::task::spawn_blocking(work).await.map_err(End::lost)
}
