//! The mTLS listener's certificate, and whom it believes.

use std::path::Path;

use mtls::Files;

/// What lies in the directory of `--tls`: whom we believe, who we are, and the proof.
pub(crate) fn files(directory: &Path) -> Files {
    Files {
        key: directory.join("server-key.pem"),
        cert: directory.join("server-cert.pem"),
        ca: directory.join("ca-cert.pem"),
        named: "--tls",
    }
}
