//! What a host sends to its DPU, and a DPU to its host; the kind of message is in the first byte.
#![no_main]

#[path = "../../cni/channel/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

use cni_bin::cni::{ContainerId, InterfaceName};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    check::message(bytes);
    // A key that the channel takes is one that the plugin could have had.
    if let Some((b'A', bytes)) = bytes.split_first()
        && let Some(key) = check::attach(bytes).and_then(|request| request.attachment?.key)
    {
        assert!(key.sandbox.parse::<ContainerId>().is_ok(), "{key:?}");
        assert!(key.ifname.parse::<InterfaceName>().is_ok(), "{key:?}");
    }
});
