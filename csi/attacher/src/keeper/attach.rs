//! Makes a volume appear at a host.

use std::sync::Arc;

use fail::fail_point;
use proto::attacher::v1::{AttachmentSpec, State};
use proto::card::v1::SourceState;
use tonic::Code;

use super::{Answer, Keeper};
use crate::core::assess::assess;
use crate::core::function;
use crate::core::seen::Seen;
use crate::failure::Failure;
use crate::id::Id;
use crate::record::{Goal, Record};
use crate::request;
use crate::wire::Wire;

impl Keeper {
    pub(super) async fn attach(&self, id: &Id, spec: AttachmentSpec) -> Answer {
        fail_point!("attach::begun");
        // Who asks for it has let go of what died before.
        self.0.died.take(id);
        let mut found = self.record(id);
        if let Some(record) = found.take_if(|record| record.goal != Goal::Attached) {
            // What is on its way out goes out first; what the host does not let go can't come anew.
            self.take_away(record).await?;
        }
        let before = found.clone();
        let mut record = match found {
            None => self.begin(id, spec).await?,
            Some(record) => self.taken_over(record, spec).await?,
        };
        fail_point!("attach::recorded");
        match self.until_attached(&mut record).await {
            Ok(seen) => {
                // Nobody has looked since the device died, maybe: what is there now is not compared with what was.
                (record.lost, record.device, record.epoch) = (None, None, None);
                record.acknowledged = true;
                fail_point!("attach::attached");
                // Saved with the device that is there, in one write.
                self.settle(&mut record, &seen).await.map(Some)
            }
            Err(why) => Err(self.failed(record, before, why).await),
        }
    }

    /// A new record, with its function reserved.
    async fn begin(&self, id: &Id, spec: AttachmentSpec) -> Result<Record, Failure> {
        let generations = Arc::clone(&self.0.generations);
        let generation = generations.next().await;
        let generation = generation.map_err(|error| Failure::of_journal(&error))?;
        let exposure = spec.exposure.unwrap_or_default();
        let mut record = Record::new(id, spec, generation);
        if function::needs_one(function::asked(exposure).0) {
            let _choosing = self.0.choosing.lock().await;
            let inventory = self.0.card.inventory().await?;
            let reserved: Vec<_> = self
                .records()
                .iter()
                .filter_map(|other| other.function.as_ref().map(|function| function.0))
                .collect();
            let chosen = function::choose(exposure, &inventory, &reserved, &id.object())?;
            record.function = Some(Wire(chosen));
            self.insert(&record).await?;
        } else {
            self.insert(&record).await?;
        }
        self.publish(
            &record,
            State::Attaching,
            "it is on its way to the host".to_owned(),
        );
        Ok(record)
    }

    /// The record with what may change taken over.
    async fn taken_over(
        &self,
        mut record: Record,
        asked: AttachmentSpec,
    ) -> Result<Record, Failure> {
        let id = record.id();
        if let Some(field) = request::contradiction(&record.spec.0, &asked) {
            return Err(Failure::new(
                Code::AlreadyExists,
                format!("{id}: is attached with another {field}; detach it first"),
            ));
        }
        let mut spec = asked;
        // It never shrinks; whether the device fits is looked at when it is there.
        spec.size_bytes = spec.size_bytes.max(record.spec.0.size_bytes);
        if spec != record.spec.0 {
            record.spec.0 = spec;
            self.save(&record).await?;
        }
        Ok(record)
    }

    /// Converges, and looks whether the host really has it.
    pub(super) async fn until_attached(&self, record: &mut Record) -> Result<Seen, Failure> {
        let seen = self.converge(record).await?;
        let id = record.id();
        let size = seen.device.as_ref().map_or(0, |end| end.device.size_bytes);
        let wanted = record.spec.0.size_bytes;
        if wanted != 0 && size > wanted {
            return Err(Failure::new(
                Code::FailedPrecondition,
                format!(
                    "{id}: the source has {size} bytes, {wanted} were expected; call Resize, or look whether it is the right source"
                ),
            ));
        }
        let connected = seen
            .source
            .as_ref()
            .is_some_and(|s| s.state == SourceState::Connected);
        if connected && size > 0 {
            return Ok(seen);
        }
        let as_if = Record {
            lost: None,
            ..record.clone()
        };
        let (_, why) = assess(&as_if, &seen);
        Err(Failure::new(
            Code::Unavailable,
            format!("{id}: {why}; repeat the call"),
        ))
    }

    /// What the caller is told of `why`, after what has to go is on its way: an attachment that never was leaves nothing, one that was
    /// stays as it was.
    pub(super) async fn failed(
        &self,
        mut record: Record,
        before: Option<Record>,
        why: Failure,
    ) -> Failure {
        let id = record.id();
        let told = match why.code {
            Code::OutOfRange => Code::FailedPrecondition,
            Code::Aborted => Code::Unavailable,
            code => code,
        };
        let told = Failure::new(
            told,
            format!(
                "{id}: {}",
                why.sentence.trim_start_matches(&format!("{id}: "))
            ),
        );
        if !told.is_final() {
            let (state, sentence) = match &record.lost {
                Some(lost) => (State::Lost, format!("{} ({told})", lost.sentence)),
                None if record.acknowledged => (State::Degraded, told.sentence.clone()),
                None => (State::Attaching, told.sentence.clone()),
            };
            self.publish(&record, state, sentence);
            return told;
        }
        if record.acknowledged {
            if let Some(before) = before {
                record.spec = before.spec;
            }
            if let Err(why) = self.save(&record).await {
                return why;
            }
            self.publish(&record, State::Degraded, told.sentence.clone());
            return told;
        }
        record.goal = Goal::Gone { force: true };
        if let Err(why) = self.save(&record).await {
            return why;
        }
        fail_point!("attach::undone", |_| told.clone());
        // What can't be undone now is undone by the next repair; the caller's answer is the cause.
        if let Err(left) = self.take_away(record).await {
            tracing::warn!("{id}: an attach that failed is not undone yet: {left}");
        }
        told
    }
}
