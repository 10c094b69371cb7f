//! A VirtualMachineInstance, or a file that the resolver reads; the first byte says which.
#![no_main]

#[path = "../../shim/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::sources(bytes);
});
