//! Which storage daemon is installed.

use std::path::Path;
use std::process::{Command, Stdio};

use qemu::commands::Release;

/// The oldest release that may be used: an older one overwrites a write through a FUSE export that waits with the next
/// one ("fuse: Copy write buffer content before polling"), and so corrupts what is on the volume.
const OLDEST: Release = Release {
    major: 10,
    minor: 0,
    micro: 3,
};

const REMEDY: &str =
    "install qemu-utils 10.0.3 or newer (Debian 13 has it), or name it with --storage-daemon";

/// Whether a daemon of that release may serve; the error is a sentence.
pub(crate) fn check(release: Release) -> Result<(), String> {
    if release >= OLDEST {
        return Ok(());
    }
    let Release {
        major,
        minor,
        micro,
    } = release;
    Err(format!(
        "the storage daemon is of release {major}.{minor}.{micro}, which corrupts data under concurrent writes; {REMEDY}"
    ))
}

/// Its version; the error is a sentence.
pub(crate) fn version(program: &Path) -> Result<String, String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|why| format!("can't run {}: {why}; {REMEDY}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    let version = line.split_whitespace().nth(2).unwrap_or_default();
    let release = release(version).ok_or_else(|| {
        format!(
            "{} --version says {line:?}, which is no version; {REMEDY}",
            program.display()
        )
    })?;
    check(release)?;
    Ok(version.to_owned())
}

fn release(version: &str) -> Option<Release> {
    let mut numbers = version.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(Release {
        major: next()?,
        minor: next()?,
        micro: next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_that_corrupts_data_is_refused_by_name() {
        assert_eq!(release("10.0.13").map(check), Some(Ok(())));
        assert_eq!(release("11.1").map(check), Some(Ok(())));
        let old = check(release("10.0.2").unwrap()).unwrap_err();
        assert!(
            old.contains("10.0.2") && old.contains("10.0.3 or newer"),
            "{old}"
        );
        assert_eq!(release("ten"), None);
    }
}
