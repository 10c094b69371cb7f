//! Bytes on the socket between the plugin and cni-node, either way, with what a request carries: variables, CNI_ARGS, configuration.
#![no_main]

#[path = "../../cni/bin/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::message(bytes);
});
