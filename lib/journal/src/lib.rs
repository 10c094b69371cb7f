//! A durable set of small records, for programs that may be killed at any moment.
//!
//! One JSON file per key in a directory of mode 0700. A record is written to a temporary file, synced, renamed into
//! place, and the directory is synced: after a crash each record is there as it was before or after the change, never
//! in between. Every record carries the boot id under which it was written, because what it describes (a network
//! namespace, a link) may not have outlived the kernel. A file that can't be read is set aside with a sentence and
//! never deleted.
//!
//! The whole set is in memory; reading it costs no system call. It is made for thousands of records of some KiB.
//! Several threads may change different records at a time; calls block on the disk, so an async caller uses its
//! blocking pool.

mod file;
mod journal;
mod key;

pub use file::Error;
pub use journal::{Boot, Journal, Quarantined, Record};

/// The running kernel's boot id.
///
/// # Errors
///
/// [`Error::Io`] where /proc is missing.
pub fn boot_id() -> Result<String, Error> {
    let path = std::path::Path::new("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    Ok(text.trim().to_owned())
}
