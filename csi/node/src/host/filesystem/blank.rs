//! Is a disk positively empty? Only bytes that were read and are zero say so.

use std::io;

use super::super::device::Device;

/// How much is read at either end: all that file systems, partition tables and volume managers sign.
const END: u64 = 1 << 20;

/// The first byte that is not zero in the first and in the last MiB. An error of any read is an error: nobody knows
/// what lies there. May block.
pub(super) fn first_trace(device: &Device) -> io::Result<Option<u64>> {
    let bytes = device.found.bytes;
    let length = END.min(bytes);
    for at in [0, (bytes - length) & !4095] {
        let read = device.read(
            at,
            usize::try_from(length.min(bytes - at)).unwrap_or(usize::MAX),
        )?;
        if let Some(found) = read.iter().position(|byte| *byte != 0) {
            return Ok(Some(at + found as u64));
        }
    }
    Ok(None)
}
