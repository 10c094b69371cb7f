//! `losetup`, one process for each call. (No kept crate speaks the loop driver's ioctls without code generation at build time or a fixed
//! block size, and this workspace has no unsafe code.)

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Output, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::card::{Error, Result};

/// Two that look for a free loop at once get the same number. Who comes second claims it for a moment, and mkfs or mount of the first
/// finds it taken.
static CHOOSING: Mutex<()> = Mutex::const_new(());

#[derive(Deserialize)]
struct Listed {
    loopdevices: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "back-maj:min")]
    back: String,
}

/// Makes a loop over `file` as the process `daemon` sees it; gives its path.
///
/// losetup resolves `/proc/<pid>/root/…` to a path of its own mount namespace, unless there is nothing of that name: then it opens what
/// it was told. So where the daemon's namespace is another one, it runs in one of its own, in which the file's directory is hidden.
pub(super) async fn attach(
    file: &Path,
    daemon: u32,
    read_only: bool,
    deadline: Instant,
) -> Result<String> {
    let _choosing = CHOOSING.lock().await;
    let mut arguments = vec!["--find", "--show", "--direct-io=on"];
    if read_only {
        arguments.push("--read-only");
    }
    let namespace = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|at| at.ino());
    let path = file.to_string_lossy();
    if namespace("self").ok() == namespace(&daemon.to_string()).ok() {
        arguments.push(&path);
        return run(&arguments, deadline).await;
    }
    let hidden = file.parent().unwrap_or(file).to_owned();
    let path = format!("/proc/{daemon}/root{path}");
    arguments.push(&path);
    let mut command = command(&arguments);
    let runtime = tokio::runtime::Handle::current();
    // A thread's mount namespace goes with the thread, and with the process that it started.
    let thread = std::thread::spawn(move || {
        let _runtime = runtime.enter();
        hide(&hidden)?;
        command.spawn()
    });
    let begun = tokio::task::spawn_blocking(move || thread.join());
    let begun = begun.await.map_err(io::Error::other).and_then(|thread| {
        thread.unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    });
    finish(begun, &arguments, deadline).await
}

/// Gives this thread a mount namespace in which `dir` is empty.
#[expect(
    clippy::disallowed_methods,
    reason = "of a thread that does nothing else, and ends"
)]
fn hide(dir: &Path) -> io::Result<()> {
    let (no, none): (Option<&str>, MsFlags) = (None, MsFlags::empty());
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(no, "/", no, MsFlags::MS_REC | MsFlags::MS_PRIVATE, no)?;
    mount(Some("none"), dir, Some("tmpfs"), none, no)?;
    Ok(())
}

/// The device number of the file that a loop is over, `major:minor`; none: it is over none.
pub(super) async fn back(name: &str, deadline: Instant) -> Result<Option<String>> {
    let path = format!("/dev/{name}");
    let arguments = ["--list", "--json", "--output", "BACK-MAJ:MIN", &path];
    let Ok(text) = run(&arguments, deadline).await else {
        return Ok(None);
    };
    let listed: Option<Listed> = serde_json::from_str(&text).ok();
    Ok(listed.and_then(|listed| Some(listed.loopdevices.first()?.back.trim().to_owned())))
}

/// Runs it to its end; what it wrote.
pub(super) async fn run(arguments: &[&str], deadline: Instant) -> Result<String> {
    finish(command(arguments).spawn(), arguments, deadline).await
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new("losetup");
    command.args(arguments).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

async fn finish(begun: io::Result<Child>, arguments: &[&str], deadline: Instant) -> Result<String> {
    let child = begun.map_err(|why| {
        Error::Internal(format!(
            "losetup can't be run ({why}); install util-linux, and let opi-bridge mount"
        ))
    })?;
    let output: Output = match tokio::time::timeout_at(deadline, child.wait_with_output()).await {
        Ok(ended) => ended.map_err(|why| Error::Internal(format!("losetup: {why}")))?,
        Err(_) => {
            return Err(Error::Late(format!(
                "losetup {}: no answer in time",
                arguments.join(" ")
            )));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(Error::Away(format!(
        "losetup {}: {}",
        arguments.join(" "),
        why.trim()
    )))
}
