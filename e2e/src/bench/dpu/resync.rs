//! The channel is cut and healed: how soon the host says so, and how soon it has told the DPU everything again.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::Bench;
use super::super::ports::LIMIT;
use super::super::report::{Report, Row};
use super::super::samples::Samples;
use crate::pair_lab::PairLab;

/// What the host's cni-node logs when the DPU has answered all that it has.
const ANSWERED: &str = "the DPU has answered a full set";
/// The same of the DPU's: with the time from the set's arrival to its answer.
const DONE: &str = "full set of the host is answered";
/// From the healed wire to the answer.
const AIM: f64 = 1.0;
/// From the cut to STATUS.
const NOTICED: f64 = 3.0;

/// A log that is read as it grows.
struct Tail {
    path: PathBuf,
    offset: u64,
    rest: String,
}

pub(super) fn measure(
    bench: &Bench,
    pair: &PairLab,
    ports: u16,
    report: &mut Report,
) -> Result<()> {
    let cuts = bench.options.cuts;
    Bench::say(&format!("{cuts} cuts of the channel, {ports} ports"));
    let (mut noticed, mut healed, mut set) =
        (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..cuts {
        let begun = Instant::now();
        pair.cut()?;
        pair.wait_status(false, LIMIT)?;
        noticed.push(begun.elapsed());
        let mut host = Tail::of(pair.lab.daemon(pair.host()).log()?)?;
        let mut dpu = Tail::of(pair.lab.daemon(pair.dpu()).log()?)?;
        let begun = Instant::now();
        pair.heal()?;
        host.line(ANSWERED)?;
        healed.push(begun.elapsed());
        let line = dpu.line(DONE)?;
        let attachments = field(&line, "attachments")?;
        let failed = field(&line, "failed")?;
        ensure!(
            attachments >= f64::from(ports) && failed == 0.0,
            "not all {ports} attachments came through: {line}"
        );
        set.push(Duration::from_secs_f64(field(&line, "ms")? / 1e3));
        pair.wait_status(true, LIMIT)?;
    }
    let row = |what: &str, samples: &Samples| {
        Row::new(
            format!("{what}, {ports} ports, median"),
            samples.p50() / 1e3,
            "s",
        )
        .of(samples)
    };
    report.push(row("channel cut → STATUS fails", &noticed).at_most(NOTICED, "3 s"));
    report.push(
        row("channel healed → full set answered", &healed)
            .beside("on the DPU", set.p50() / 1e3)
            .at_most(AIM, "1 s"),
    );
    report.push(
        Row::new(
            format!("channel healed → full set answered, {ports} ports, slowest"),
            healed.p99() / 1e3,
            "s",
        )
        .beside("on the DPU", set.p99() / 1e3)
        .of(&set),
    );
    report.note("cut: all packets of the channel are dropped on the host; healed → answered has the wait until the host tries again in it");
    Ok(())
}

impl Tail {
    /// From its present end on.
    fn of(path: PathBuf) -> Result<Self> {
        let offset = path.metadata().context("a log")?.len();
        Ok(Self {
            path,
            offset,
            rest: String::new(),
        })
    }

    /// Waits for a line with these words.
    fn line(&mut self, words: &str) -> Result<String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.offset))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            self.offset += bytes.len() as u64;
            self.rest.push_str(&String::from_utf8_lossy(&bytes));
            while let Some((line, rest)) = self.rest.split_once('\n') {
                let found = line.contains(words).then(|| line.to_owned());
                self.rest = rest.to_owned();
                if let Some(line) = found {
                    return Ok(line);
                }
            }
            if Instant::now() > deadline {
                bail!("`{words}` does not come in {}", self.path.display());
            }
            // A file has no event to wait for; a step is far below what is measured.
            thread::park_timeout(Duration::from_millis(2));
        }
    }
}

/// A number that a log line has as `name=value`.
fn field(line: &str, name: &str) -> Result<f64> {
    let words = line.split_whitespace();
    let mut values = words.filter_map(|word| word.split_once('=').filter(|(key, _)| *key == name));
    let (_, value) = values
        .next()
        .with_context(|| format!("no {name} in: {line}"))?;
    value
        .trim_matches('"')
        .parse()
        .with_context(|| format!("{name} is no number in: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_a_line() {
        let line =
            "INFO full set of the host is answered host=\"h1\" attachments=250 failed=0 ms=12.5";
        assert_eq!(field(line, "attachments").unwrap(), 250.0);
        assert_eq!(field(line, "ms").unwrap(), 12.5);
        assert!(field(line, "kept").is_err());
    }
}
