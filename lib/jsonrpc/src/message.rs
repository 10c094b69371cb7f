//! One message: its envelope is read, its body is left as text for whoever knows the type.

use crate::{LinkError, RemoteError};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::ops::Range;

/// Which JSON-RPC is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// JSON-RPC 1.0, the dialect of RFC 7047 §4.
    V1,
    /// JSON-RPC 2.0.
    V2,
}

/// A JSON value that was not decoded: `params` or `result`. Owns the text of its message.
#[derive(Debug, Clone)]
pub struct Raw {
    text: String,
    range: Range<usize>,
}

impl Raw {
    /// The JSON text.
    pub fn get(&self) -> &str {
        &self.text[self.range.clone()]
    }

    /// Decodes the value.
    ///
    /// # Errors
    /// Those of serde_json: the value is not of this type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.get())
    }

    fn null() -> Self {
        Raw {
            text: "null".into(),
            range: 0..4,
        }
    }
}

/// A received message.
#[derive(Debug, Clone)]
pub enum Message {
    /// The peer asks something; answer with [`crate::Sender::reply`].
    Request {
        /// The id as JSON text, to be sent back as it is.
        id: String,
        /// The method's name.
        method: String,
        /// The parameters (`null` when absent).
        params: Raw,
    },
    /// The peer tells something.
    Notification {
        /// The method's name.
        method: String,
        /// The parameters (`null` when absent).
        params: Raw,
    },
    /// The answer to a request of ours.
    Response {
        /// The request's id, `None` if it is none that [`crate::Sender::request`] could have given.
        id: Option<u64>,
        /// The result (`null` when absent), or the error.
        outcome: Result<Raw, RemoteError>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

impl Message {
    /// Reads the envelope of one message. The body is checked to be JSON, and not decoded.
    ///
    /// # Errors
    /// [`LinkError::Malformed`] when it is neither request, notification nor response.
    pub fn parse(frame: Vec<u8>) -> Result<Message, LinkError> {
        let malformed = |e: &dyn std::fmt::Display| LinkError::Malformed(e.to_string());
        let text = String::from_utf8(frame).map_err(|e| malformed(&e))?;
        let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(|e| malformed(&e))?;
        let id = envelope.id.map(|id| id.get().to_owned());
        let range = |raw: &RawValue| {
            let start = raw.get().as_ptr() as usize - text.as_ptr() as usize;
            start..start + raw.get().len()
        };
        if let Some(method) = envelope.method {
            let method = method.into_owned();
            let range = envelope.params.map(range);
            let params = range.map_or_else(Raw::null, |range| Raw { text, range });
            return Ok(match id {
                Some(id) => Message::Request { id, method, params },
                None => Message::Notification { method, params },
            });
        }
        if let Some(error) = envelope.error {
            let body = serde_json::from_str(error.get()).map_err(|e| malformed(&e))?;
            let outcome = Err(RemoteError::new(body));
            return Ok(Message::Response {
                id: number(id.as_deref()),
                outcome,
            });
        }
        let Some(id) = id else {
            return Err(LinkError::Malformed(
                "a message has neither method nor id".into(),
            ));
        };
        let range = envelope.result.map(range);
        let result = range.map_or_else(Raw::null, |range| Raw { text, range });
        Ok(Message::Response {
            id: number(Some(&id)),
            outcome: Ok(result),
        })
    }
}

fn number(id: Option<&str>) -> Option<u64> {
    id.and_then(|id| id.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Message, LinkError> {
        Message::parse(text.as_bytes().to_vec())
    }

    #[test]
    fn a_request_keeps_its_id_as_it_was_written() {
        let message = parse(r#"{"params":[ 1 ],"method":"echo","id":"ec\u0068o"}"#).unwrap();
        let Message::Request { id, method, params } = message else {
            panic!("{message:?}")
        };
        assert_eq!(
            (id.as_str(), method.as_str(), params.get()),
            (r#""ec\u0068o""#, "echo", "[ 1 ]")
        );
    }

    #[test]
    fn a_null_id_and_no_id_are_notifications() {
        for text in [
            r#"{"id":null,"method":"m","params":[]}"#,
            r#"{"jsonrpc":"2.0","method":"m"}"#,
        ] {
            assert!(
                matches!(parse(text).unwrap(), Message::Notification { .. }),
                "{text}"
            );
        }
    }

    #[test]
    fn responses_of_both_dialects() {
        let ok = [
            r#"{"id":7,"result":null,"error":null}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":0}"#,
        ];
        for text in ok {
            let message = parse(text).unwrap();
            assert!(
                matches!(
                    message,
                    Message::Response {
                        id: Some(7),
                        outcome: Ok(_)
                    }
                ),
                "{text}"
            );
        }
        let failed =
            parse(r#"{"id":7,"result":null,"error":{"error":"a","details":"b"}}"#).unwrap();
        let Message::Response {
            outcome: Err(error),
            ..
        } = failed
        else {
            panic!()
        };
        assert_eq!(error.to_string(), "a: b");
        let failed =
            parse(r#"{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"nope"}}"#).unwrap();
        let Message::Response {
            outcome: Err(error),
            ..
        } = failed
        else {
            panic!()
        };
        assert_eq!(error.to_string(), "nope (code -32601)");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in [
            "{}",
            r#"{"id":1,"id":2}"#,
            r#"{"method":3}"#,
            "{\"method\":\"\u{1}\"}",
        ] {
            assert!(
                matches!(parse(text), Err(LinkError::Malformed(_))),
                "{text}"
            );
        }
        assert!(Message::parse(vec![b'{', 0xff, b'}']).is_err());
    }
}
