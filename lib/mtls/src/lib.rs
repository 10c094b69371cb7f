//! How is a certificate used, and read again when it was renewed?
//!
//! Both sides show a certificate, and read key, certificate and CA anew for each connection ([`Files`]): a renewed certificate or another
//! CA counts without a restart. Connections that are there stay. What was read while the files were exchanged is not used, and while
//! nothing usable lies there the former files are.
//!
//! [`server::Acceptor`] and [`client::Connector`] make [`Connection`]s; each knows its [`Peer`]: the names in its certificate, and until
//! when that is valid. Sessions are never resumed: each connection is a look at the certificate.
//!
//! Whether a name is the right one is the caller's question, but for the server's name, which the client says when it connects.

pub mod client;
mod connection;
mod files;
mod peer;
pub mod server;

pub use connection::Connection;
pub use files::{Error, Files};
pub use peer::Peer;
