//! Who may write the northbound database: the owner's mark in NB_Global.
//!
//! A Lease says who should; it cannot stop a process that has slept through its loss. So the owner
//! writes `<identity>/<epoch>` into NB_Global, and every transaction starts with a wait for exactly
//! that ([`Fence::guard`]): whoever was replaced is refused by the database itself. (An OVSDB lock
//! would not do: it is per server.)

use crate::observed::Observed;
use ovsdb::{
    Client, Condition, Datum, Mutation, RefusalKind, TransactError, Transaction, Uuid, Values, Wait,
};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Key in NB_Global.external_ids with the owner's mark.
pub const OWNER_KEY: &str = "outboard-owner";
const GLOBAL: &str = "NB_Global";
const DEADLINE: Duration = Duration::from_secs(10);

/// The right to write, as long as nobody else has taken it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    global: Uuid,
    mark: String,
}

/// Why the right was not had.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else was faster, or changed NB_Global at that moment: look again.
    #[error("NB_Global changed while the owner's mark was written")]
    Raced,
    /// The database did not take it.
    #[error("the owner's mark could not be written")]
    Database(#[source] TransactError),
}

impl Fence {
    /// Takes the right from whoever has it. `identity` is this process's.
    ///
    /// # Errors
    /// [`ClaimError::Raced`] if the mark is no longer the one that `observed` has.
    pub async fn claim(
        client: &Client,
        observed: &Observed,
        identity: &str,
    ) -> Result<Self, ClaimError> {
        let former = observed.global_key(OWNER_KEY);
        let epoch = former.and_then(epoch_of).map_or(1, |epoch| epoch + 1);
        let mark = format!("{identity}/{epoch}");
        let mut transaction = Transaction::new();
        let there = observed.global();
        let mut inserted = None;
        if let Some(row) = there {
            let uuid = row.uuid();
            transaction.wait(match former {
                Some(former) => Wait::row(GLOBAL, uuid, [owner_is(former)]),
                // That a map lacks a key cannot be said: the column as a whole has to do.
                None => {
                    let present = row
                        .get("external_ids")
                        .cloned()
                        .unwrap_or(Datum::empty_map());
                    let values = Values::new().set("external_ids", present);
                    Wait::equal(GLOBAL, [Condition::uuid(uuid)], ["external_ids"], [values])
                }
            });
            let change = [
                Mutation::delete("external_ids", Datum::set([OWNER_KEY])),
                Mutation::insert("external_ids", Datum::map([(OWNER_KEY, mark.as_str())])),
            ];
            transaction.mutate(GLOBAL, [Condition::uuid(uuid)], change);
        } else {
            // A fresh database; northd would make the row as well.
            transaction.wait(Wait::no_row(GLOBAL, []));
            let ids = BTreeMap::from([(OWNER_KEY, mark.as_str())]);
            let values = Values::new().set("external_ids", Datum::from(ids));
            inserted = Some(transaction.insert(GLOBAL, values));
        }
        let outcome = client
            .transact(transaction, Instant::now() + DEADLINE)
            .await;
        let outcome =
            outcome.map_err(|error| match error.refusal().map(|refusal| refusal.kind) {
                Some(RefusalKind::Guard | RefusalKind::Constraint) => ClaimError::Raced,
                _ => ClaimError::Database(error),
            })?;
        let new = inserted.and_then(|name| outcome.inserted(&name));
        let global = there
            .map(|row| row.uuid())
            .or(new)
            .ok_or(ClaimError::Raced)?;
        tracing::info!(mark, former, "took the northbound database");
        Ok(Self { global, mark })
    }

    /// The operation that every transaction starts with. Costs nothing, and is not disturbed by
    /// other keys.
    pub fn guard(&self) -> Wait {
        Wait::row(GLOBAL, self.global, [owner_is(&self.mark)])
    }

    /// The mark.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Whether the database has this mark, as far as is known.
    pub fn holds(&self, observed: &Observed) -> bool {
        let global = observed.global().map(|row| row.uuid());
        global == Some(self.global) && observed.global_key(OWNER_KEY) == Some(&self.mark)
    }

    /// Whether somebody else has taken the database since: a mark of another identity or of a
    /// later epoch. (No mark, or an older one of our own, is a database that was emptied or put
    /// back to an earlier state: what this process knows is newer.)
    pub fn is_lost(&self, observed: &Observed) -> bool {
        let Some(mark) = observed.global_key(OWNER_KEY) else {
            return false;
        };
        let identity = |mark: &str| mark.rsplit_once('/').map(|(id, _)| id.to_owned());
        let ours = identity(mark) == identity(&self.mark);
        !ours || epoch_of(mark) > epoch_of(&self.mark)
    }
}

fn owner_is(mark: &str) -> Condition {
    Condition::includes("external_ids", Datum::map([(OWNER_KEY, mark)]))
}

fn epoch_of(mark: &str) -> Option<u64> {
    mark.rsplit_once('/')?.1.parse().ok()
}
