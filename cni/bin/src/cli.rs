//! The installer's command line. Written by hand: an argument parser would be half of the program's size.

use std::ffi::OsString;
use std::process::ExitCode;

use cni_bin::cni::SpecVersion;
use cni_bin::wire::DEFAULT_SOCKET;

use crate::install::Plan;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

const HELP: &str = "\
The CNI plugin of Outboard. A container runtime runs it without arguments, with the call in
CNI_* variables and the network configuration on standard input; it asks cni-node on this node.

Usage:
  outboard install [OPTIONS]     put this program and a conflist in place, each at once (rename);
                                 what is already right is left alone
  outboard uninstall [OPTIONS]   remove both; succeeds when they are gone
  outboard --help | --version

Options:
  --bin-dir DIR          the runtime's plugin directory        [/opt/cni/bin]
  --conf-dir DIR         the runtime's configuration directory [/etc/cni/net.d]
  --conf-name NAME       the conflist's file name              [05-outboard.conflist]
  --socket PATH          cni-node's socket                     [/run/outboard/cni.sock]
  --cni-version VERSION  1.0.0 or 1.1.0; by default the runtime takes the newest that it knows

Keys of a network configuration with \"type\": \"outboard\", beside the standard ones:
  socket          as --socket
  timeoutSeconds  how long one call may take, 1 to 600 [110]
";

/// What the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Version,
    Install(Plan),
    Uninstall(Plan),
}

/// Does what the arguments say.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let (verb, done) = match parse(arguments) {
        Ok(Task::Help) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(Task::Version) => {
            println!("outboard {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(Task::Install(plan)) => ("install", plan.install()),
        Ok(Task::Uninstall(plan)) => ("uninstall", plan.uninstall()),
        Err(why) => {
            eprintln!("outboard: {why}; see `outboard --help`");
            return ExitCode::from(USAGE);
        }
    };
    match done {
        Ok(done) => {
            for (path, what) in done {
                println!("{}: {what}", path.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!(
                "outboard {verb}: {error}; the directories must exist or be makeable, and writable"
            );
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Task, String> {
    let mut words = arguments.iter().map(|word| {
        word.to_str()
            .ok_or_else(|| format!("argument {word:?} is not UTF-8"))
    });
    let task = words.next().transpose()?.unwrap_or_default();
    let mut plan = Plan {
        bin_dir: "/opt/cni/bin".into(),
        conf_dir: "/etc/cni/net.d".into(),
        conf_name: "05-outboard.conflist".into(),
        socket: DEFAULT_SOCKET.into(),
        cni_version: None,
    };
    while let Some(word) = words.next().transpose()? {
        if matches!(word, "-h" | "--help") {
            return Ok(Task::Help);
        }
        let (flag, value) = match word.split_once('=') {
            Some((flag, value)) => (flag, Some(value)),
            None => (word, None),
        };
        let known = [
            "--bin-dir",
            "--conf-dir",
            "--conf-name",
            "--socket",
            "--cni-version",
        ];
        if !known.contains(&flag) {
            return Err(format!("unknown argument {word:?}"));
        }
        let value = match value {
            Some(value) => value,
            None => words
                .next()
                .transpose()?
                .ok_or_else(|| format!("{flag} needs a value"))?,
        };
        set(&mut plan, flag, value)?;
    }
    match task {
        "-h" | "--help" | "help" => Ok(Task::Help),
        "-V" | "--version" => Ok(Task::Version),
        "install" => Ok(Task::Install(plan)),
        "uninstall" => Ok(Task::Uninstall(plan)),
        other => Err(format!("unknown command {other:?}")),
    }
}

fn set(plan: &mut Plan, flag: &str, value: &str) -> Result<(), String> {
    let absolute = || {
        if value.starts_with('/') {
            Ok(value.to_owned())
        } else {
            Err(format!("{flag} {value:?} is not an absolute path"))
        }
    };
    match flag {
        "--bin-dir" => plan.bin_dir = absolute()?.into(),
        "--conf-dir" => plan.conf_dir = absolute()?.into(),
        "--socket" => plan.socket = absolute()?,
        "--conf-name" => {
            if value.contains('/') || value.starts_with('.') || !value.ends_with(".conflist") {
                return Err(format!(
                    "{flag} {value:?} is not a file name that ends in .conflist"
                ));
            }
            value.clone_into(&mut plan.conf_name);
        }
        _ => {
            plan.cni_version = Some(match value {
                "1.0.0" => SpecVersion::new(1, 0, 0),
                "1.1.0" => SpecVersion::new(1, 1, 0),
                other => return Err(format!("{flag} {other:?} is neither 1.0.0 nor 1.1.0")),
            });
        }
    }
    Ok(())
}
