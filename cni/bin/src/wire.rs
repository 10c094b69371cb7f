//! The wire between `outboard` and cni-node: one connection carries one [`Request`] and one [`Reply`].
//!
//! The client writes one JSON object and shuts down its write side; the server reads to the end of the stream, does the
//! work, writes one JSON object and closes. A server that has not seen the end of the request must not act on it:
//! that is what lets the client repeat an ADD whose connection was reset.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The wire's version: a server refuses another one with a sentence, since both sides are installed from one image.
pub const VERSION: u32 = 1;
/// Where cni-node listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/outboard/cni.sock";
/// The largest encoded message, in bytes, in either direction.
pub const MAX_BYTES: usize = 4 << 20;

/// The verb of a request. VERSION is not among them: `outboard` answers it itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Command {
    /// Attach a container to the network.
    Add,
    /// Undo an ADD; succeeds when there is nothing left to undo.
    Del,
    /// Compare an attachment with its `prevResult` without changing anything.
    Check,
    /// Remove what no attachment of the configuration's list owns.
    Gc,
    /// Say whether ADD would be served.
    Status,
}

impl Command {
    /// The word of `CNI_COMMAND`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Gc => "GC",
            Self::Status => "STATUS",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One CNI call as the runtime made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// The verb.
    pub command: Command,
    /// The `CNI_*` variables of the plugin's environment, and no others. Empty ones are left out.
    pub env: BTreeMap<String, String>,
    /// Standard input, byte for byte: `prevResult` and unknown keys are the server's to judge.
    pub config: String,
    /// The budget left when the request was written, in milliseconds. Relative: the two sides share no clock.
    pub deadline_ms: u64,
}

impl Request {
    /// The value of one `CNI_*` variable; `None` if the runtime did not set it or set it empty.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.env
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    /// A request from all the bytes of a connection.
    ///
    /// # Errors
    ///
    /// Every [`WireError`]; answer each of them with a [`Reply::Error`], the client prints it.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version } = decode(bytes)?;
        if version != VERSION {
            return Err(WireError::Version { found: version });
        }
        decode(bytes)
    }
}

/// The answer to a [`Request`]: `{"result": …}` or `{"error": …}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Success; the document that the plugin prints as it is (ADD), or `None` where the verb prints nothing.
    Result(Option<Box<RawValue>>),
    /// Failure; printed as it is, and the plugin exits with 1.
    Error(Failure),
}

impl Reply {
    /// The bytes to send.
    ///
    /// # Errors
    ///
    /// [`WireError::TooLarge`].
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    /// A reply from all the bytes of a connection.
    ///
    /// # Errors
    ///
    /// [`WireError::Malformed`] (with `truncated` if the server died while it wrote) or [`WireError::TooLarge`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode(bytes)
    }
}

/// A CNI error as it is printed (CNI specification 1.1.0, section "Error").
///
/// A runtime shows `msg; details`. Outboard's convention: `msg` names the object and the cause and
/// has no full stop, `details` is the remedy, a sentence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The configuration's version, as it spelled it.
    pub cni_version: String,
    /// One of [`crate::code`].
    pub code: u32,
    /// Object and cause.
    pub msg: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl Failure {
    /// A failure reported under `cni_version`.
    #[must_use]
    pub fn new(
        cni_version: impl Into<String>,
        code: u32,
        msg: impl Into<String>,
        details: impl Into<String>,
    ) -> Self {
        Self {
            cni_version: cni_version.into(),
            code,
            msg: msg.into(),
            details: details.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}: {}", self.code, self.msg)?;
        if self.details.is_empty() {
            return Ok(());
        }
        write!(f, "; {}", self.details)
    }
}

impl std::error::Error for Failure {}

/// Why bytes are not a message of this wire.
#[derive(Debug)]
pub enum WireError {
    /// More than [`MAX_BYTES`].
    TooLarge {
        /// The message's size in bytes.
        bytes: usize,
    },
    /// Not JSON, or not this message.
    Malformed {
        /// The bytes stop in the middle of a document, or there are none.
        truncated: bool,
        /// What the decoder says.
        source: serde_json::Error,
    },
    /// A request of another wire version.
    Version {
        /// The version it declares.
        found: u32,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => write!(
                f,
                "the message has {bytes} bytes, more than the {MAX_BYTES} that one may have"
            ),
            Self::Malformed {
                truncated: true, ..
            } => f.write_str("the message ends in the middle"),
            Self::Malformed { .. } => f.write_str("the message is not what this wire carries"),
            Self::Version { found } => write!(
                f,
                "the message is of wire version {found}, this program speaks {VERSION}"
            ),
        }
    }
}

