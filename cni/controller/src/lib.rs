//! Kubernetes objects to OVN northbound rows; the only northbound writer.
//!
//! ```text
//!   API server ──watch──► index ──dirty units──► engine ──┬─ units (pure: index + addresses → rows)
//!                                                         ├─ ipam  (pure: who has which address)
//!                                                         ├─ plan  (pure: rows → transaction)
//!                                                         └─ fence ─► NB     reports ─► Events, status
//! ```
//!
//! What is said of pairs of hosts and DPUs, on Dpus and Nodes, is a loop beside that ([`pairs`]).
//!
//! The northbound database is the durable record of addresses; this program keeps nothing on disk.

mod chassis;
mod config;
mod defaults;
pub mod engine;
pub mod fence;
pub mod index;
pub mod ipam;
pub mod lease;
pub mod metrics;
pub mod nb;
pub mod notices;
pub mod observed;
pub mod pairs;
pub mod plan;
mod published;
mod rebuild;
pub mod report;
pub mod rows;
mod run;
pub mod shared;
pub mod status;
pub mod units;
pub mod watch;

pub use chassis::Chassis;
pub use config::Config;
pub use lease::Turn;
pub use run::run;
