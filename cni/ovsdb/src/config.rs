//! Which database, where it is, and how to get there.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// What a [`crate::Client`] needs to know. Start from [`Config::new`].
#[derive(Debug, Clone)]
pub struct Config {
    /// Where servers of the database are. Tried in order, the next one after each failure.
    pub remotes: Vec<Remote>,
    /// The database's name, e.g. `OVN_Northbound`.
    pub database: String,
    /// Whether only the leader of a RAFT cluster will do. Needed for nothing but the latest
    /// possible reads: any member accepts transactions.
    pub leader_only: bool,
    /// Key, certificate and CA for `ssl:` remotes.
    pub tls: Option<Tls>,
    /// After this long without a byte from the server the client sends `echo`; without a byte in
    /// as long again it reconnects.
    pub probe_interval: Duration,
    /// Bound on connecting the stream and TLS. The server's state and the schema then have as long
    /// as twice the probe interval, if that is longer.
    pub connect_timeout: Duration,
    /// Bound on the pause between rounds of connection attempts. It starts at 100 ms, doubles, and
    /// is shortened by chance by up to one half.
    pub max_backoff: Duration,
    /// Largest message that is accepted, in bytes.
    pub max_message: usize,
}

impl Config {
    /// Any member of a cluster, no TLS files, probes every 10 s, 5 s to connect, pauses up to 5 s,
    /// messages up to 1 GiB.
    pub fn new(database: impl Into<String>, remotes: Vec<Remote>) -> Self {
        Config {
            remotes,
            database: database.into(),
            leader_only: false,
            tls: None,
            probe_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            max_backoff: Duration::from_secs(5),
            max_message: 1 << 30,
        }
    }
}

/// Files in PEM form. Read at every connect, so rotation needs no restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The client's private key.
    pub key: PathBuf,
    /// The client's certificate, followed by intermediates if there are any.
    pub cert: PathBuf,
    /// The CA certificates that servers are verified against.
    pub ca: PathBuf,
}

/// One server, in the notation of ovsdb(7), "Connection Methods".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Remote {
    /// `unix:/path`
    Unix(PathBuf),
    /// `tcp:host:port`
    Tcp {
        /// IP address or name.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// `ssl:host:port`. The certificate's chain is always verified; its name when `host` is a
    /// name, and when it is an address and the certificate lists addresses.
    Ssl {
        /// IP address or name.
        host: String,
        /// TCP port.
        port: u16,
    },
}

impl Remote {
    /// A plain TCP server.
    pub fn tcp(address: SocketAddr) -> Self {
        Remote::Tcp {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    /// A TLS server.
    pub fn ssl(address: SocketAddr) -> Self {
        Remote::Ssl {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }

    /// Remotes separated by commas.
    ///
    /// # Errors
    /// The first that is none, or that there is none at all.
    pub fn parse_list(list: &str) -> Result<Vec<Remote>, RemoteError> {
        let items = list
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty());
        let remotes: Vec<Remote> = items.map(str::parse).collect::<Result<_, _>>()?;
        if remotes.is_empty() {
            return Err(RemoteError {
                text: list.to_owned(),
            });
        }
        Ok(remotes)
    }
}

/// What was given is no remote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is no OVSDB server: write unix:/path, tcp:address:port or ssl:address:port, \
     an IPv6 address in brackets, several separated by commas"
)]
pub struct RemoteError {
    text: String,
}

impl FromStr for Remote {
    type Err = RemoteError;

    fn from_str(text: &str) -> Result<Self, RemoteError> {
        let error = || RemoteError {
            text: text.to_owned(),
        };
        let (kind, rest) = text.split_once(':').ok_or_else(error)?;
        if kind == "unix" && !rest.is_empty() {
            return Ok(Remote::Unix(rest.into()));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(error)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        if host.is_empty() || (bare.is_none() && host.contains([':', '[', ']'])) {
            return Err(error());
        }
        let host = bare.unwrap_or(host).to_owned();
        let port = port.parse().map_err(|_| error())?;
        match kind {
            "tcp" => Ok(Remote::Tcp { host, port }),
            "ssl" => Ok(Remote::Ssl { host, port }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, host, port) = match self {
            Remote::Unix(path) => return write!(f, "unix:{}", path.display()),
            Remote::Tcp { host, port } => ("tcp", host, port),
            Remote::Ssl { host, port } => ("ssl", host, port),
        };
        match host.contains(':') {
            true => write!(f, "{kind}:[{host}]:{port}"),
            false => write!(f, "{kind}:{host}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_read_and_written() {
        for text in [
            "unix:/run/db.sock",
            "tcp:127.0.0.1:6640",
            "ssl:[fd00::1]:6641",
            "ssl:db:1",
        ] {
            assert_eq!(text.parse::<Remote>().unwrap().to_string(), text);
        }
        let list = Remote::parse_list("tcp:10.0.0.1:1, tcp:10.0.0.2:2").unwrap();
        assert_eq!(list[1], Remote::tcp("10.0.0.2:2".parse().unwrap()));
    }

    #[test]
    fn what_is_no_remote_is_refused_with_the_form_that_is_wanted() {
        for text in [
            "",
            "unix:",
            "tcp:1.2.3.4",
            "udp:1.2.3.4:5",
            "tcp:fd00::1:5",
            "tcp:a:65536",
        ] {
            let error = Remote::parse_list(text).unwrap_err().to_string();
            assert!(error.contains("tcp:address:port"), "{text}: {error}");
        }
    }
}
