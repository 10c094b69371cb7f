//! The async half: takes a call to the card, step by step, with the journal written first.
//!
//! [`table`] (who works) → [`attach`], [`detach`], [`resize`], [`repair`] (what is done) → `converge` here: observe → wanted → plan →
//! apply, until a plan is empty. Work belongs to nobody's request: it goes on when the callers have gone. [`events`] follows the card.

mod attach;
mod detach;
mod events;
mod repair;
mod resize;
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use journal::Journal;
use proto::attacher::v1::{Attachment, InventoryResponse, State};
use proto::volume::v1::ExposureKind;
use tokio::time::Instant;
use tonic::Code;

use crate::card::Card;
use crate::core::assess::{asks_for_users, assess, noted};
use crate::core::function;
use crate::core::plan::{Step, plan};
use crate::core::seen::Seen;
use crate::core::wanted::wanted;
use crate::failure::Failure;
use crate::generation::Generations;
use crate::hub::Hub;
use crate::id::Id;
use crate::metrics::Metrics;
use crate::record::Record;
use crate::wire::Wire;

pub(crate) use events::follow;
pub(crate) use table::{Answer, Call};
use table::{Begin, Table};

/// How long a call waits for one that contradicts it.
const WAIT: Duration = Duration::from_secs(2);
/// So often a card may answer otherwise than asked before it is given up for now.
const ROUNDS: usize = 4;

/// Keeps the attachments of one card. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Keeper(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Arc<Journal<Record>>,
    generations: Arc<Generations>,
    card: Card,
    hosts: Vec<String>,
    hub: Hub,
    table: Table,
    retries: repair::Retries,
    died: repair::Died,
    /// Held from the look at the card's functions to the record of the chosen one.
    choosing: tokio::sync::Mutex<()>,
    survives: AtomicBool,
    metrics: Metrics,
}

impl Keeper {
    /// Of `hosts` on `card`, with what the journal says.
    pub(crate) fn new(
        journal: Journal<Record>,
        generations: Generations,
        card: Card,
        hosts: Vec<String>,
        metrics: Metrics,
    ) -> Self {
        let keeper = Self(Arc::new(Inner {
            journal: Arc::new(journal),
            generations: Arc::new(generations),
            card,
            hosts,
            hub: Hub::new(metrics.clone()),
            table: Table::default(),
            retries: repair::Retries::default(),
            died: repair::Died::default(),
            choosing: tokio::sync::Mutex::default(),
            survives: AtomicBool::new(false),
            metrics,
        }));
        for record in keeper.records() {
            let (state, why) = assess(&record, &Seen::default());
            let why = format!(
                "volume-attacher was started again, and the card was not asked yet ({why})"
            );
            keeper.publish(&record, state, why);
        }
        keeper
    }

