//! Objects and their properties (QAPI: qom.json, authz.json, crypto.json).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Done, command, none};

command! {
    /// Makes an object.
    ObjectAdd = "object-add" -> Done {
        /// Its id; its path is `/objects/<id>`.
        id: String,
        /// What it is.
        #[serde(flatten)]
        object: Object,
    }

    /// Removes an object that nothing uses.
    ObjectDel = "object-del" -> Done {
        /// The object.
        id: String,
    }

    /// Sets a property of an object.
    QomSet = "qom-set" -> Done {
        /// `/objects/<id>`.
        path: String,
        /// The property.
        property: String,
        /// Its value.
        value: Value,
    }

    /// A property of an object.
    QomGet = "qom-get" -> Value {
        /// `/objects/<id>`.
        path: String,
        /// The property.
        property: String,
    }

    /// The properties and children of an object.
    QomList = "qom-list" -> Vec<Property> {
        /// `/objects` for all objects.
        path: String,
    }
}

impl QomSet {
    /// Sets the limits of a `throttle-group`, at once for every node of the group. Limits that are not given are lifted:
    /// QEMU would keep those that it is not told of.
    #[must_use]
    pub fn limits(group: &str, limits: &Limits) -> Self {
        QomSet {
            path: format!("/objects/{group}"),
            property: "limits".to_owned(),
            // A struct of numbers under text keys can't fail.
            value: serde_json::to_value(limits.or_none()).unwrap_or_default(),
        }
    }
}

/// Kinds of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    tag = "qom-type",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case"
)]
pub enum Object {
    /// Keys and certificates: `ca-cert.pem`, and of a server `server-cert.pem`, `server-key.pem`, of a client
    /// `client-cert.pem`, `client-key.pem`.
    #[serde(rename = "tls-creds-x509")]
    TlsCredsX509 {
        /// Which side uses it.
        endpoint: Endpoint,
        /// The files' directory.
        dir: PathBuf,
        /// Whether the peer's certificate is checked; of a server, false lets everybody in.
        #[serde(skip_serializing_if = "none")]
        verify_peer: Option<bool>,
    },
    /// One identity is let in: for TLS the certificate's distinguished name, as GnuTLS writes it (`CN=a,O=b`).
    AuthzSimple {
        /// The identity.
        identity: String,
    },
    /// Rules, the first that fits decides.
    AuthzList {
        /// What holds if no rule fits.
        policy: Policy,
        /// The rules.
        rules: Vec<Rule>,
    },
    /// As [`Object::AuthzList`], in a file.
    AuthzListFile {
        /// The file: `{"policy": …, "rules": […]}`.
        filename: PathBuf,
        /// True reads the file again when it changes (inotify on its directory).
        #[serde(skip_serializing_if = "none")]
        refresh: Option<bool>,
    },
    /// Limits that throttle nodes share.
    ThrottleGroup {
        /// The limits.
        limits: Limits,
    },
    /// A thread for exports.
    Iothread {},
}

/// A side of a TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// The one that listens.
    Server,
    /// The one that connects.
    Client,
}

/// Whether an identity is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// No.
    Deny,
    /// Yes.
    Allow,
}

/// A rule of an [`Object::AuthzList`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The identity, or a pattern.
    #[serde(rename = "match")]
    pub identity: String,
    /// What holds then.
    pub policy: Policy,
    /// How `identity` is compared.
    pub format: Format,
}

/// How an identity is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Byte by byte.
    Exact,
    /// As a shell pattern.
    Glob,
}

/// Limits of a throttle group; a limit that is not given, or 0, is none. Rates are per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Limits {
    /// Requests.
    #[serde(skip_serializing_if = "none")]
    pub iops_total: Option<u64>,
    /// Requests in a burst.
    #[serde(skip_serializing_if = "none")]
    pub iops_total_max: Option<u64>,
    /// Seconds of a burst.
    #[serde(skip_serializing_if = "none")]
    pub iops_total_max_length: Option<u64>,
    /// Reads.
    #[serde(skip_serializing_if = "none")]
    pub iops_read: Option<u64>,
    /// Writes.
    #[serde(skip_serializing_if = "none")]
    pub iops_write: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "none")]
    pub bps_total: Option<u64>,
    /// Bytes in a burst.
    #[serde(skip_serializing_if = "none")]
    pub bps_total_max: Option<u64>,
    /// Seconds of a burst.
    #[serde(skip_serializing_if = "none")]
    pub bps_total_max_length: Option<u64>,
    /// Bytes read.
    #[serde(skip_serializing_if = "none")]
    pub bps_read: Option<u64>,
    /// Bytes written.
    #[serde(skip_serializing_if = "none")]
    pub bps_write: Option<u64>,
    /// Bytes above which a request counts as several.
    #[serde(skip_serializing_if = "none")]
    pub iops_size: Option<u64>,
}

impl Limits {
    /// The same with every limit given, which is none where it was not.
    fn or_none(&self) -> Limits {
        let rate = |limit: Option<u64>| Some(limit.unwrap_or(0));
        let length = |seconds: Option<u64>| Some(seconds.unwrap_or(1));
        Limits {
            iops_total: rate(self.iops_total),
            iops_total_max: rate(self.iops_total_max),
            iops_total_max_length: length(self.iops_total_max_length),
            iops_read: rate(self.iops_read),
            iops_write: rate(self.iops_write),
            bps_total: rate(self.bps_total),
            bps_total_max: rate(self.bps_total_max),
            bps_total_max_length: length(self.bps_total_max_length),
            bps_read: rate(self.bps_read),
            bps_write: rate(self.bps_write),
            iops_size: rate(self.iops_size),
        }
    }
}

/// One entry of [`QomList`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Property {
    /// Its name.
    pub name: String,
    /// Its type; `child<throttle-group>` for an object.
    #[serde(rename = "type")]
    pub kind: String,
}
