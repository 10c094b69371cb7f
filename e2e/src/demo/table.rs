//! The table, printed row by row as the answers come: plain text, on a terminal and in a log alike.

use anyhow::Result;

use crate::checks::{Check, Seen};

/// Widths, and what went wrong so far.
pub(super) struct Table {
    widths: [usize; 3],
    rows: usize,
    failures: Vec<String>,
}

impl Table {
    /// Prints the head.
    pub(super) fn begin(checks: &[Check]) -> Self {
        let widest = |title: &str, cell: fn(&Check) -> &str| {
            let cells = checks.iter().map(|check| cell(check).chars().count());
            cells.chain([title.len()]).max().unwrap_or_default()
        };
        let widths = [
            widest("what", |check| check.what),
            widest("from", |check| check.from),
            widest("to", |check| check.to),
        ];
        let [what, from, to] = widths;
        println!(
            "{:what$}  {:from$}  {:to$}  {:6}  {:>8}  answer",
            "what", "from", "to", "result", "ms"
        );
        println!("{}", "─".repeat(what + from + to + 44));
        Self {
            widths,
            rows: 0,
            failures: Vec::new(),
        }
    }

    /// Prints a row, and under a failed one its evidence.
    pub(super) fn row(&mut self, check: &Check, outcome: &Result<Seen>) {
        self.rows += 1;
        let [what, from, to] = self.widths;
        let start = format!(
            "{:what$}  {:from$}  {:to$}",
            check.what, check.from, check.to
        );
        match outcome {
            Ok(seen) => {
                let late = seen
                    .late
                    .map(|late| format!(" (after {:.1} s)", late.as_secs_f32()));
                println!(
                    "{start}  ok      {:8.2}  {}{}",
                    seen.ms,
                    seen.text,
                    late.unwrap_or_default()
                );
            }
            Err(error) => {
                println!("{start}  FAILED  {:>8}", "-");
                self.failure(check.what, error);
            }
        }
    }

    /// Notes and prints a failure with its evidence.
    pub(super) fn failure(&mut self, what: &str, error: &anyhow::Error) {
        let evidence = format!("{error:#}");
        println!("    {what}: {}", evidence.replace('\n', "\n    "));
        self.failures.push(what.to_owned());
    }

    /// Prints the sum; true when nothing failed.
    pub(super) fn end(self) -> bool {
        if self.failures.is_empty() {
            println!("all {} rows are good", self.rows);
        } else {
            println!(
                "{} FAILED: {}",
                self.failures.len(),
                self.failures.join("; ")
            );
        }
        self.failures.is_empty()
    }
}
