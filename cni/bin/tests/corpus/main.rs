//! The seeds of the fuzz targets `cni_conf` and `cni_wire`, replayed: what a runtime or a peer could send, and what none should.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod check;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use rstest::rstest;

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let entries = fs::read_dir(dir.join(target)).unwrap();
    let files = entries.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    });
    files.collect()
}

/// A seed's name says what becomes of it: `ok-…` is accepted, `no-…` is refused. Those that a fuzzer found have other names.
#[rstest]
#[case("cni_conf", check::named_configuration)]
#[case("cni_wire", check::message)]
fn seeds_keep_what_must_hold(#[case] target: &str, #[case] accepted: fn(&[u8]) -> bool) {
    let seeds = seeds(target);
    let mut kinds = BTreeSet::new();
    for (name, bytes) in &seeds {
        let accepted = accepted(bytes);
        match name.split_once('-') {
            Some(("ok", _)) => assert!(accepted, "{name} was refused"),
            Some(("no", _)) => assert!(!accepted, "{name} was accepted"),
            _ => {}
        }
        kinds.insert(name.split('-').next().unwrap_or_default());
    }
    assert!(kinds.contains("ok") && kinds.contains("no"), "{kinds:?}");
    assert!(seeds.len() >= 10, "only {} seeds", seeds.len());
}

proptest! {
    #[test]
    fn any_arguments_are_read_again(text in "(IgnoreUnknown=1;)?([a-cA-C=;_]{0,4};?){0,5}") {
        check::arguments(&text);
    }
}
