//! What can go wrong, one variant per decision of a caller.

use serde_json::Value;
use std::fmt;
use std::sync::Arc;

/// Why a [`crate::Link`] ended. It never comes back: open another stream.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// The peer closed the stream between two messages.
    #[error("the peer closed the connection")]
    Eof,
    /// The peer closed the stream in the middle of a message.
    #[error("the peer closed the connection in the middle of a message")]
    Truncated,
    /// Reading or writing failed.
    #[error("the connection failed: {0}")]
    Io(Arc<std::io::Error>),
    /// A message is longer than [`crate::Options::max_frame`].
    #[error("a message is longer than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes are no JSON-RPC message.
    #[error("the peer sent what is no JSON-RPC message: {0}")]
    Malformed(String),
    /// The local side dropped its end.
    #[error("the connection was closed by this side")]
    Dropped,
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        LinkError::Io(Arc::new(error))
    }
}

/// The `error` member of a response (JSON-RPC 1.0: any JSON value; 2.0 §5.1: an object).
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteError {
    /// `error.code` of the 2.0 dialect.
    pub code: Option<i64>,
    /// `error.message` (2.0), or the text of a 1.0 error: a bare string, or the members `error`
    /// and `details` of RFC 7047 §3.1 joined by a colon.
    pub message: String,
    /// The whole member as it was sent.
    pub body: Value,
}

impl RemoteError {
    pub(crate) fn new(body: Value) -> Self {
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        let message = match &body {
            Value::String(text) => text.clone(),
            _ => match (text("message").or_else(|| text("error")), text("details")) {
                (Some(error), Some(details)) => format!("{error}: {details}"),
                (Some(error), None) => error,
                _ => body.to_string(),
            },
        };
        RemoteError {
            code: body.get("code").and_then(Value::as_i64),
            message,
            body,
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} (code {code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Why a [`crate::Client::call`] has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection is gone. If the call had been sent, whether it was carried out is unknown.
    #[error("{method}: no answer, {reason}")]
    Closed {
        /// The method that was called.
        method: String,
        /// Why the connection ended.
        reason: LinkError,
    },
    /// The deadline passed. Whether the call was or will be carried out is unknown.
    #[error("{method}: no answer before the deadline")]
    Timeout {
        /// The method that was called.
        method: String,
    },
    /// The peer answered with an error.
    #[error("{method} was refused: {error}")]
    Remote {
        /// The method that was called.
        method: String,
        /// What the peer said.
        error: RemoteError,
    },
    /// The parameters could not be written as JSON, or the result is not of the expected type.
    #[error("{method}: the {what} is not of the expected form: {source}")]
    Decode {
        /// The method that was called.
        method: String,
        /// "parameters" or "result".
        what: &'static str,
        /// What serde found.
        source: serde_json::Error,
    },
}
