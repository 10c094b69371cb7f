//! What is asked, checked field by field before anything is touched. Pure. What is wrong is told with the field's name
//! and with what it should be.

pub(crate) mod capability;
pub(crate) mod capacity;
pub(crate) mod parameters;
pub(crate) mod source;
pub(crate) mod topology;
pub(crate) mod vhost;

use std::collections::BTreeMap;

use tonic::Status;

use crate::status::Answer;

/// The most bytes of a string (CSI specification, "Size Limits").
const STRING: usize = 128;
/// The most bytes of a map.
const MAP: usize = 4096;
/// The most bytes of a node's id.
const NODE: usize = 256;

/// INVALID_ARGUMENT.
pub(crate) fn invalid(sentence: impl Into<String>) -> Status {
    Status::invalid_argument(sentence)
}

/// A field that has to be there.
pub(crate) fn missing(field: &str, what: &str) -> Status {
    invalid(format!("{field} is missing: give {what}"))
}

fn bounded(field: &str, value: &str, most: usize) -> Answer<()> {
    if value.len() > most {
        let length = value.len();
        return Err(invalid(format!(
            "{field} has {length} bytes: at most {most} are allowed"
        )));
    }
    let control = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    if value.chars().any(control) {
        return Err(invalid(format!(
            "{field} has control characters: leave them out"
        )));
    }
    Ok(())
}

/// A text that may be empty.
pub(crate) fn text(field: &str, value: &str) -> Answer<()> {
    bounded(field, value, STRING)
}

/// An id or a name. Any text is an id: one that nobody gave is unknown, not wrong.
pub(crate) fn id<'a>(field: &str, value: &'a str, what: &str) -> Answer<&'a str> {
    if value.is_empty() {
        return Err(missing(field, what));
    }
    text(field, value)?;
    Ok(value)
}

/// The id of a volume.
pub(crate) fn volume_id(value: &str) -> Answer<&str> {
    id("volume_id", value, "the id that CreateVolume answered")
}

/// The id of a node, which may be empty.
pub(crate) fn node_id(value: &str) -> Answer<&str> {
    bounded("node_id", value, NODE)?;
    Ok(value)
}

/// A map's size. Its values are not repeated in sentences: they may be secret.
pub(crate) fn map(field: &str, map: &BTreeMap<String, String>) -> Answer<()> {
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAP {
        return Err(invalid(format!(
            "{field} has {bytes} bytes: at most {MAP} are allowed"
        )));
    }
    Ok(())
}

/// `max_entries` of a list; 0: all.
pub(crate) fn max_entries(value: i32) -> Answer<usize> {
    usize::try_from(value).map_err(|_| {
        invalid(format!(
            "max_entries is {value}: give 0 for all, or a number above 0"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_specification() {
        assert!(volume_id(&"x".repeat(128)).is_ok());
        assert!(node_id(&"x".repeat(256)).is_ok());
        for (error, begin) in [
            (volume_id("").unwrap_err(), "volume_id is missing: "),
            (
                volume_id(&"x".repeat(129)).unwrap_err(),
                "volume_id has 129 bytes: ",
            ),
            (
                volume_id("a\u{1}").unwrap_err(),
                "volume_id has control characters",
            ),
            (
                node_id(&"x".repeat(257)).unwrap_err(),
                "node_id has 257 bytes: ",
            ),
            (max_entries(-1).unwrap_err(), "max_entries is -1: "),
        ] {
            assert_eq!(error.code(), tonic::Code::InvalidArgument);
            assert!(error.message().starts_with(begin), "{error}");
        }
        let big = BTreeMap::from([("password".to_owned(), "secret".repeat(1000))]);
        let error = map("secrets", &big).unwrap_err();
        assert_eq!(
            error.message(),
            "secrets has 6008 bytes: at most 4096 are allowed"
        );
    }
}
