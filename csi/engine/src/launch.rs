//! `outboard-engine launch`: the first moments of a daemon, in the process that becomes it.
//!
//! The lock is taken, the monitors' sockets are bound, and only then comes qemu-storage-daemon, by exec: who finds the
//! lock held can connect, and two daemons can't be. Nothing is written to standard output unless it fails, and then one
//! sentence: the engine reads until the end of that pipe, which is the exec.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{Mode, umask};

use crate::config::Launch;
use crate::lock::Lock;
use crate::place::{BACKEND, CARD, ENGINE, Place};

/// Above this size a log is set aside (one generation) at the next start.
const LOG: u64 = 1 << 20;

/// Becomes the daemon; comes back only when that failed.
pub(crate) fn main(args: &Launch) -> ExitCode {
    let Err(why) = launch(args);
    println!("{why}");
    ExitCode::FAILURE
}

fn launch(args: &Launch) -> Result<std::convert::Infallible, String> {
    let place = Place(args.dir.clone());
    let io = |step: &'static str| move |why: io::Error| format!("can't {step}: {why}");
    // A group leader can't begin a session; the engine starts this as none.
    nix::unistd::setsid().map_err(|why| format!("can't begin a session: {why}"))?;
    umask(Mode::from_bits_truncate(0o077));
    let lock = Lock::take(&place)
        .map_err(io("lock the daemon's directory"))?
        .ok_or("the daemon's directory is locked: there is a daemon")?;
    lock.keep_across_exec().map_err(io("keep the lock"))?;
    // Neither is allowed everywhere, and the daemon serves without.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-999");
    if !args.cgroup.is_empty() {
        join_cgroup(&args.cgroup);
    }
    let mut command = Command::new(&args.storage_daemon);
    let mut listeners = Vec::new();
    for name in [ENGINE, BACKEND, CARD] {
        let listener = listen(&place.dir().join(name)).map_err(io("listen for QMP"))?;
        let id = name.trim_end_matches(".sock");
        let fd = listener.as_raw_fd();
        command
            .arg("--chardev")
            .arg(format!("socket,id={id},fd={fd},server=on,wait=off"))
            .arg("--monitor")
            .arg(format!("chardev={id}"));
        listeners.push(listener);
    }
    // The engine's pipe; this descriptor of it is closed by the exec itself, not before.
    let said = io::stdout().as_fd().try_clone_to_owned();
    let _said = said.map_err(io("keep standard output"))?;
    let log = open_log(&place).map_err(io("open the daemon's log"))?;
    let errors = log.try_clone().map_err(io("open the daemon's log"))?;
    let path = std::env::var_os("PATH");
    command
        // The directory on the command line is what tells a daemon of ours from any other process.
        .arg("--pidfile")
        .arg(place.dir().join("pid"))
        .env_clear()
        .envs(path.map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors);
    let why = command.exec();
    Err(format!(
        "can't run {}: {why}; install qemu-utils, or name it with --storage-daemon",
        args.storage_daemon.display()
    ))
}

/// A listening socket that is inherited.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // While its monitor moves to a thread of its own QEMU can accept twice for one client: the second must not wait.
    listener.set_nonblocking(true)?;
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(listener)
}

fn open_log(place: &Place) -> io::Result<File> {
    let path = place.log();
    if std::fs::metadata(&path).is_ok_and(|about| about.len() > LOG) {
        std::fs::rename(&path, path.with_extension("old"))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path)
}

/// Moves this process to a cgroup of the root, of every hierarchy that lets it.
fn join_cgroup(name: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies: Vec<PathBuf> = if root.join("cgroup.procs").exists() {
        vec![root.to_owned()]
    } else {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    for hierarchy in hierarchies {
        let cgroup = hierarchy.join(name);
        let made = match std::fs::create_dir(&cgroup) {
            Err(why) if why.kind() != io::ErrorKind::AlreadyExists => continue,
            Err(_) => false,
            Ok(()) => true,
        };
        if made {
            // cgroup v1: a new cpuset takes no process before it has CPUs and memory.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(value) = std::fs::read(hierarchy.join(file)) {
                    let _ = std::fs::write(cgroup.join(file), value);
                }
            }
        }
        let _ = std::fs::write(cgroup.join("cgroup.procs"), "0");
    }
}
