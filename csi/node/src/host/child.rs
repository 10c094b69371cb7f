//! Programs of util-linux, e2fsprogs and xfsprogs, run to their end. None is ever killed by us: half a mkfs is worse than a
//! late answer.

use std::ffi::OsStr;
use std::process::Stdio;

use tokio::process::Command;

use super::device::{LOOKS, MOMENT};
use super::error::Error;

/// The programs and the packages of Debian that have them.
pub(crate) const PROGRAMS: [(&str, &str); 6] = [
    ("blkid", "util-linux"),
    ("mkfs.ext4", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("resize2fs", "e2fsprogs"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
];

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None`: killed by a signal.
    pub(crate) code: Option<i32>,
    /// What it printed.
    pub(crate) out: String,
    /// What it complained about, on one line.
    pub(crate) complaint: String,
}

impl Ended {
    /// It did nothing, because somebody has the disk: e2fsprogs' and xfsprogs' words.
    fn found_it_taken(&self) -> bool {
        let words = [
            "apparently in use by the system",
            "is in use.",
            "resource busy",
        ];
        let said = |word: &&str| self.complaint.contains(word) || self.out.contains(word);
        self.code != Some(0) && words.iter().any(said)
    }

    /// Its exit code and complaint, for a sentence.
    pub(crate) fn verdict(&self) -> String {
        let code = match self.code {
            Some(code) => format!("exit code {code}"),
            None => "killed".to_owned(),
        };
        if self.complaint.is_empty() {
            code
        } else {
            format!("{code}: {}", self.complaint)
        }
    }
}

/// Runs `program` to its end.
///
/// # Errors
///
/// It can't be started.
pub(crate) async fn run<A: AsRef<OsStr>>(
    program: &'static str,
    args: impl IntoIterator<Item = A>,
) -> Result<Ended, Error> {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| cant_start(program, &error))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    let lines = complaint.lines().map(str::trim).filter(|l| !l.is_empty());
    Ok(Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        complaint: lines.collect::<Vec<_>>().join("; "),
    })
}

/// The same for a program that takes a disk for itself alone.
///
/// # Errors
///
/// It can't be started.
pub(crate) async fn run_alone(program: &'static str, args: &[&str]) -> Result<Ended, Error> {
    for _ in 1..LOOKS {
        let ended = run(program, args).await?;
        if !ended.found_it_taken() {
            return Ok(ended);
        }
        tokio::time::sleep(MOMENT).await;
    }
    run(program, args).await
}

fn cant_start(program: &str, error: &std::io::Error) -> Error {
    let package = PROGRAMS.iter().find(|(name, _)| *name == program);
    match package {
        Some((_, package)) if error.kind() == std::io::ErrorKind::NotFound => Error::Unavailable(
            format!("{program} is not installed on this node: install the package {package}"),
        ),
        _ => Error::Unavailable(format!("can't start {program}: {error}; repeat")),
    }
}

/// The programs that are not in `PATH`, with their packages.
pub(crate) fn missing() -> Vec<(&'static str, &'static str)> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    let there = |name: &str| dirs.iter().any(|dir| dir.join(name).is_file());
    PROGRAMS
        .into_iter()
        .filter(|(name, _)| !there(name))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_is_taken_for_a_moment_is_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        for said in [
            "/dev/loop7 is apparently in use by the system; will not make a filesystem here! >&2",
            "/dev/loop7 is in use.",
            "mkfs.xfs: cannot open /dev/loop7: Device or resource busy >&2",
        ] {
            let (word, to) = said.split_once(" >").unwrap_or((said, "&1"));
            let mark = dir.path().join(word.len().to_string());
            let script = format!(
                "test -e {0} && exit 0; touch {0}; echo '{word}' >{to}; exit 1",
                mark.display()
            );
            let ended = run_alone("sh", &["-c", &script]).await.unwrap();
            assert_eq!(ended.code, Some(0), "{said}");
        }
        let ended = run_alone("sh", &["-c", "echo no space >&2; exit 1"]).await;
        assert_eq!(ended.unwrap().verdict(), "exit code 1: no space");
    }
}
