//! One CNI call: what the runtime gave, checked; the request; what is printed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cni_bin::cni::{
    CNI_COMMAND, CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS, CNI_PATH, ContainerId, InterfaceName,
    SpecVersion,
};
use cni_bin::code;
use cni_bin::conf::{self, Head};
use cni_bin::wire::{self, Command, Failure, Reply, Request};

use crate::dial;

/// Answers one call on standard output; the exit code is 1 if it failed (CNI specification, section "Error").
pub(crate) fn run() -> ExitCode {
    let printed = match call(Instant::now()) {
        Ok(document) => print(document.as_bytes()),
        Err(failure) => {
            // Strings and a number: they can always be written as JSON.
            let document = serde_json::to_vec(&failure).unwrap_or_default();
            return match print(&document) {
                Ok(()) | Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("outboard: can't write the result to standard output: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The document to print, empty for the verbs that print nothing.
fn call(start: Instant) -> Result<String, Failure> {
    let env = environment()?;
    let command = match env.get(CNI_COMMAND).map_or("", String::as_str) {
        "ADD" => Command::Add,
        "DEL" => Command::Del,
        "CHECK" => Command::Check,
        "GC" => Command::Gc,
        "STATUS" => Command::Status,
        // Needs neither configuration nor any other variable, nor the daemon.
        "VERSION" => return json(&conf::plugin_info()),
        "" => {
            return Err(bad_environment(
                "CNI_COMMAND is not set: this program is a CNI plugin",
                "A container runtime sets it; for the installer see `outboard --help`.",
            ));
        }
        other => {
            return Err(bad_environment(
                format!("CNI_COMMAND is {other:?}"),
                "Set ADD, DEL, CHECK, GC, STATUS or VERSION.",
            ));
        }
    };
    let config = standard_input()?;
    check_environment(command, &env).map_err(|failure| Failure {
        cni_version: conf::version_of(&config),
        ..failure
    })?;
    let head = Head::parse(command, &config)?;
    let deadline = start + Duration::from_secs(head.timeout_seconds());
    let call = dial::Call {
        socket: head.socket().into(),
        cni_version: head.version().into(),
        deadline,
        budget: head.timeout_seconds(),
        request: Request {
            version: wire::VERSION,
            command,
            env,
            config,
            deadline_ms: 0,
        },
    };
    let (version, socket) = (call.cni_version.clone(), call.socket.clone());
    match call.run()? {
        Reply::Error(failure) => Err(failure),
        Reply::Result(Some(document)) if command == Command::Add => Ok(document.get().to_owned()),
        Reply::Result(None) if command == Command::Add => Err(Failure::new(
            version,
            code::DECODING_FAILURE,
            format!(
                "cni-node at {} answered ADD without a result",
                socket.display()
            ),
            "outboard and cni-node are of different builds: run `outboard install` from cni-node's image.",
        )),
        Reply::Result(_) => Ok(String::new()),
    }
}

/// The `CNI_*` variables that are set and not empty. Nothing else of the runtime's environment leaves this process.
fn environment() -> Result<BTreeMap<String, String>, Failure> {
    let mut env = BTreeMap::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with("CNI_")) else {
            continue;
        };
        let value = value.into_string().map_err(|value| {
            bad_environment(
                format!("{name} is {value:?}, which is not UTF-8"),
                "Correct what the runtime sets.",
            )
        })?;
        if !value.is_empty() {
            env.insert(name.to_owned(), value);
        }
    }
    Ok(env)
}

/// The specification's table of variables per verb. DEL needs no namespace: it may be gone.
fn check_environment(command: Command, env: &BTreeMap<String, String>) -> Result<(), Failure> {
    let required: &[&str] = match command {
        Command::Add | Command::Check => &[CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME],
        Command::Del => &[CNI_CONTAINERID, CNI_IFNAME],
        Command::Gc => &[CNI_PATH],
        Command::Status => &[],
    };
    let missing: Vec<_> = required
        .iter()
        .copied()
        .filter(|name| !env.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        return Err(bad_environment(
            format!("{command} came without {}", missing.join(", ")),
            "The runtime must set every variable that the verb requires.",
        ));
    }
    let invalid = |name: &str, value: &str, rule: &str| {
        bad_environment(
            format!("{name} is {value:?}"),
            format!("It must have {rule}."),
        )
    };
    if matches!(command, Command::Add | Command::Check | Command::Del) {
        let container = &env[CNI_CONTAINERID];
        if container.parse::<ContainerId>().is_err() {
            return Err(invalid(
                CNI_CONTAINERID,
                container,
                "letters, digits, \"_\", \".\" and \"-\" only, and start with a letter or digit",
            ));
        }
        let ifname = &env[CNI_IFNAME];
        if ifname.parse::<InterfaceName>().is_err() {
            return Err(invalid(
                CNI_IFNAME,
                ifname,
                "1 to 15 bytes without \"/\", \":\" and blanks, and not be \".\" or \"..\"",
            ));
        }
    }
    Ok(())
}

fn standard_input() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    // One byte more than fits tells "too large" from "just fits".
    let limit = wire::MAX_BYTES as u64 + 1;
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| {
            bad_configuration(
                code::IO_FAILURE,
                format!(
                    "standard input, where the network configuration comes, can't be read: {error}"
                ),
                "The runtime must pass it on a pipe.",
            )
        })?;
    if bytes.len() > wire::MAX_BYTES {
        return Err(bad_configuration(
            code::INVALID_CONFIG,
            format!(
                "the network configuration on standard input has more than {} bytes",
                wire::MAX_BYTES
            ),
            "Correct the network's conflist, or the runtime that made it so large.",
        ));
    }
    String::from_utf8(bytes).map_err(|error| {
        bad_configuration(
            code::DECODING_FAILURE,
            format!("the network configuration on standard input is not UTF-8: {error}"),
            "Correct the network's conflist or NetworkAttachmentDefinition.",
        )
    })
}

fn json<T: serde::Serialize>(document: &T) -> Result<String, Failure> {
    serde_json::to_string(document).map_err(|error| {
        bad_configuration(
            code::DECODING_FAILURE,
            format!("the answer can't be written as JSON: {error}"),
            "Report this as a defect of outboard.",
        )
    })
}

fn bad_environment(msg: impl Into<String>, details: impl Into<String>) -> Failure {
    let version = SpecVersion::CURRENT.to_string();
    Failure::new(version, code::INVALID_ENVIRONMENT, msg, details)
}

fn bad_configuration(code: u32, msg: String, details: &str) -> Failure {
    Failure::new(SpecVersion::CURRENT.to_string(), code, msg, details)
}

fn print(document: &[u8]) -> io::Result<()> {
    if document.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(document)?;
    out.write_all(b"\n")?;
    out.flush()
}
