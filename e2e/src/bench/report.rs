//! What a section measured: printed as a table, written as JSON.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::samples::Samples;
use crate::images;

/// The result of one section.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    title: String,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// One number, what it is compared with, and what it should be.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Row {
    what: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<Beside>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aim: Option<Aim>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    samples: Vec<f64>,
}

/// Another number of the same run, in the same unit.
#[derive(Debug, Clone, Serialize)]
struct Beside {
    what: String,
    value: f64,
    ratio: f64,
}

#[derive(Debug, Clone, Serialize)]
struct Aim {
    text: String,
    met: bool,
}

impl Report {
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// A line under the table.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Prints the table and writes `target/bench/<name>.json`.
    pub(super) fn finish(&self, name: &str, took: Duration) -> Result<()> {
        println!("\n{}", self.title);
        print!("{}", self.table());
        for note in &self.notes {
            println!("  {note}");
        }
        let dir = images::checkout().join("target/bench");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{name}.json"));
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let file = serde_json::json!({
            "section": name,
            "build": if is_development_build() { "development" } else { "release" },
            "unixTime": now.as_secs(),
            "seconds": took.as_secs(),
            "machine": machine(),
            "report": self,
        });
        fs::write(&path, serde_json::to_vec_pretty(&file)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn table(&self) -> String {
        let head = ["what", "measured", "beside it", "ratio", "aim", ""].map(str::to_owned);
        let lines: Vec<[String; 6]> = std::iter::once(head)
            .chain(self.rows.iter().map(Row::cells))
            .collect();
        let width = |column: usize| {
            let cells = lines.iter().map(|line| line[column].chars().count());
            cells.max().unwrap_or_default()
        };
        let widths: [usize; 6] = std::array::from_fn(width);
        let mut text = String::new();
        for line in &lines {
            let [what, value, beside, ratio, aim, verdict] = line;
            let [a, b, c, d, e, _] = widths;
            let line =
                format!("{what:a$}  {value:>b$}  {beside:c$}  {ratio:>d$}  {aim:e$}  {verdict}");
            text.push_str("  ");
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

impl Row {
    pub(super) fn new(what: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            value,
            unit,
            ..Self::default()
        }
    }

    /// Compares it with another number.
    pub(super) fn beside(mut self, what: &str, value: f64) -> Self {
        let ratio = if value > 0.0 { self.value / value } else { 0.0 };
        self.beside = Some(Beside {
            what: what.to_owned(),
            value,
            ratio,
        });
        self
    }

    /// What is aimed at: at most `bound`.
    pub(super) fn at_most(mut self, bound: f64, text: impl Into<String>) -> Self {
        self.aim = Some(Aim {
            text: text.into(),
            met: self.value <= bound,
        });
        self
    }

    /// What is aimed at: at least `bound`.
    pub(super) fn at_least(mut self, bound: f64, text: impl Into<String>) -> Self {
        self.aim = Some(Aim {
            text: text.into(),
            met: self.value >= bound,
        });
        self
    }

    /// Keeps what the number was made of, for the JSON.
    pub(super) fn of(mut self, samples: &Samples) -> Self {
        self.samples = samples.values().to_vec();
        self
    }

    fn cells(&self) -> [String; 6] {
        let beside = self.beside.as_ref();
        let aim = self.aim.as_ref();
        [
            self.what.clone(),
            number(self.value, self.unit),
            beside
                .map(|b| format!("{} {}", b.what, number(b.value, self.unit)))
                .unwrap_or_default(),
            beside
                .map(|b| format!("{:.2}", b.ratio))
                .unwrap_or_default(),
            aim.map(|a| a.text.clone()).unwrap_or_default(),
            aim.map(|a| if a.met { "met" } else { "missed" })
                .unwrap_or_default()
                .to_owned(),
        ]
    }
}

fn number(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v.fract() == 0.0 => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {unit}").trim_end().to_owned()
}

/// Whether this program, and so those beside it, were built without optimisation.
pub(super) fn is_development_build() -> bool {
    cfg!(debug_assertions)
}

fn machine() -> serde_json::Value {
    let read = |path: &str| {
        fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    serde_json::json!({
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "kernel": read("/proc/sys/kernel/osrelease"),
        "loadAverage": read("/proc/loadavg"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_the_aim_is_met() {
        let mut report = Report::new("t");
        report.push(
            Row::new("ADD p50", 9.25, "ms")
                .beside("floor", 6.0)
                .at_most(9.0, "floor + 3 ms"),
        );
        report.push(Row::new("addresses", 2500.0, "/s").at_least(2000.0, "2000/s"));
        let table = report.table();
        let lines: Vec<&str> = table.lines().collect();
        assert!(
            lines[1].contains("9.25 ms") && lines[1].ends_with("missed"),
            "{table}"
        );
        assert!(
            lines[1].contains("floor 6 ms") && lines[1].contains("1.54"),
            "{table}"
        );
        assert!(
            lines[2].contains("2500 /s") && lines[2].ends_with("met"),
            "{table}"
        );
    }
}
