//! Everything that was logged, searched for everything that is secret.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use e2e::{Lab, Node};

use crate::world::SYSTEM;

/// Passwords that cases have used.
static PASSWORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A password must never be seen in a log from now on.
pub(crate) fn watch_for(password: &str) {
    PASSWORDS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(password.to_owned());
}

/// Searches the logs of all pods of ours, kubelets, storage daemons and the control plane, and all Events.
pub(crate) fn search(lab: &Lab) -> Result<()> {
    let secrets = secrets(lab)?;
    let mut searched = 0;
    let mut look = |what: &str, contents: &[u8]| -> Result<()> {
        let contents = String::from_utf8_lossy(contents);
        for (name, secret) in &secrets {
            let line = contents.lines().find(|line| line.contains(secret.as_str()));
            // The line is told without the secret.
            let line = line.unwrap_or_default().replace(secret.as_str(), "…");
            ensure!(
                !contents.contains(secret.as_str()),
                "{what} has {name} in it: {line}"
            );
        }
        searched += contents.len();
        Ok(())
    };
    for node in lab.nodes() {
        let mut files = below(&node.path("/var/log/pods"), &|path| {
            path.to_string_lossy().contains(SYSTEM)
        });
        ensure!(
            !files.is_empty(),
            "node {} has no logs of pods in {SYSTEM}",
            node.name()
        );
        files.extend(below(
            &node.path("/var/lib/outboard/engine/daemons"),
            &|path| path.ends_with("log"),
        ));
        files.extend(below(node.dir(), &|path| {
            path.extension().is_some_and(|end| end == "log")
        }));
        for file in files {
            // A pod's log may go while it is looked for.
            if let Ok(contents) = fs::read(&file) {
                look(&file.display().to_string(), &contents)?;
            }
        }
    }
    let events = lab.kubectl(&["get", "events", "-A", "-o", "json"])?;
    look("an Event", events.as_bytes())?;
    ensure!(
        searched > 100_000,
        "there are only {searched} bytes of logs: were they found?"
    );
    println!(
        "searched {:.1} MB of logs for {} secrets: none found",
        searched as f64 / 1e6,
        secrets.len()
    );
    Ok(())
}

/// What it is, and how it would show.
fn secrets(lab: &Lab) -> Result<Vec<(String, String)>> {
    let passwords = PASSWORDS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let mut found: Vec<_> = passwords
        .iter()
        .flat_map(|word| {
            [
                ("a password", word.clone()),
                ("a password in base64", STANDARD_NO_PAD.encode(word)),
            ]
        })
        .map(|(name, word)| (name.to_owned(), word))
        .collect();
    let authority = [
        "get",
        "secret",
        "-n",
        SYSTEM,
        "outboard-storage-ca",
        "-o",
        "go-template={{index .data \"tls.key\" | base64decode}}",
    ];
    let key = lab.kubectl(&authority).context("the storage CA's key")?;
    found.extend(lines_of("the storage CA's key", &key));
    for node in lab.nodes() {
        let file = node.path("/var/lib/outboard/storage-identity/tls.key");
        let key =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        found.extend(lines_of(&format!("node {}'s key", node.name()), &key));
        found.extend(tokens(node));
    }
    ensure!(found.len() > 3, "hardly any secrets were found: {found:?}");
    Ok(found)
}

/// The lines of a key that say something.
fn lines_of(name: &str, pem: &str) -> Vec<(String, String)> {
    let telling = |line: &&str| line.len() >= 32 && !line.contains("PRIVATE KEY");
    pem.lines()
        .filter(telling)
        .map(|line| (name.to_owned(), line.to_owned()))
        .collect()
}

/// Signatures of the tokens of a node's pods.
fn tokens(node: &Node) -> Vec<(String, String)> {
    let files = below(&node.path("/var/lib/kubelet/pods"), &|path| {
        path.ends_with("token") && path.to_string_lossy().contains("kubernetes.io~projected")
    });
    let tokens = files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok());
    let signatures = tokens.filter_map(|token| Some(token.trim().rsplit('.').next()?.to_owned()));
    signatures
        .filter(|s| s.len() >= 32)
        .map(|s| (format!("a token of a pod on {}", node.name()), s))
        .collect()
}

/// Regular files below a directory that satisfy `wanted`; links are not followed into directories.
fn below(dir: &Path, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            // Volumes of pods may be large, dead or both.
            Ok(kind) if kind.is_dir() && !path.to_string_lossy().contains("kubernetes.io~csi") => {
                found.extend(below(&path, wanted));
            }
            Ok(_) if path.is_file() && wanted(&path) => found.push(path),
            _ => {}
        }
    }
    found
}
