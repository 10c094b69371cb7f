//! The error of a CNI call: a code of the specification, a sentence, and what to do.

use std::fmt;

use cni_bin::code;
use cni_bin::wire::Failure;

use crate::netlink::ChangeError;
use crate::netns::NetnsError;
use crate::sysctl::SysctlError;

/// A failed call. Becomes a [`Failure`] once the version to report it under is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    /// One of [`cni_bin::code`].
    pub(crate) code: u32,
    /// Object and cause.
    pub(crate) cause: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Error {
    pub(crate) fn new(code: u32, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            code,
            cause: cause.into(),
            remedy: remedy.into(),
        }
    }

    /// The same error, with the object it happened to in front.
    pub(crate) fn about(mut self, object: impl fmt::Display) -> Self {
        self.cause = format!("{object}: {}", self.cause);
        self
    }

    /// As the plugin prints it, under the version that its configuration declares.
    pub(crate) fn into_failure(self, version: &str) -> Failure {
        Failure::new(version, self.code, self.cause, self.remedy)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cause, self.remedy)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.code, failure.msg, failure.details)
    }
}

impl From<channel::Failure> for Error {
    fn from(failure: channel::Failure) -> Self {
        Self::new(failure.code, failure.cause, failure.remedy)
    }
}

impl From<NetnsError> for Error {
    fn from(error: NetnsError) -> Self {
        let remedy = match &error {
            NetnsError::Missing { .. } => {
                "If the sandbox still runs, mount the directory into cni-node's pod with mountPropagation HostToContainer."
            }
            NetnsError::NotOne { .. } => "The runtime must give a network namespace in CNI_NETNS.",
            NetnsError::Host { .. } => {
                "A pod of the host network needs no CNI call: look at the runtime."
            }
            NetnsError::Io { .. } => {
                "Look at the kernel's log and at the privileges of cni-node's pod."
            }
        };
        Self::new(code::INVALID_NETNS, chain(&error), remedy)
    }
}

impl From<ChangeError> for Error {
    fn from(error: ChangeError) -> Self {
        Self::new(
            code::IO_FAILURE,
            chain(&error),
            "Look at the kernel's log and at the privileges of cni-node's pod.",
        )
    }
}

impl From<SysctlError> for Error {
    fn from(error: SysctlError) -> Self {
        Self::new(
            code::IO_FAILURE,
            chain(&error),
            "cni-node's pod must be privileged, so that /proc/sys is writable; an IPv6 subnet needs a kernel with IPv6.",
        )
    }
}

/// An error and its sources in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.push('.');
    text
}
