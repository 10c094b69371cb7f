//! One piece of work at a time per attachment. Equal calls share it; others wait a moment, then are told to come again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::attacher::v1::{Attachment, AttachmentSpec};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::failure::Failure;
use crate::id::Id;

/// What is done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Attach(Box<AttachmentSpec>),
    Detach {
        force: bool,
        generation: u64,
    },
    Resize(u64),
    /// By ourselves. Gives way to a call.
    Repair,
}

impl Call {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Call::Attach(_) => "Attach",
            Call::Detach { .. } => "Detach",
            Call::Resize(_) => "Resize",
            Call::Repair => "Repair",
        }
    }
}

/// What came of it: the attachment, if there is one then.
pub(crate) type Answer = Result<Option<Attachment>, Failure>;
/// Where it will be.
pub(crate) type Outcome = watch::Receiver<Option<Answer>>;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table(Arc<Mutex<HashMap<Id, Running>>>);

#[derive(Debug)]
struct Running {
    call: Call,
    outcome: Outcome,
    give_way: CancellationToken,
    /// Something happened meanwhile that the work may not have seen.
    again: bool,
    /// Good news came meanwhile, most often of the work's own doing: they matter where it fails.
    news: bool,
}

/// What [`Table::begin`] found.
pub(crate) enum Begin {
    /// It is ours to do.
    Start(Ticket),
    /// An equal call is under way: its answer is ours.
    Join(Outcome),
    /// Another call, of this name, is under way.
    Wait(Outcome, &'static str),
}

/// The right to work on an attachment, until it is finished or dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    table: Table,
    id: Id,
    answer: watch::Sender<Option<Answer>>,
    /// Cancelled when a call wants a repair's place.
    pub(crate) give_way: CancellationToken,
    finished: bool,
}

impl Table {
    pub(crate) fn begin(&self, id: &Id, call: &Call) -> Begin {
        let mut all = self.all();
        if let Some(running) = all.get(id) {
            if running.call == *call {
                return Begin::Join(running.outcome.clone());
            }
            if running.call == Call::Repair {
                running.give_way.cancel();
            }
            return Begin::Wait(running.outcome.clone(), running.call.name());
        }
        let (answer, outcome) = watch::channel(None);
        let give_way = CancellationToken::new();
        let running = Running {
            call: call.clone(),
            outcome,
            give_way: give_way.clone(),
            again: false,
            news: false,
        };
        all.insert(id.clone(), running);
        Begin::Start(Ticket {
            table: self.clone(),
            id: id.clone(),
            answer,
            give_way,
            finished: false,
        })
    }

    /// The right to repair, unless something is under way: then whoever does it is told to look again.
    pub(crate) fn repair(&self, id: &Id) -> Option<Ticket> {
        if let Begin::Start(ticket) = self.begin_quietly(id) {
            return Some(ticket);
        }
        None
    }

    /// Good news of an attachment: true if they are left to whoever works on it.
    pub(crate) fn news(&self, id: &Id) -> bool {
        let mut all = self.all();
        let running = all.get_mut(id);
        running.map(|running| running.news = true).is_some()
    }

    fn begin_quietly(&self, id: &Id) -> Begin {
        {
            let mut all = self.all();
            if let Some(running) = all.get_mut(id) {
                running.again = true;
                return Begin::Join(running.outcome.clone());
            }
        }
        self.begin(id, &Call::Repair)
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Id, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Everybody who joined gets `answer`. True if it has to be looked at again.
    pub(crate) fn finish(mut self, answer: Answer) -> bool {
        self.end(answer)
    }

    fn end(&mut self, answer: Answer) -> bool {
        self.finished = true;
        let failed = answer.is_err();
        // Free before the answer is out: who got it may call again at once.
        let running = self.table.all().remove(&self.id);
        self.answer.send_replace(Some(answer));
        running.is_some_and(|running| running.again || (failed && running.news))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.finished {
            let sentence = format!(
                "{}: the work on it panicked, see the log; repeat the call",
                self.id
            );
            self.end(Err(Failure::new(Code::Internal, sentence)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> Id {
        Id {
            host: "n".to_owned(),
            uuid: uuid::Uuid::nil(),
        }
    }

    #[tokio::test]
    async fn good_news_matter_to_work_that_failed() {
        let table = Table::default();
        assert!(!table.news(&id()), "nobody works on it");
        for failed in [false, true] {
            let Begin::Start(ticket) = table.begin(&id(), &Call::Resize(1)) else {
                panic!("nothing is under way");
            };
            assert!(table.news(&id()));
            let answer = if failed {
                Err(Failure::new(Code::Unavailable, "not yet"))
            } else {
                Ok(None)
            };
            assert_eq!(ticket.finish(answer), failed);
        }
    }

    #[tokio::test]
    async fn equal_calls_share_an_answer_and_others_wait() {
        let table = Table::default();
        let Begin::Start(ticket) = table.begin(&id(), &Call::Resize(1)) else {
            panic!("nothing is under way");
        };
        let Begin::Join(mut joined) = table.begin(&id(), &Call::Resize(1)) else {
            panic!("it is equal");
        };
        let Begin::Wait(_, holder) = table.begin(&id(), &Call::Resize(2)) else {
            panic!("it is another");
        };
        assert_eq!(holder, "Resize");
        assert!(table.repair(&id()).is_none());
        assert!(ticket.finish(Ok(None)), "a repair was wanted meanwhile");
        let answer = joined.wait_for(Option::is_some).await.unwrap().clone();
        assert_eq!(answer, Some(Ok(None)));
        let repair = table.repair(&id()).unwrap();
        let Begin::Wait(..) = table.begin(&id(), &Call::Resize(1)) else {
            panic!("a repair is under way");
        };
        assert!(repair.give_way.is_cancelled());
        drop(repair);
        assert!(table.all().is_empty(), "also when the work panics");
    }
}
