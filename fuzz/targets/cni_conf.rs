//! A network configuration, under the verb in its first line.
#![no_main]

#[path = "../../cni/bin/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::named_configuration(bytes);
});
