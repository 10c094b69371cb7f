//! A network configuration as the plugin's two halves judge it: `outboard` its [`Head`], cni-node the whole.
//!
//! The head is all that is needed to reach cni-node. The rest passes through untouched, so that a `prevResult` that
//! some other plugin spoilt can't keep a DEL from being served.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cni::{NetConf, PluginInfo, SUPPORTED, SpecVersion};
use crate::code;
use crate::wire::{Command, DEFAULT_SOCKET, Failure};

/// Seconds that a call may take unless the configuration's `timeoutSeconds` says otherwise: under the 2 minutes after
/// which kubelet gives up on a sandbox, so that our sentence arrives instead of its "context deadline exceeded".
pub const DEFAULT_TIMEOUT_SECONDS: u64 = 110;
/// The longest `timeoutSeconds`.
pub const MAX_TIMEOUT_SECONDS: u64 = 600;

/// The keys of a configuration that decide whether and where a call goes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// The version to answer in, as the configuration spells it; empty if it has none, which means 0.1.0.
    #[serde(default)]
    pub cni_version: Option<String>,
    /// The network's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Our own key `socket`: the absolute path of cni-node's socket.
    #[serde(default)]
    pub socket: Option<String>,
    /// Our own key `timeoutSeconds`: how long a call may take, 1 to [`MAX_TIMEOUT_SECONDS`].
    #[serde(default)]
    pub timeout_seconds: Option<u64>,
}

impl Head {
    /// The head of a configuration, checked for `command`.
    ///
    /// # Errors
    ///
    /// Code 6 if `config` is not JSON, 7 if a key has a value that it can't have, 1 if the version is not one of
    /// [`SUPPORTED`] or predates the verb.
    pub fn parse(command: Command, config: &str) -> Result<Self, Failure> {
        let fail = |code, msg, details: &str| Failure::new(version_of(config), code, msg, details);
        // Two steps, because serde_json's "data" errors (a number for a name) are 7 and syntax errors 6.
        let head: Self = match serde_json::from_str(config) {
            Ok(head) => head,
            Err(error) if error.is_data() => {
                return Err(fail(
                    code::INVALID_CONFIG,
                    format!("the network configuration on standard input is invalid: {error}"),
                    "Correct the network's conflist or NetworkAttachmentDefinition.",
                ));
            }
            Err(error) => {
                return Err(fail(
                    code::DECODING_FAILURE,
                    format!("the network configuration on standard input is not JSON: {error}"),
                    "Correct the network's conflist or NetworkAttachmentDefinition.",
                ));
            }
        };
        head.check_version(command)?;
        let name = head.name.as_deref().unwrap_or_default();
        if !is_name(name) {
            let found = if name.is_empty() {
                "has no \"name\"".to_owned()
            } else {
                format!("has the name {name:?}")
            };
            return Err(fail(
                code::INVALID_CONFIG,
                format!("the network configuration {found}"),
                "Give it a name of letters, digits, \"_\", \".\" and \"-\" that starts with a letter or digit.",
            ));
        }
        if !head.socket().starts_with('/') {
            return Err(fail(
                code::INVALID_CONFIG,
                format!(
                    "network {name}: \"socket\" is {:?}, not an absolute path",
                    head.socket()
                ),
                "Write the path that cni-node's --socket has, or leave the key out.",
            ));
        }
        if !(1..=MAX_TIMEOUT_SECONDS).contains(&head.timeout_seconds()) {
            return Err(fail(
                code::INVALID_CONFIG,
                format!(
                    "network {name}: \"timeoutSeconds\" is {}, outside 1 to {MAX_TIMEOUT_SECONDS}",
                    head.timeout_seconds()
                ),
                "Correct it, or leave the key out.",
            ));
        }
        Ok(head)
    }

    /// The version as the configuration spells it, for an error's `cniVersion`.
    #[must_use]
    pub fn version(&self) -> &str {
        self.cni_version.as_deref().unwrap_or_default()
    }

