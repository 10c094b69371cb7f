//! Keys as file names: readable where possible, unambiguous always.

const SUFFIX: &str = ".json";
/// The kernel's limit for a file name is 255 bytes; a temporary file's name is longer than its record's.
const MAX_NAME: usize = 200;

/// The file name of `key`, or `None` if the key is empty or too long for one.
pub(crate) fn to_file_name(key: &str) -> Option<String> {
    let mut name = String::with_capacity(key.len() + SUFFIX.len());
    for (at, byte) in key.bytes().enumerate() {
        let plain =
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0);
        if plain {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    name.push_str(SUFFIX);
    (!key.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

/// True for the name of a record, as opposed to a temporary file or somebody else's.
pub(crate) fn is_record(name: &str) -> bool {
    name.ends_with(SUFFIX) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn different_keys_have_different_names(a in ".{1,12}", b in ".{1,12}") {
            let (name_a, name_b) = (to_file_name(&a), to_file_name(&b));
            prop_assert_eq!(a == b, name_a.is_some() && name_a == name_b);
            let name = name_a.unwrap();
            prop_assert!(is_record(&name) && !name.contains('/'), "{}", name);
        }
    }

    #[test]
    fn a_key_without_a_file_name_is_refused() {
        assert_eq!(to_file_name(""), None);
        assert_eq!(to_file_name(&"x".repeat(196)), None);
        assert_eq!(to_file_name("../x").unwrap(), "%2E.%2Fx.json");
    }
}
