//! Whether ovn-controller of this node lives and is connected: asked on its control socket, as `ovn-appctl` does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const PATIENCE: Duration = Duration::from_secs(2);

/// The control socket's directory.
#[derive(Debug, Clone)]
pub(crate) struct OvnController {
    rundir: PathBuf,
}

impl OvnController {
    /// `rundir` is OVN_RUNDIR of this node's ovn-controller.
    pub(crate) fn new(rundir: &Path) -> Self {
        Self {
            rundir: rundir.to_owned(),
        }
    }

    /// The sentence of what is wrong, if anything.
    pub(crate) async fn trouble(&self) -> Option<String> {
        match ask(&self.rundir, "ovn-controller", "connection-status").await {
            Ok(answer) if answer == "connected" => None,
            Ok(answer) => Some(format!(
                "ovn-controller is {answer} to the southbound database: see its log (ovn-controller.log) and ovn-remote in Open_vSwitch"
            )),
            Err(why) => Some(format!(
                "ovn-controller does not answer ({why}): see that it runs on this node and that {} is mounted into cni-node's pod",
                self.rundir.display()
            )),
        }
    }
}

/// Asks a program that has its control socket in `rundir`. One of an ended process refuses, and has a process id in its name: all
/// that are there are asked.
pub(crate) async fn ask(rundir: &Path, program: &str, command: &str) -> Result<String, String> {
    let asking = tokio::time::timeout(PATIENCE, ask_each(rundir, program, command)).await;
    asking.unwrap_or_else(|_| Err("not within 2 s: see its log".to_owned()))
}

async fn ask_each(rundir: &Path, program: &str, command: &str) -> Result<String, String> {
    let directory = rundir.display();
    let unreadable = |why: std::io::Error| format!("{directory}: {why}");
    let mut entries = tokio::fs::read_dir(rundir).await.map_err(unreadable)?;
    let mut refusal = format!("{directory} has no control socket of it");
    while let Some(entry) = entries.next_entry().await.map_err(unreadable)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let of_program = name
            .strip_prefix(program)
            .is_some_and(|rest| rest.starts_with('.') && rest.ends_with(".ctl"));
        if of_program {
            match unixctl(&entry.path(), command).await {
                Ok(answer) => return Ok(answer),
                Err(why) => refusal = why,
            }
        }
    }
    Err(refusal)
}

/// A command over unixctl, which is JSON-RPC 1.0 with one object each way (ovs-appctl(8)).
async fn unixctl(socket: &Path, command: &str) -> Result<String, String> {
    let failed = |why: std::io::Error| format!("{}: {why}", socket.display());
    let mut stream = UnixStream::connect(socket).await.map_err(failed)?;
    let request = json!({"method": command, "params": [], "id": 0}).to_string();
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.map_err(failed)? == 0 {
            return Err(format!("{}: closed without an answer", socket.display()));
        }
        // The answer has no end mark: it is over when it is a whole object.
        if let Ok(Value::Object(answer)) = serde_json::from_slice(&bytes) {
            let text = |key: &str| answer.get(key).and_then(Value::as_str);
            return match (text("result"), text("error")) {
                (Some(result), _) => Ok(result.trim().to_owned()),
                (None, error) => Err(error.unwrap_or("an unreadable answer").trim().to_owned()),
            };
        }
    }
}
