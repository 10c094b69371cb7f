//! The table, printed row by row as the answers come: plain text, on a terminal and in a log alike.

use anyhow::Result;

use crate::checks::Seen;

const TITLES: [&str; 3] = ["what", "from", "to"];

/// Widths, and what went wrong so far.
pub(super) struct Table {
    widths: [usize; 3],
    rows: usize,
    failures: Vec<String>,
}

impl Table {
    /// Prints the head, wide enough for the first three cells of all rows.
    pub(super) fn begin<'a>(rows: impl Iterator<Item = [&'a str; 3]>) -> Self {
        let mut widths = TITLES.map(str::len);
        for cells in rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let ([what, from, to], [a, b, c]) = (TITLES, widths);
        println!(
            "{what:a$}  {from:b$}  {to:c$}  {:6}  {:>8}  answer",
            "result", "ms"
        );
        println!("{}", "─".repeat(a + b + c + 44));
        Self {
            widths,
            rows: 0,
            failures: Vec::new(),
        }
    }

    /// Prints a row, and under a failed one its evidence.
    pub(super) fn row(&mut self, cells: [&str; 3], outcome: &Result<Seen>) {
        self.rows += 1;
        let ([what, from, to], [a, b, c]) = (cells, self.widths);
        let start = format!("{what:a$}  {from:b$}  {to:c$}");
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
                self.failure(what, error);
            }
        }
    }

    /// Prints a line under the table, or why there is none.
    pub(super) fn line(&mut self, what: &str, line: Result<String>) {
        match line {
            Ok(line) => println!("{line}"),
            Err(error) => self.failure(what, &error),
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
