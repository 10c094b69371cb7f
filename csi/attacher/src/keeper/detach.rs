//! Takes a volume from a host.

use fail::fail_point;
use proto::attacher::v1::State;
use tonic::Code;

use super::{Answer, Keeper, kind};
use crate::core::plan::plan;
use crate::core::wanted::wanted;
use crate::failure::Failure;
use crate::id::Id;
use crate::record::{Goal, Record};

impl Keeper {
    pub(super) async fn detach(&self, id: &Id, force: bool, generation: u64) -> Answer {
        let Some(mut record) = self.record(id) else {
            return Ok(None);
        };
        if generation != 0 && generation != record.generation {
            return Err(Failure::new(
                Code::FailedPrecondition,
                format!(
                    "{id}: generation {generation} is asked for, and it is {}: another Attach came between; nothing is to be done",
                    record.generation
                ),
            ));
        }
        let force = force || record.goal == Goal::Gone { force: true };
        let goal = Goal::Gone { force };
        if record.goal != goal {
            record.goal = goal;
            self.save(&record).await?;
            fail_point!("detach::recorded");
        }
        self.publish(
            &record,
            State::Detaching,
            "it is being taken from the host".to_owned(),
        );
        self.take_away(record).await.map(|()| None)
    }

    /// Until nothing of it is left on the card nor in the journal.
    pub(super) async fn take_away(&self, mut record: Record) -> Result<(), Failure> {
        let id = record.id();
        let why = match self.converge(&mut record).await {
            Ok(_) => {
                fail_point!("detach::done");
                return self.forget(&id).await;
            }
            Err(why) => why,
        };
        let why = Failure::new(why.code, format!("{id}: {why}"));
        if why.code == Code::FailedPrecondition && record.goal == (Goal::Gone { force: false }) {
            return Err(self.refused(record, why).await);
        }
        let sentence = match why.code {
            Code::Aborted => format!(
                "the host has not let go of it yet ({why}); repeat Detach until it answers OK"
            ),
            _ => why.sentence.clone(),
        };
        self.publish(&record, State::Detaching, sentence);
        Err(why)
    }

    /// The host uses it. If nothing was taken yet, it stays attached; else it is on its way out, and the caller comes again.
    async fn refused(&self, mut record: Record, why: Failure) -> Failure {
        let id = record.id();
        let seen = match Box::pin(self.0.card.observe(&id.object(), kind(&record))).await {
            Ok(seen) => seen,
            Err(why) => return why,
        };
        let as_before = Record {
            goal: Goal::Attached,
            ..record.clone()
        };
        let whole = plan(&wanted(&as_before), &seen).is_empty();
        if !whole || !record.acknowledged {
            self.publish(&record, State::Detaching, why.sentence.clone());
            return Failure::new(Code::Aborted, why.sentence);
        }
        record = as_before;
        if let Err(why) = self.save(&record).await {
            return why;
        }
        match self.settle(&mut record, &seen).await {
            Ok(_) => why,
            Err(why) => why,
        }
    }
}
