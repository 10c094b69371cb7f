//! The seeds of the fuzz targets `shim_domain` and `shim_sources`, replayed.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod check;

use std::collections::BTreeSet;
use std::path::PathBuf;

use rstest::rstest;

/// A seed's name says what becomes of it: `ok-…` is accepted, `no-…` is refused. Those that a fuzzer found have other names.
#[rstest]
#[case("shim_domain", check::domain)]
#[case("shim_sources", check::sources)]
fn seeds_keep_what_must_hold(#[case] target: &str, #[case] accepted: fn(&[u8]) -> bool) {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    let mut kinds = BTreeSet::new();
    let mut count = 0;
    for entry in std::fs::read_dir(directory.join(target)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let accepted = accepted(&std::fs::read(entry.path()).unwrap());
        match name.split_once('-') {
            Some(("ok", _)) => assert!(accepted, "{name} was refused"),
            Some(("no", _)) => assert!(!accepted, "{name} was accepted"),
            _ => {}
        }
        kinds.insert(name.split('-').next().unwrap_or_default().to_owned());
        count += 1;
    }
    assert!(kinds.contains("ok") && kinds.contains("no"), "{kinds:?}");
    assert!(count >= 10, "only {count} seeds");
}