    /// The socket's path: the key, or [`DEFAULT_SOCKET`].
    #[must_use]
    pub fn socket(&self) -> &str {
        self.socket.as_deref().unwrap_or(DEFAULT_SOCKET)
    }

    /// The call's budget in seconds: the key, or [`DEFAULT_TIMEOUT_SECONDS`].
    #[must_use]
    pub fn timeout_seconds(&self) -> u64 {
        self.timeout_seconds.unwrap_or(DEFAULT_TIMEOUT_SECONDS)
    }

    fn check_version(&self, command: Command) -> Result<(), Failure> {
        let version = self.version();
        let supported = SUPPORTED.map(|version| version.to_string());
        if !supported.iter().any(|one| one == version) {
            let found = if version.is_empty() {
                "declares no cniVersion, which means 0.1.0".to_owned()
            } else {
                format!("declares cniVersion {version:?}")
            };
            return Err(Failure::new(
                version,
                code::INCOMPATIBLE_VERSION,
                format!("the network configuration {found}, which outboard does not speak"),
                format!("Use one of {}.", supported.join(", ")),
            ));
        }
        let since = match command {
            Command::Add | Command::Del => SpecVersion::new(0, 3, 0),
            Command::Check => SpecVersion::new(0, 4, 0),
            Command::Gc | Command::Status => SpecVersion::new(1, 1, 0),
        };
        if version
            .parse()
            .is_ok_and(|version: SpecVersion| version < since)
        {
            return Err(Failure::new(
                version,
                code::INCOMPATIBLE_VERSION,
                format!(
                    "{command} does not exist in cniVersion {version} of the network configuration"
                ),
                format!(
                    "Use cniVersion {since} or later, or a runtime that does not call {command}."
                ),
            ));
        }
        Ok(())
    }
}

/// The whole configuration, checked for `command`: what cni-node works with.
///
/// CHECK needs a `prevResult`. DEL does without one that can't be read, since what it undoes is found by container and
/// interface (CNI specification 1.1.0, DEL: "should generally complete without error").
///
/// # Errors
///
/// As [`Head::parse`], and code 7 where a standard key is not what the specification says.
pub fn parse(command: Command, config: &str) -> Result<(NetConf, SpecVersion), Failure> {
    let head = Head::parse(command, config)?;
    let fail = |msg: String, details: &str| {
        Err(Failure::new(
            head.version(),
            code::INVALID_CONFIG,
            msg,
            details,
        ))
    };
    let name = head.name.as_deref().unwrap_or_default();
    let conf = match serde_json::from_str::<NetConf>(config) {
        Err(_) if command == Command::Del => without_prev_result(config),
        other => other,
    };
    let conf = match conf {
        Ok(conf) => conf,
        Err(error) => {
            return fail(
                format!("network {name}: the configuration is invalid: {error}"),
                "Correct the network's conflist or NetworkAttachmentDefinition.",
            );
        }
    };
    if command == Command::Check && conf.prev_result.is_none() {
        return fail(
            format!("network {name}: CHECK came without \"prevResult\""),
            "The runtime must pass the result of the ADD; remove and add the container.",
        );
    }
    // `Head::parse` has let only supported versions pass.
    let version = conf.version().unwrap_or(SpecVersion::CURRENT);
    Ok((conf, version))
}

/// The document that VERSION prints.
#[must_use]
pub fn plugin_info() -> PluginInfo {
    PluginInfo::new(SpecVersion::CURRENT, SUPPORTED.to_vec())
}

/// The `cniVersion` of any text, for the error that reports it: the specification wants the configuration's own value.
/// The newest we speak where there is none to be found.
#[must_use]
pub fn version_of(config: &str) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        cni_version: String,
    }
    serde_json::from_str::<Version>(config).map_or_else(
        |_| SpecVersion::CURRENT.to_string(),
        |found| found.cni_version,
    )
}

