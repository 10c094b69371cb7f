//! An OVSDB client: RFC 7047 with the extensions of ovsdb-server(7), for Open vSwitch and OVN.
//!
//! What it does:
//!
//! * **Transactions** (RFC 7047 §4.1.3, §5.2): [`Transaction`] builds them, [`Client::transact`]
//!   carries them out. Every error is surfaced: of the request, of an operation, of the commit
//!   (an extra element after the last operation's result). A transaction is sent at most once;
//!   when the connection is lost before the answer, the outcome is [`TransactError::Unknown`].
//! * **Replicas**: [`Client::monitor`] keeps a copy of chosen tables, columns and rows. It uses
//!   `monitor_cond_since` and resumes after the last transaction it saw; where the server does not
//!   know it, the contents are replaced in one step. Older servers are asked with `monitor_cond`
//!   (ovsdb-server(7)) or `monitor` (RFC 7047 §4.1.5).
//! * **Typed rows**: [`table!`] makes a struct of a table. A column that this version of the
//!   database does not have is left at its default.
//! * **Clusters**: several [`Remote`]s are tried in order; the `_Server` database tells whether a
//!   server is connected to its cluster, is its leader ([`Config::leader_only`]) or has older
//!   data than was seen already. Where that changes the client moves on.
//! * **Liveness**: the server's `echo` (RFC 7047 §4.1.11) is answered while a large reply is being
//!   read; the client sends `echo` itself when the server is silent.
//! * **TLS** with the server's chain verified and a client certificate, both read again at every
//!   connect.
//!
//! ```no_run
//! use ovsdb::{Client, Condition, Config, MonitorSpec, Remote, Transaction, Values};
//! use std::{collections::BTreeMap, time::Duration};
//! use tokio::time::Instant;
//!
//! ovsdb::table! {
//!     /// A logical switch of OVN's northbound database.
//!     pub struct LogicalSwitch in "Logical_Switch" {
//!         name: String,
//!         ports: Vec<uuid::Uuid>,
//!         external_ids: BTreeMap<String, String>,
//!     }
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let remotes = Remote::parse_list("ssl:10.0.0.1:6641,ssl:10.0.0.2:6641,ssl:10.0.0.3:6641")?;
//! let client = Client::start(Config { leader_only: true, ..Config::new("OVN_Northbound", remotes) });
//!
//! // A replica of some columns of all switches that are ours.
//! let ours = Condition::includes("external_ids", BTreeMap::from([("owner", "me")]));
//! let replica = client.monitor(MonitorSpec::new().table::<LogicalSwitch>().where_([ours]));
//! let deadline = Instant::now() + Duration::from_secs(10);
//! replica.wait_synced(deadline).await?;
//! for switch in replica.read(|snapshot| snapshot.rows::<LogicalSwitch>().collect::<Vec<_>>()) {
//!     println!("{}", switch?.name);
//! }
//!
//! // A switch with a port. The port lives only if the same transaction refers to it.
//! let mut transaction = Transaction::new();
//! let port = transaction.insert("Logical_Switch_Port", Values::new().set("name", "port"));
//! let switch = Values::new().set("name", "switch").set("ports", &port);
//! let switch = transaction.insert("Logical_Switch", switch);
//! let outcome = client.transact(transaction, deadline).await?;
//! println!("inserted {:?}", outcome.inserted(&switch));
//! # Ok(())
//! # }
//! ```
//!
//! [`Client::start`] must be called in a tokio runtime.

mod atom;
mod client;
pub mod codec;
mod condition;
mod config;
mod connect;
mod datum;
mod decode;
mod diff;
mod driver;
mod error;
mod follow;
mod monitor;
mod outcome;
mod replica;
mod row;
mod schema;
mod server;
mod session;
mod store;
mod strings;
mod subscription;
mod table;
mod tls;
mod transaction;
mod update;

pub use atom::{Atom, AtomicType, NamedUuid};
pub use client::{Client, Status};
pub use condition::{Condition, Mutation};
pub use config::{Config, Remote, RemoteError, Tls};
pub use datum::Datum;
pub use error::{DecodeError, NotSynced, Refusal, RefusalKind, TransactError};
pub use monitor::MonitorSpec;
pub use outcome::{OpResult, Outcome, Record};
pub use replica::{Replica, Snapshot};
pub use row::{Row, RowView};
pub use schema::{ColumnSchema, ColumnType, Schema, TableSchema};
pub use subscription::{Change, ChangeKind, RowChange};
pub use table::{FromDatum, Table, column, column_name};
pub use transaction::{Transaction, Values, Wait};
pub use uuid::Uuid;
