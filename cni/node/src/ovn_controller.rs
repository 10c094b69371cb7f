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
        match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(Ok(answer)) if answer == "connected" => None,
            Ok(Ok(answer)) => Some(format!(
                "ovn-controller is {answer} to the southbound database: see its log (ovn-controller.log) and ovn-remote in Open_vSwitch"
            )),
            Ok(Err(why)) => Some(format!(
                "ovn-controller does not answer ({why}): see that it runs on this node and that {} is mounted into cni-node's pod",
                self.rundir.display()
            )),
            Err(_) => Some("ovn-controller does not answer within 2 s: see its log".to_owned()),
        }
    }

    /// Asks every control socket that is there: one of an ended process refuses, and has a process id in its name.
    async fn ask(&self) -> Result<String, String> {
        let directory = self.rundir.display();
        let mut entries = tokio::fs::read_dir(&self.rundir)
            .await
            .map_err(|why| format!("{directory}: {why}"))?;
        let mut refusal = format!("{directory} has no control socket of it");
        while let Some(entry) = entries
            .next_entry()
            .await
            .map_err(|why| format!("{directory}: {why}"))?
        {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("ovn-controller.") && name.ends_with(".ctl") {
                match connection_status(&entry.path()).await {
                    Ok(answer) => return Ok(answer),
                    Err(why) => refusal = why,
                }
            }
        }
        Err(refusal)
    }
}

/// `connection-status` over unixctl, which is JSON-RPC 1.0 with one object each way (ovs-appctl(8)).
async fn connection_status(socket: &Path) -> Result<String, String> {
    let failed = |why: std::io::Error| format!("{}: {why}", socket.display());
    let mut stream = UnixStream::connect(socket).await.map_err(failed)?;
    let request = json!({"method": "connection-status", "params": [], "id": 0}).to_string();
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
