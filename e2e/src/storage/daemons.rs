//! The volumes' qemu-storage-daemons.

use std::io::{BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// The engine answers from memory.
const PATIENCE: Duration = Duration::from_secs(10);

/// A volume's qemu-storage-daemon, as its outboard-engine has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Daemon {
    /// The engine's id: `v-<uuid>` for a volume at its target, `c-<uuid>` for one at a card.
    pub id: String,
    /// Who keeps its recipe.
    pub owner: String,
    /// The process, while there is one.
    pub pid: Option<i32>,
}

/// What an engine has.
pub(super) fn of(socket: &Path) -> Result<Vec<Daemon>> {
    let what = || format!("asking the engine at {}", socket.display());
    let ask = || -> Result<Vec<Daemon>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": "list", "params": {} });
        stream.write_all(request.to_string().as_bytes())?;
        let mut answers =
            serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter::<Value>();
        let mut answer = answers.next().context("no answer")??;
        serde_json::from_value(answer["result"].take()).with_context(|| answer["error"].to_string())
    };
    ask().with_context(what)
}

/// Pids of all qemu-storage-daemons whose files lie below `dir`, whoever keeps them.
pub(super) fn below(dir: &Path) -> Vec<i32> {
    let dir = format!("{}/", dir.display());
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ours = all.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line);
        (line.contains("qemu-storage-daemon") && line.contains(&dir)).then_some(pid)
    });
    ours.collect()
}

/// Whether all its threads have left their namespaces: it is gone, or only waits to be reaped.
pub(super) fn has_ended(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // proc_pid_stat(5): the state is behind the name, which may hold anything but ends with the last parenthesis.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    threads == 0 || (threads == 1 && state == Some('Z'))
}
