//! A writer is killed in the middle of its work, again and again; every acknowledged change must be there afterwards,
//! and at most the one in flight besides.
//!
//! The program runs itself as the writer (`kill9 writer <dir>`), which acknowledges each change on standard output.

#![expect(
    clippy::unwrap_used,
    reason = "a test, which clippy can't see: it has no harness"
)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use journal::Journal;

const ROUNDS: usize = 12;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("writer") => write_forever(&args[2]),
        // What the test runner asks every test program.
        Some("--list") => println!("no_acknowledged_change_is_lost: test"),
        _ => {
            no_acknowledged_change_is_lost();
            println!("test no_acknowledged_change_is_lost ... ok");
        }
    }
}

fn write_forever(dir: &str) {
    let journal = Journal::<u64>::open(dir, "b1").unwrap();
    let mut out = std::io::stdout().lock();
    let start = journal.get("counter").map_or(0, |record| record.value);
    for n in start + 1.. {
        if n == 1 {
            journal.insert("counter", n).unwrap();
        } else {
            journal.update("counter", n).unwrap();
        }
        let key = format!("n{}", n % 7);
        journal.remove(&key).unwrap();
        journal.insert(&key, n).unwrap();
        writeln!(out, "{n}").unwrap();
    }
}

fn no_acknowledged_change_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..ROUNDS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .arg("writer")
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = BufReader::new(writer.stdout.take().unwrap()).lines();
        // A different number of changes each round, so that the kill meets different steps.
        for _ in 0..=round {
            acknowledged.next().unwrap().unwrap();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let last = acknowledged.map_while(Result::ok).last();
        let last: u64 = last.map_or(before + round as u64 + 1, |line| line.parse().unwrap());

        let journal = Journal::<u64>::open(dir.path(), "b1").unwrap();
        assert!(
            journal.quarantined().is_empty(),
            "{:?}",
            journal.quarantined()
        );
        let counter = journal.get("counter").unwrap().value;
        assert!(
            counter == last || counter == last + 1,
            "{counter} after {last}"
        );
        let of_last = journal
            .get(&format!("n{}", last % 7))
            .map(|record| record.value);
        assert_eq!(of_last, Some(last));
        let names = std::fs::read_dir(dir.path()).unwrap();
        let temporary = names.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_string_lossy().starts_with(".tmp-")
        });
        assert_eq!(temporary.count(), 0);
        before = counter;
    }
}
