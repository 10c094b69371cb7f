//! Runs other programs to their end and turns a failure into a sentence: the command, its exit, what it said.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs a command to its end and returns what it printed, without the last line feed.
///
/// # Errors
/// The program is missing or exits with anything but 0: the message holds the command line and its standard error.
pub fn run<S: AsRef<OsStr>>(argv: &[S]) -> Result<String> {
    finish(&mut command(argv)?, None)
}

/// As [`run`], with text for the program's standard input.
pub(crate) fn run_with_input<S: AsRef<OsStr>>(argv: &[S], input: &str) -> Result<String> {
    finish(&mut command(argv)?, Some(input))
}

/// A [`Command`] of a whole argument vector.
pub(crate) fn command<S: AsRef<OsStr>>(argv: &[S]) -> Result<Command> {
    let (program, arguments) = argv
        .split_first()
        .context("an empty command line was to be run")?;
    let mut command = Command::new(program);
    command.args(arguments);
    Ok(command)
}

/// Runs a prepared command to its end, as [`run`].
pub(crate) fn finish(command: &mut Command, input: Option<&str>) -> Result<String> {
    let line = describe(command);
    command.stdin(if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    });
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| {
            format!("cannot start `{line}` (make setup installs what the lab needs)")
        })?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // A program that ends before it read everything says why in its exit code.
        let _ = stdin.write_all(text.as_bytes());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("`{line}` was lost"))?;
    if !output.status.success() {
        let said = [output.stderr, output.stdout].concat();
        bail!(
            "`{line}`: {}: {}",
            output.status,
            String::from_utf8_lossy(&said).trim_end()
        );
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.truncate(text.trim_end_matches('\n').len());
    Ok(text)
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|w| w.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}
