//! qemu-storage-daemon and QEMU over QMP, and the program `qemu-img`. Knows nothing of volumes.
//!
//! * [`Qmp`] is one connection to one monitor (a unix socket): any number of commands in flight, each with a deadline,
//!   and the monitor's [`Event`]s. A monitor serves one client at a time; a second one waits until the first has gone.
//! * [`Command`] gives a command its name and the type of its answer; [`commands`] has those that Outboard uses.
//!   [`Step`] is any command as data, to be stored and replayed.
//! * [`Image`] runs `qemu-img`.
//! * [`greet`] makes a vhost-user export whole.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use qemu::{Qmp, commands::{BlockdevAdd, Node}};
//! use std::time::Duration;
//! use tokio::time::Instant;
//!
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let qmp = Qmp::connect("/run/x/qmp.sock", deadline).await?;
//! let file = Node::file("disk-file", "/var/lib/x/disk.qcow2").direct();
//! qmp.execute(&BlockdevAdd(Node::qcow2("disk", file)), deadline).await?;
//! # Ok(())
//! # }
//! ```

mod command;
pub mod commands;
mod error;
mod event;
mod greeting;
mod image;
mod job;
mod qmp;
mod session;

pub use command::{Command, Step};
pub use error::Error;
pub use event::{Event, Events, EventsLost};
pub use greeting::{Greeting, greet};
pub use image::{Backing, Check, Create, Image, ImageError, Info, Measure};
pub use qmp::Qmp;