fn without_prev_result(config: &str) -> serde_json::Result<NetConf> {
    let mut keys: std::collections::BTreeMap<String, Box<RawValue>> = serde_json::from_str(config)?;
    keys.remove("prevResult");
    serde_json::from_str(&serde_json::to_string(&keys)?)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Command::Add, "{", code::DECODING_FAILURE, "is not JSON")]
    #[case(Command::Add, "", code::DECODING_FAILURE, "is not JSON")]
    #[case(Command::Add, "null", code::INVALID_CONFIG, "is invalid")]
    #[case(
        Command::Add,
        r#"{"cniVersion":1}"#,
        code::INVALID_CONFIG,
        "is invalid"
    )]
    #[case(
        Command::Add,
        r#"{"name":"n"}"#,
        code::INCOMPATIBLE_VERSION,
        "declares no cniVersion"
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"9.0.0","name":"n"}"#,
        code::INCOMPATIBLE_VERSION,
        "\"9.0.0\""
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"0.2.0","name":"n"}"#,
        code::INCOMPATIBLE_VERSION,
        "\"0.2.0\""
    )]
    #[case(
        Command::Check,
        r#"{"cniVersion":"0.3.1","name":"n"}"#,
        code::INCOMPATIBLE_VERSION,
        "CHECK does not exist"
    )]
    #[case(
        Command::Status,
        r#"{"cniVersion":"1.0.0","name":"n"}"#,
        code::INCOMPATIBLE_VERSION,
        "STATUS does not exist"
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"1.0.0"}"#,
        code::INVALID_CONFIG,
        "has no \"name\""
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"1.0.0","name":"-n"}"#,
        code::INVALID_CONFIG,
        "\"-n\""
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"1.0.0","name":"n","socket":"run/s"}"#,
        code::INVALID_CONFIG,
        "not an absolute path"
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"1.0.0","name":"n","timeoutSeconds":0}"#,
        code::INVALID_CONFIG,
        "timeoutSeconds"
    )]
    #[case(
        Command::Check,
        r#"{"cniVersion":"1.0.0","name":"n","type":"outboard"}"#,
        code::INVALID_CONFIG,
        "without \"prevResult\""
    )]
    #[case(
        Command::Add,
        r#"{"cniVersion":"1.0.0","name":"n","type":"outboard","prevResult":{"ips":3}}"#,
        code::INVALID_CONFIG,
        "network n"
    )]
    fn a_bad_configuration_has_its_code_and_names_the_cause(
        #[case] command: Command,
        #[case] config: &str,
        #[case] expected: u32,
        #[case] cause: &str,
    ) {
        let failure = parse(command, config).unwrap_err();
        assert_eq!(failure.code, expected, "{failure}");
        assert!(failure.msg.contains(cause), "{failure}");
        assert!(!failure.details.is_empty(), "{failure}");
    }

    #[test]
    fn del_does_without_a_spoilt_prev_result() {
        let config = r#"{"cniVersion":"1.0.0","name":"n","type":"outboard","prevResult":{"ips":3},"subnet":"blue"}"#;
        let (conf, version) = parse(Command::Del, config).unwrap();
        assert_eq!(conf.prev_result, None);
        assert_eq!(conf.custom["subnet"], "blue");
        assert_eq!(version.to_string(), "1.0.0");
    }

    #[test]
    fn an_absent_list_of_attachments_is_not_an_empty_one() {
        let gc = |list: &str| {
            let config = format!(r#"{{"cniVersion":"1.1.0","name":"n","type":"outboard"{list}}}"#);
            parse(Command::Gc, &config).unwrap().0.valid_attachments
        };
        assert_eq!(gc(""), None);
        assert_eq!(gc(r#","cni.dev/valid-attachments":[]"#), Some(vec![]));
    }

    #[test]
    fn an_error_is_reported_in_the_version_of_its_configuration() {
        assert_eq!(version_of(r#"{"cniVersion":"0.4.0","name":7}"#), "0.4.0");
        assert_eq!(version_of("{"), "1.1.0");
    }
}
