//! The decoders with no connection around them: for what was recorded, and for fuzzing.

use crate::error::Refusal;
use crate::follow;
use crate::monitor::MonitorSpec;
use crate::outcome::{self, Failure, Outcome};
use crate::replica::{Shared, Snapshot};
use crate::row::TableLayout;
use crate::schema::Schema;
use crate::transaction::Transaction;
use std::sync::Arc;

/// What was fed is not what a server could have sent at this point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

impl Unfit {
    #[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
    fn because<R: ToString>(reason: R) -> Self {
        Unfit(reason.to_string())
    }
}

/// A replica that is fed by hand with what a server would send.
#[derive(Debug)]
pub struct Playback {
    shared: Shared,
    layout: Vec<Arc<TableLayout>>,
}

impl Playback {
    /// An empty one, of what `spec` names and `schema` has.
    pub fn new(spec: MonitorSpec, schema: &Schema) -> Self {
        let layout = spec.layout(schema);
        let shared = Shared::new(0, spec);
        Playback { shared, layout }
    }

    /// Puts the result of `monitor_cond_since` (ovsdb-server(7)) in place of the contents, or adds it to them if the
    /// result says that it goes on where they end; gives the last transaction's id.
    ///
    /// # Errors
    /// It is no such result, or changes a row that is not there; the contents are then of no use.
    pub fn contents(&self, result: &str) -> Result<String, Unfit> {
        let (found, last, updates) = follow::contents(result).map_err(Unfit::because)?;
        self.shared
            .take(updates.get(), &self.layout, !found)
            .map_err(Unfit::because)?;
        Ok(last)
    }

    /// Takes the parameters of `update` (RFC 7047 §4.1.6), `update2` or `update3` (ovsdb-server(7)); gives the
    /// transaction's id where they have one.
    ///
    /// # Errors
    /// As [`Playback::contents`].
    pub fn update(&self, params: &str) -> Result<Option<String>, Unfit> {
        let (_, last) = follow::update_head(params).map_err(Unfit::because)?;
        let updates = follow::updates(params).map_err(Unfit::because)?;
        self.shared
            .take(updates, &self.layout, false)
            .map_err(Unfit::because)?;
        Ok(last)
    }

    /// Reads the contents.
    pub fn read<R>(&self, read: impl FnOnce(Snapshot<'_>) -> R) -> R {
        self.shared.read(read)
    }
}

/// Reads the result of `transact` (RFC 7047 §4.1.3) as [`crate::Client::transact`] does.
///
/// # Errors
/// It says neither what was done nor what was refused.
pub fn outcome(
    result: &str,
    transaction: &Transaction,
    schema: &Schema,
) -> Result<Result<Outcome, Refusal>, Unfit> {
    match outcome::read(result, &transaction.ops, schema) {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(Failure::Refused(refusal)) => Ok(Err(refusal)),
        Err(Failure::Unknown(reason)) => Err(Unfit(reason)),
    }
}