impl std::error::Error for WireError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Malformed { source, .. } => Some(source),
            Self::TooLarge { .. } | Self::Version { .. } => None,
        }
    }
}

fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = serde_json::to_vec(message).map_err(|source| WireError::Malformed {
        truncated: false,
        source,
    })?;
    sized(&bytes)?;
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, WireError> {
    sized(bytes)?;
    serde_json::from_slice(bytes).map_err(|source| WireError::Malformed {
        truncated: source.is_eof() || ends_in_a_number(&source, bytes),
        source,
    })
}

/// Whether the bytes stop in the middle of a number (`-`, `1.`, `1e`): serde_json takes what is left for a wrong one.
fn ends_in_a_number(error: &serde_json::Error, bytes: &[u8]) -> bool {
    let unfinished = bytes.last().is_some_and(|last| b"+-.Ee".contains(last));
    let mut lines = bytes.rsplit(|byte| *byte == b'\n');
    unfinished && lines.next().map(<[u8]>::len) == Some(error.column())
}

fn sized(bytes: &[u8]) -> Result<(), WireError> {
    if bytes.len() > MAX_BYTES {
        return Err(WireError::TooLarge { bytes: bytes.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(config: String) -> Request {
        Request {
            version: VERSION,
            command: Command::Add,
            env: BTreeMap::from([("CNI_IFNAME".into(), "eth0".into())]),
            config,
            deadline_ms: 110_000,
        }
    }

    proptest! {
        #[test]
        fn a_request_survives_the_wire(
            config in ".*",
            env in proptest::collection::btree_map("CNI_[A-Z]{1,8}", ".*", 0..6),
            deadline_ms in any::<u64>(),
        ) {
            let sent = Request { env, deadline_ms, ..request(config) };
            prop_assert_eq!(Request::decode(&sent.encode().unwrap()).unwrap(), sent);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Request::decode(&bytes).is_err());
            prop_assert!(Reply::decode(&bytes).is_err());
        }

        #[test]
        fn a_cut_reply_is_known_as_cut(cut in 0usize..60) {
            let whole = Reply::Error(Failure::new("1.1.0", 11, "not yet", "wait for cni-node on this host"))
                .encode()
                .unwrap();
            let error = Reply::decode(&whole[..cut]).unwrap_err();
            let cut_off = matches!(error, WireError::Malformed { truncated: true, .. });
            prop_assert!(cut_off);
        }
    }

    #[test]
    fn the_encoding_is_the_contract() {
        let bytes = request("{}".into()).encode().unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"version":1,"command":"ADD","env":{"CNI_IFNAME":"eth0"},"config":"{}","deadline_ms":110000}"#
        );
        let ok = Reply::Result(None).encode().unwrap();
        assert_eq!(String::from_utf8(ok).unwrap(), r#"{"result":null}"#);
        let failure = Reply::Error(Failure::new("0.4.0", 11, "a", "b"));
        assert_eq!(
            String::from_utf8(failure.encode().unwrap()).unwrap(),
            r#"{"error":{"cniVersion":"0.4.0","code":11,"msg":"a","details":"b"}}"#
        );
    }

    #[test]
    fn a_result_passes_byte_for_byte() {
        let document = r#"{"cniVersion":"1.1.0",  "unknown":1e2}"#;
        let reply = format!(r#"{{"result":{document}}}"#);
        let Reply::Result(Some(raw)) = Reply::decode(reply.as_bytes()).unwrap() else {
            panic!("not a result");
        };
        assert_eq!(raw.get(), document);
        assert!(matches!(
            Reply::decode(br#"{"result":null}"#).unwrap(),
            Reply::Result(None)
        ));
    }

    #[test]
    fn another_version_and_a_large_message_are_told_apart() {
        let next = Request {
            version: 2,
            ..request("{}".into())
        };
        let error = Request::decode(&next.encode().unwrap()).unwrap_err();
        assert!(matches!(error, WireError::Version { found: 2 }));
        let large = request("x".repeat(MAX_BYTES));
        assert!(matches!(large.encode(), Err(WireError::TooLarge { .. })));
        assert!(matches!(
            Request::decode(&vec![b' '; MAX_BYTES + 1]),
            Err(WireError::TooLarge { .. })
        ));
    }
}
