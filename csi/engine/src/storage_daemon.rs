//! Which storage daemon is installed.

use std::path::Path;
use std::process::{Command, Stdio};

/// The oldest release that may be used: 7.2 crashes under vhost-user and loses NBD clients' TLS identity.
const OLDEST: u32 = 8;

/// Its version; the error is a sentence.
pub(crate) fn version(program: &Path) -> Result<String, String> {
    let remedy = "install qemu-utils 10.0 or newer, or name it with --storage-daemon";
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|why| format!("can't run {}: {why}; {remedy}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    let version = line.split_whitespace().nth(2).unwrap_or_default();
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= OLDEST => Ok(version.to_owned()),
        Some(_) => Err(format!(
            "{} is of release {version}, which is too old; {remedy}",
            program.display()
        )),
        None => Err(format!(
            "{} --version says {line:?}, which is no version; {remedy}",
            program.display()
        )),
    }
}
