//! `CNI_ARGS`: the pairs `key=value` by which a runtime says whose sandbox it is.

use std::collections::BTreeMap;
use std::fmt;

/// The keys that kubelet's runtimes give, and the one that allows others.
const KNOWN: [&str; 5] = [
    "IgnoreUnknown",
    "K8S_POD_NAMESPACE",
    "K8S_POD_NAME",
    "K8S_POD_UID",
    "K8S_POD_INFRA_CONTAINER_ID",
];

/// Why `CNI_ARGS` cannot be used. Displayed: variable and cause, without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgsError {
    /// An item is not of the form `key=value`.
    NoPair(String),
    /// A key that is not known, and `IgnoreUnknown` is not set.
    UnknownKey(String),
}

impl ArgsError {
    /// What to do about it, a sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoPair(_) => "Write key=value pairs with \";\" between them.",
            Self::UnknownKey(_) => "Remove it, or add IgnoreUnknown=true.",
        }
    }
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPair(item) => write!(
                f,
                "CNI_ARGS contains {item:?}, which is not of the form key=value"
            ),
            Self::UnknownKey(key) => write!(f, "CNI_ARGS contains the unknown key {key:?}"),
        }
    }
}

impl std::error::Error for ArgsError {}

/// The pairs of `CNI_ARGS`; of two with one key the later counts, as in the reference library.
///
/// # Errors
///
/// See [`ArgsError`].
pub fn parse(text: &str) -> Result<BTreeMap<&str, &str>, ArgsError> {
    let mut arguments = BTreeMap::new();
    for item in text.split(';').filter(|item| !item.is_empty()) {
        let Some((key, value)) = item.split_once('=') else {
            return Err(ArgsError::NoPair(item.to_owned()));
        };
        arguments.insert(key, value);
    }
    let ignore = arguments
        .get("IgnoreUnknown")
        .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true"));
    match arguments.keys().find(|key| !KNOWN.contains(key)) {
        Some(key) if !ignore => Err(ArgsError::UnknownKey((*key).to_owned())),
        _ => Ok(arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_unknown_keys_refused_unless_allowed() {
        let read = parse("K8S_POD_NAME=a=b;;K8S_POD_UID=").unwrap();
        assert_eq!(read["K8S_POD_NAME"], "a=b");
        assert_eq!(read["K8S_POD_UID"], "");
        let unknown = parse("K8S_POD_NAME=a;X=1").unwrap_err();
        assert_eq!(unknown, ArgsError::UnknownKey("X".into()));
        assert_eq!(parse("X=1;IgnoreUnknown=TRUE").unwrap()["X"], "1");
        assert_eq!(
            parse("IgnoreUnknown=1;K8S_POD_NAME").unwrap_err(),
            ArgsError::NoPair("K8S_POD_NAME".into())
        );
    }
}
