//! A stream of bytes from an OVSDB server: framing, envelopes, updates, results, schemas.
#![no_main]

#[path = "../../cni/ovsdb/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::stream(bytes);
});