    pub(crate) fn hosts(&self) -> &[String] {
        &self.0.hosts
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Does `call`, or joins who does it, and answers until `deadline`.
    pub(crate) async fn call(&self, id: &Id, call: Call, deadline: Instant) -> Answer {
        let patience = deadline.min(Instant::now() + WAIT);
        loop {
            match self.0.table.begin(id, &call) {
                Begin::Start(ticket) => {
                    let (keeper, id, call) = (self.clone(), id.clone(), call.clone());
                    tokio::spawn(async move { keeper.work(&id, call, ticket).await });
                    // The next look joins it.
                }
                Begin::Join(mut outcome) => {
                    let waiting = outcome.wait_for(Option::is_some);
                    let Ok(answer) = tokio::time::timeout_at(deadline, waiting).await else {
                        self.0.metrics.late.inc();
                        return Err(Failure::new(
                            Code::DeadlineExceeded,
                            format!(
                                "{id}: {} is not done in time{}; it goes on, repeat the call",
                                call.name(),
                                self.stands(id)
                            ),
                        ));
                    };
                    // The sender lives until it has answered.
                    return answer
                        .ok()
                        .and_then(|answer| answer.clone())
                        .unwrap_or_else(|| {
                            Err(Failure::new(
                                Code::Internal,
                                format!("{id}: {} ended without an answer", call.name()),
                            ))
                        });
                }
                Begin::Wait(mut outcome, holder) => {
                    let waiting = outcome.wait_for(Option::is_some);
                    if tokio::time::timeout_at(patience, waiting).await.is_err() {
                        return Err(Failure::new(
                            Code::Aborted,
                            format!(
                                "{id}: {holder} is still under way; repeat {} later",
                                call.name()
                            ),
                        ));
                    }
                }
            }
        }
    }

    /// For a sentence: where it stands.
    fn stands(&self, id: &Id) -> String {
        match self.0.hub.get(id) {
            Some(found) if !found.message.is_empty() => format!(" ({})", found.message),
            _ => String::new(),
        }
    }

    async fn work(&self, id: &Id, call: Call, ticket: table::Ticket) {
        let name = call.name();
        let began = Instant::now();
        let give_way = ticket.give_way.clone();
        let work = async {
            match call {
                Call::Attach(spec) => self.attach(id, *spec).await,
                Call::Detach { force, generation } => self.detach(id, force, generation).await,
                Call::Resize(size) => self.resize(id, size).await,
                Call::Repair => self.repair(id).await,
            }
        };
        let answer = tokio::select! {
            answer = work => answer,
            () = give_way.cancelled() => Err(Failure::new(Code::Aborted, "gave way to a call")),
        };
        let code = answer
            .as_ref()
            .err()
            .map_or(Code::Ok, |failure| failure.code);
        self.0.metrics.done(name, code, began.elapsed());
        match &answer {
            Ok(_) => tracing::debug!(host = id.host, volume = %id.uuid, "{name}: done"),
            Err(why) => {
                tracing::info!(host = id.host, volume = %id.uuid, code = ?why.code, "{name}: {why}");
            }
        }
        let given_way = give_way.is_cancelled();
        let again = ticket.finish(answer);
        if !given_way {
            self.after(id, again);
        }
    }

    /// Until the card has what `record` wants: what it has then. Whatever is left undone is found by the next round, of this process or
    /// the next.
    async fn converge(&self, record: &mut Record) -> Result<Seen, Failure> {
        let object = record.id().object();
        let mut conflict = None;
        for _ in 0..ROUNDS {
            let seen = Box::pin(self.0.card.observe(&object, kind(record))).await?;
            let steps = plan(&wanted(record), &seen);
            if steps.is_empty() {
                return Ok(seen);
            }
            for step in &steps {
                let anew = matches!(step, Step::CreateSource(_) | Step::DeleteSource);
                if anew && record.limits.take().is_some() {
                    self.save(record).await?;
                }
                match Box::pin(self.0.card.apply(&object, step)).await {
                    Ok(()) => {}
                    // Somebody else's hand, or a card that thinks otherwise of equality: look again.
                    Err(why) if why.code == Code::AlreadyExists => {
                        conflict = Some(why);
                        break;
                    }
                    Err(why) => return Err(why),
                }
                if let Step::SetLimits(limits) = step {
                    record.limits = Some(Wire(*limits));
                    self.save(record).await?;
                }
            }
        }
        Err(conflict.unwrap_or_else(|| {
            let sentence = format!(
                "{}: the card keeps answering otherwise than it was asked; see its log",
                record.id()
            );
            Failure::new(Code::Unavailable, sentence)
        }))
    }

    /// Takes over what the card said. Returns what callers are told.
    async fn settle(&self, record: &mut Record, seen: &Seen) -> Result<Attachment, Failure> {
        let now = self.noted(record, seen).await?;
        if now != *record {
            *record = now;
            self.save(record).await?;
        }
        let (state, why) = assess(record, seen);
        Ok(self.publish(record, state, why))
    }

    /// The record after the card said `seen`, which is asked for the device's users where they matter.
    async fn noted(&self, record: &Record, seen: &Seen) -> Result<Record, Failure> {
        let survives = self.0.survives.load(Ordering::Relaxed);
        let mut seen = seen.clone();
        if asks_for_users(record, &seen, survives)
            && let Some(end) = &mut seen.device
        {
            let object = record.id().object();
            end.in_use = Box::pin(self.0.card.in_use(&object, kind(record))).await?;
        }
        Ok(noted(record.clone(), &seen, survives))
    }

    fn publish(&self, record: &Record, state: State, message: String) -> Attachment {
        let id = record.id();
        self.0.hub.put(&id, attachment(record, state, message))
    }

    /// One attachment, from what the card says now. A card that can't say is an error, unless it is known that something is wrong: then
    /// that is the answer.
    pub(crate) async fn get(&self, id: &Id) -> Result<Attachment, Failure> {
        let record = self.record(id).ok_or_else(|| {
            Failure::new(
                Code::NotFound,
                format!("{id}: is not attached; call Attach first"),
            )
        })?;
        let seen = match Box::pin(self.0.card.observe(&id.object(), kind(&record))).await {
            Ok(seen) => seen,
            Err(why) => {
                let known = self.0.hub.get(id);
                let known = known.filter(|known| known.state() != State::Attached);
                return known.ok_or(why);
            }
        };
        let now = self.noted(&record, &seen).await?;
        if now != record {
            // It is not ours to write; who does so looks for himself.
            self.wake(id);
        }
        let (state, message) = assess(&now, &seen);
        let mut attachment = attachment(&now, state, message);
        let known = self
            .0
            .hub
            .get(id)
            .filter(|known| known.state == attachment.state);
        attachment.since = known.and_then(|known| known.since);
        Ok(attachment)
    }

    /// What the card can do and has left, for `host`.
    pub(crate) async fn inventory(&self, host: &str) -> Result<InventoryResponse, Failure> {
        let found = self.0.card.inventory().await?;
        self.0
            .survives
            .store(found.survives_engine_restart, Ordering::Relaxed);
        Ok(InventoryResponse {
            host: host.to_owned(),
            card: found.card,
            functions: found.counts,
            sources: found.sources,
            epoch: found.epoch,
            hosts: self.0.hosts.clone(),
        })
    }

    fn record(&self, id: &Id) -> Option<Record> {
        let record = self.0.journal.get(&id.object())?;
        Some(record.value.clone())
    }

    fn records(&self) -> Vec<Record> {
        let all = self.0.journal.iter();
        all.map(|(_, record)| record.value.clone()).collect()
    }

    async fn save(&self, record: &Record) -> Result<(), Failure> {
        let (journal, record) = (Arc::clone(&self.0.journal), record.clone());
        on_disk(move || journal.update(&record.id().object(), record).map(drop)).await
    }

    async fn insert(&self, record: &Record) -> Result<(), Failure> {
        let (journal, record) = (Arc::clone(&self.0.journal), record.clone());
        on_disk(move || journal.insert(&record.id().object(), record).map(drop)).await
    }

    async fn forget(&self, id: &Id) -> Result<(), Failure> {
        let (journal, object) = (Arc::clone(&self.0.journal), id.object());
        on_disk(move || journal.remove(&object).map(drop)).await?;
        self.0.hub.remove(id);
        Ok(())
    }
}

fn attachment(record: &Record, state: State, message: String) -> Attachment {
    Attachment {
        id: Some(record.id().message()),
        spec: Some(record.spec.0.clone()),
        state: state.into(),
        message,
        device: record.device.as_ref().map(|device| device.0.clone()),
        epoch: record.epoch.as_ref().map(|epoch| epoch.0.clone()),
        generation: record.generation,
        since: None,
    }
}

fn kind(record: &Record) -> ExposureKind {
    function::asked(record.spec.0.exposure.unwrap_or_default()).0
}

async fn on_disk(
    write: impl FnOnce() -> Result<(), journal::Error> + Send + 'static,
) -> Result<(), Failure> {
    match tokio::task::spawn_blocking(write).await {
        Ok(written) => written.map_err(|error| Failure::of_journal(&error)),
        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
    }
}
