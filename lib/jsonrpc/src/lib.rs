//! A JSON-RPC peer over any byte stream that has no framing of its own: unix sockets, TCP, TLS.
//!
//! Two dialects are spoken, chosen by [`Dialect`]:
//!
//! * **1.0** (JSON-RPC 1.0 specification, as RFC 7047 §4 uses it): every message carries `id`;
//!   a notification has `id: null`; a response has both `result` and `error`, one of them `null`.
//! * **2.0** (JSON-RPC 2.0 specification): `"jsonrpc": "2.0"`; a notification has no `id`; a
//!   response has either `result` or `error {code, message, data}`. Batches (arrays) are refused.
//!
//! Messages follow each other with no delimiter and no length, so the end of one is found by
//! counting brackets outside of strings ([`Framer`]); a byte is looked at once, however the
//! stream is cut into reads. One message may be at most [`Options::max_frame`] bytes.
//!
//! Two layers:
//!
//! * [`Link`] is the stream with its reader task and its writer task. They are separate tasks, so
//!   neither side can block the other (a single task that waits for room to write while its peer
//!   does the same deadlocks). What was received comes out in order. `echo` requests (RFC 7047
//!   §4.1.11) are answered by the reader itself, whatever the consumer is busy with.
//! * [`Client`] is for those who want answers to calls and nothing else: [`Client::call`] with a
//!   deadline, any number of calls in flight.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use jsonrpc::{Client, Dialect};
//! use std::time::Duration;
//! use tokio::{net::UnixStream, time::Instant};
//!
//! let socket = UnixStream::connect("/var/tmp/spdk.sock").await?;
//! let (client, _incoming) = Client::start(socket, Dialect::V2);
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let bdevs: serde_json::Value = client.call("bdev_get_bdevs", serde_json::json!({}), deadline).await?;
//! println!("{bdevs}");
//! # Ok(())
//! # }
//! ```

mod client;
mod encode;
mod error;
mod frame;
mod link;
mod message;

pub use client::{Call, Client, Incoming};
pub use error::{Error, LinkError, RemoteError};
pub use frame::Framer;
pub use link::{Inbound, Link, Options, Sender};
pub use message::{Dialect, Message, Raw};
