//! The flags that every daemon has, and how a bad one is reported.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tracing_subscriber::EnvFilter;

/// The exit code of a program whose flags are wrong (`EX_USAGE` of sysexits.h): a restart will not help.
pub const EXIT_USAGE: u8 = 64;

/// Flags of every daemon; `#[command(flatten)]` it.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// How log lines on standard error look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "OUTBOARD_LOG_FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: a level, or directives such as "info,cni_node=debug".
    #[arg(long, default_value = "info", value_parser = filter, env = "OUTBOARD_LOG")]
    pub log: String,

    /// Where /metrics, /healthz and /readyz are served; the program's own port on every address unless given.
    #[arg(long, value_name = "IP:PORT", env = "OUTBOARD_ADMIN_ADDRESS")]
    pub admin_address: Option<SocketAddr>,

    /// An OTLP collector (gRPC) that receives the spans of operations, such as <http://192.168.0.9:4317>.
    #[cfg(feature = "otlp")]
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

impl Common {
    /// The admin address: the flag, or `[::]:<port>`.
    #[must_use]
    pub fn admin_address(&self, port: u16) -> SocketAddr {
        self.admin_address
            .unwrap_or_else(|| SocketAddr::from(([0u16; 8], port)))
    }
}

/// The look of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line per event, coloured on a terminal.
    Text,
    /// One JSON object per event, for a log collector.
    Json,
}

/// Parses a flag that is a path.
///
/// # Errors
/// A sentence: it is relative, and would depend on where the program was started.
pub fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("must be an absolute path".to_owned())
    }
}

/// Parses a flag that is a CSI endpoint: a path, or one that begins with `unix://` (CSI spec, "Communication Protocols").
///
/// # Errors
/// A sentence: it is relative, or not named as a socket, as the specification wants it.
pub fn csi_endpoint(path: &str) -> Result<PathBuf, String> {
    let path = path.strip_prefix("unix://").unwrap_or(path);
    if path.ends_with(".sock") {
        absolute(path)
    } else {
        Err("the name of a CSI socket must end in .sock".to_owned())
    }
}

/// Parses a flag that is the name of a Kubernetes node (a DNS subdomain name: RFC 1123, at most 253 characters).
///
/// # Errors
/// A sentence: its length.
pub fn node_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.len() > 253 {
        Err("must have 1 to 253 characters".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

/// The program's flags from its command line and environment.
///
/// # Errors
///
/// The exit code to end with, after the reason (or the help that was asked for) has been printed:
/// [`EXIT_USAGE`] for wrong flags, 0 for `--help` and `--version`.
pub fn parse<T: Parser>() -> Result<T, ExitCode> {
    T::try_parse().map_err(|error| {
        // Nothing can be done for a closed terminal, and the exit code tells.
        let _ = error.print();
        if error.use_stderr() {
            ExitCode::from(EXIT_USAGE)
        } else {
            ExitCode::SUCCESS
        }
    })
}

fn filter(directives: &str) -> Result<String, String> {
    EnvFilter::try_new(directives)
        .map(|_| directives.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    struct Config {
        #[command(flatten)]
        common: Common,
    }

    #[test]
    fn flags_are_validated_when_they_are_parsed() {
        let config = Config::try_parse_from(["p", "--log", "warn,a=debug", "--log-format", "json"]);
        let common = config.unwrap().common;
        assert_eq!(common.log_format, LogFormat::Json);
        assert_eq!(common.admin_address(9476).to_string(), "[::]:9476");
        for bad in [
            ["--log", "a=b=c"],
            ["--log-format", "xml"],
            ["--admin-address", "9476"],
        ] {
            assert!(
                Config::try_parse_from(["p", bad[0], bad[1]]).is_err(),
                "{bad:?}"
            );
        }
    }
}
