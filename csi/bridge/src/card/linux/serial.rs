//! The serial number under which a host sees a volume.

use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// 20 characters: base32 (RFC 4648) of the UUID's first 100 bits, the same everywhere in Outboard.
pub(crate) fn serial(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..20)
        .map(|i| char::from(ALPHABET[(bits >> (123 - 5 * i) & 31) as usize]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_the_back_end_writes() {
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8".parse().unwrap();
        assert_eq!(serial(uuid), "NOT3QEE5VUI5DAFUADAE");
    }
}
