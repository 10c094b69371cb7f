//! One nftables table of ours, replaced as a whole and only when it differs.
//!
//! The rules go through the `nft` program in one transaction: it is kept up with the kernel better than any binding, and a binding
//! would be the crate's only C dependency. A table is observed by its listing: rules that somebody changed by hand are put back.

use std::io;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tracing::{info, warn};

use crate::netlink::Event;

/// The longest a call of `nft` may take; a ruleset of 10,000 services takes well under a second.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why the rules are not in the kernel.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "program nft is not installed on this node (apt-get install nftables; the cni-node image carries it): table {table} is not set"
    )]
    Missing { table: &'static str },
    #[error("cannot run nft for table {table}")]
    Run {
        table: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "nft refused table {table}: {message}; cni-node needs CAP_NET_ADMIN and a kernel with nf_tables and NAT"
    )]
    Refused {
        table: &'static str,
        message: String,
    },
    #[error("nft did not answer within {} s for table {table}", PATIENCE.as_secs())]
    Hung { table: &'static str },
}

/// A table of family inet that this program owns.
#[derive(Debug)]
pub(crate) struct Table {
    name: &'static str,
    applied: Option<Applied>,
}

#[derive(Debug)]
struct Applied {
    body: String,
    listing: String,
}

impl Table {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            applied: None,
        }
    }

    /// Whether an event of the kernel is about the rules of table `name`.
    pub(crate) fn concerns(name: &'static str) -> impl FnMut(&Event) -> bool {
        move |event| match event {
            Event::Table { name: changed } => changed == name,
            Event::Lost => true,
            _ => false,
        }
    }

    /// Makes the table hold `body` (the lines between its braces). Whether anything had to be done.
    pub(crate) async fn converge(&mut self, body: &str) -> Result<bool, Error> {
        if self
            .applied
            .as_ref()
            .is_some_and(|applied| applied.body == body)
        {
            return Ok(false);
        }
        // What is in place stays unknown until both calls have succeeded.
        self.applied = None;
        self.nft(&["-f", "-"], &script(self.name, body)).await?;
        let listing = self.list().await?;
        self.applied = Some(Applied {
            body: body.to_owned(),
            listing,
        });
        info!(table = self.name, "nftables rules replaced");
        Ok(true)
    }

    /// Looks whether the kernel still holds what was applied; if not, the next [`Table::converge`] applies it again.
    pub(crate) async fn verify(&mut self) {
        let Some(applied) = &self.applied else { return };
        let same = self
            .list()
            .await
            .is_ok_and(|listing| listing == applied.listing);
        if !same {
            warn!(
                table = self.name,
                "nftables rules were changed by somebody else: putting them back"
            );
            self.applied = None;
        }
    }

    async fn list(&self) -> Result<String, Error> {
        self.nft(&["--stateless", "list", "table", "inet", self.name], "")
            .await
    }

    async fn nft(&self, arguments: &[&str], input: &str) -> Result<String, Error> {
        let table = self.name;
        let output = tokio::time::timeout(PATIENCE, run(arguments, input))
            .await
            .map_err(|_| Error::Hung { table })?
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => Error::Missing { table },
                _ => Error::Run { table, source },
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let message = said.lines().take(3).collect::<Vec<_>>().join(" ");
        Err(Error::Refused { table, message })
    }
}

/// The first line makes the second succeed where there is no such table yet; all three are one transaction.
fn script(table: &str, body: &str) -> String {
    format!("add table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n{body}}}\n")
}

async fn run(arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    // nft reads all of its input before it answers.
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output().await
}
