//! What can go wrong, one variant per decision of a caller.

use std::fmt;
use uuid::Uuid;

/// Why a transaction has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransactError {
    /// It was not sent and never will be: it may be tried again as it is.
    #[error("the transaction was not sent to {database}: {reason}")]
    NotConnected {
        /// The database.
        database: String,
        /// The last connection error.
        reason: String,
    },
    /// It was sent and no answer came: it was carried out, or not, or will be. Read before trying
    /// again, or guard it with a [`crate::Wait`].
    #[error("whether {database} carried the transaction out is unknown: {reason}")]
    Unknown {
        /// The database.
        database: String,
        /// What happened instead of an answer.
        reason: String,
    },
    /// The server refused it as a whole: nothing was changed.
    #[error("{database} refused the transaction: {refusal}")]
    Refused {
        /// The database.
        database: String,
        /// Where and why.
        refusal: Box<Refusal>,
    },
}

impl TransactError {
    /// The refusal, if it is one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            TransactError::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }

    /// Whether the server refused for this reason.
    pub fn is(&self, kind: RefusalKind) -> bool {
        self.refusal().is_some_and(|refusal| refusal.kind == kind)
    }
}

/// An error of an operation, of the commit, or of the request itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The index of the operation; `None` if the commit or the request as a whole failed.
    pub op: Option<usize>,
    /// The table of that operation.
    pub table: Option<String>,
    /// What to make of it.
    pub kind: RefusalKind,
    /// The error string of RFC 7047, e.g. `constraint violation`.
    pub error: String,
    /// The server's explanation.
    pub details: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.op, &self.table) {
            (Some(op), Some(table)) => write!(f, "operation {op} on {table}: ")?,
            (Some(op), None) => write!(f, "operation {op}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.error)?;
        match self.details.as_str() {
            "" => Ok(()),
            details => write!(f, ": {details}"),
        }
    }
}

/// The error strings of RFC 7047 §5.2 and §4.1.3, by what a caller does about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// A [`crate::Wait`] did not hold ("timed out"): somebody else was first.
    Guard,
    /// "constraint violation": a value, a unique index, a number of elements.
    Constraint,
    /// "referential integrity violation": a reference to a row that is not (or no longer) there.
    Referential,
    /// "permission error": the server's RBAC forbids it.
    Permission,
    /// "resources exhausted", "I/O error": the server cannot, at present.
    Server,
    /// The rest: the transaction itself is wrong for this schema.
    Invalid,
}

impl RefusalKind {
    pub(crate) fn of(error: &str) -> Self {
        match error {
            "timed out" => RefusalKind::Guard,
            "constraint violation" => RefusalKind::Constraint,
            "referential integrity violation" => RefusalKind::Referential,
            "permission error" => RefusalKind::Permission,
            "resources exhausted" | "I/O error" | "ovsdb error" => RefusalKind::Server,
            _ => RefusalKind::Invalid,
        }
    }
}

/// A column's value is not of the type that the typed row expects: the database's schema is one
/// that the program was not made for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{table} {uuid}: column {column} is not {expected}")]
pub struct DecodeError {
    /// The table.
    pub table: &'static str,
    /// The row.
    pub uuid: Uuid,
    /// The column.
    pub column: &'static str,
    /// What the typed row expects.
    pub expected: &'static str,
}

/// The replica did not get its contents in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no copy of {database} before the deadline: {reason}")]
pub struct NotSynced {
    /// The database.
    pub database: String,
    /// The last connection error, or that the first fetch was still under way.
    pub reason: String,
}
