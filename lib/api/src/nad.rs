//! NetworkAttachmentDefinitions: which of them are ours, and what they say.
//!
//! The definition belongs to the Network Plumbing Working Group; here is only the part that is
//! read. Its CRD may be absent from a cluster.

use crate::names::{CNI_TYPE, KIND_VHOST_USER};
use kube::CustomResource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Spec of a NetworkAttachmentDefinition.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize)]
#[kube(
    group = "k8s.cni.cncf.io",
    version = "v1",
    kind = "NetworkAttachmentDefinition",
    plural = "network-attachment-definitions",
    shortname = "net-attach-def",
    namespaced,
    schema = "disabled"
)]
pub struct NetworkAttachmentDefinitionSpec {
    /// A CNI configuration or configuration list, as JSON text. Empty: a file on the nodes has it.
    #[serde(default)]
    pub config: String,
}

/// What a definition with `"type": "outboard"` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboardNetwork {
    /// Name of the Subnet that its interfaces belong to.
    pub subnet: String,
    /// Whether its interfaces are vhost-user sockets of virtual machines.
    pub vhost_user: bool,
}

/// Why a definition cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NadError {
    /// `spec.config` is no JSON object.
    #[error("spec.config is not a JSON object ({0}): write a CNI configuration there")]
    Json(String),
    /// Ours, but it does not say which subnet.
    #[error(
        "spec.config has type \"outboard\" and no \"subnet\": add \"subnet\": \"<name of a Subnet>\""
    )]
    NoSubnet,
}

impl NetworkAttachmentDefinitionSpec {
    /// The network, or none if the definition is for another plugin.
    ///
    /// In a configuration list the first plugin of type `outboard` counts.
    pub fn outboard(&self) -> Result<Option<OutboardNetwork>, NadError> {
        if self.config.trim().is_empty() {
            return Ok(None);
        }
        let config: Value = serde_json::from_str(&self.config)
            .map_err(|error| NadError::Json(error.to_string()))?;
        if !config.is_object() {
            return Err(NadError::Json("it is something else".to_owned()));
        }
        let is_ours = |conf: &&Value| conf.get("type").and_then(Value::as_str) == Some(CNI_TYPE);
        let plugin = match config.get("plugins").and_then(Value::as_array) {
            Some(plugins) => plugins.iter().find(is_ours),
            None => Some(&config).filter(is_ours),
        };
        let Some(plugin) = plugin else {
            return Ok(None);
        };
        match plugin.get("subnet").and_then(Value::as_str) {
            Some(subnet) if !subnet.is_empty() => Ok(Some(OutboardNetwork {
                subnet: subnet.to_owned(),
                vhost_user: plugin.get("kind").and_then(Value::as_str) == Some(KIND_VHOST_USER),
            })),
            _ => Err(NadError::NoSubnet),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(config: &str, expected: Result<Option<(&str, bool)>, NadError>) {
        let spec = NetworkAttachmentDefinitionSpec {
            config: config.to_owned(),
        };
        let expected = expected.map(|ours| {
            ours.map(|(subnet, vhost_user)| OutboardNetwork {
                subnet: subnet.to_owned(),
                vhost_user,
            })
        });
        assert_eq!(spec.outboard(), expected, "{config}");
    }

    #[test]
    fn ours_is_told_from_others() {
        check(
            r#"{"cniVersion":"1.0.0","type":"outboard","subnet":"storage"}"#,
            Ok(Some(("storage", false))),
        );
        check(
            r#"{"plugins":[{"type":"tuning"},{"type":"outboard","subnet":"storage"}]}"#,
            Ok(Some(("storage", false))),
        );
        check(
            r#"{"type":"outboard","subnet":"storage","kind":"vhostuser"}"#,
            Ok(Some(("storage", true))),
        );
        check(r#"{"type":"macvlan","subnet":"10.0.0.0/8"}"#, Ok(None));
        check(r#"{"plugins":[{"type":"bridge"}]}"#, Ok(None));
        check(r#"{"name":"x"}"#, Ok(None));
        check("  ", Ok(None));
    }

    #[test]
    fn a_broken_one_says_what_to_write() {
        check(r#"{"type":"outboard"}"#, Err(NadError::NoSubnet));
        check(r#"{"type":"outboard","subnet":7}"#, Err(NadError::NoSubnet));
        check("[]", Err(NadError::Json("it is something else".to_owned())));
        let spec = NetworkAttachmentDefinitionSpec {
            config: "{".to_owned(),
        };
        assert!(
            spec.outboard()
                .unwrap_err()
                .to_string()
                .contains("write a CNI configuration")
        );
    }
}
