//! The seeds of the fuzz target `channel_messages`, replayed: what a host or a DPU could send, and what none should.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod check;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// A seed's name says what becomes of it: `ok-…` is accepted, `no-…` is refused. Those that a fuzzer found have other names.
#[test]
fn seeds_keep_what_must_hold() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/channel_messages");
    let mut kinds = BTreeSet::new();
    let mut count = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let accepted = check::message(&fs::read(entry.path()).unwrap());
        match name.split_once('-') {
            Some(("ok", _)) => assert!(accepted, "{name} was refused"),
            Some(("no", _)) => assert!(!accepted, "{name} was accepted"),
            _ => {}
        }
        kinds.insert(name.split('-').next().unwrap_or_default().to_owned());
        count += 1;
    }
    assert!(kinds.contains("ok") && kinds.contains("no"), "{kinds:?}");
    assert!(count >= 20, "only {count} seeds");
}
