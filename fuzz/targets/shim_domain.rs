//! A domain XML, as virt-launcher or another sidecar could hand it over.
#![no_main]

#[path = "../../shim/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::domain(bytes);
});
