//! From a remote to a session: the stream, then what must be known before anything else is asked.

use crate::config::{Config, Remote};
use crate::schema::Schema;
use crate::server::{MONITOR, Seen, Server};
use crate::session::Session;
use crate::tls;
use jsonrpc::{Dialect, Link, Message, Options, Raw, RemoteError};
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};

/// Makes sure that the server at the other end serves the database as the configuration wants it.
/// The error is a sentence without the remote's name.
pub(crate) async fn establish(
    mut link: Link,
    config: &Config,
    remote: &Remote,
    seen: Seen,
) -> Result<Session, String> {
    let mut server = Server::new(&config.database, config.leader_only, seen);
    let mut ask = Ask::send(&link, &server, config).map_err(|error| error.to_string())?;
    while !ask.is_done() {
        let inbound = link.recv().await.map_err(|error| error.to_string())?;
        match inbound.parse().map_err(|error| error.to_string())? {
            Message::Response {
                id: Some(id),
                outcome,
            } => ask.take(id, outcome, &mut server)?,
            Message::Notification { method, params } if method == "update2" => {
                take_update(&params, &mut server);
            }
            _ => {}
        }
    }
    // A member that has not joined its cluster yet has no schema: the state tells more.
    server.check()?;
    let schema = ask.schema.ok_or("no schema was received")??;
    Ok(Session::new(
        link,
        remote.clone(),
        Arc::new(schema),
        server,
        config.probe_interval,
    ))
}

/// Applies an `update2` that belongs to the `_Server` monitor; false if it does not.
pub(crate) fn take_update(params: &Raw, server: &mut Server) -> bool {
    match params.decode::<(Value, Value)>() {
        Ok((id, updates)) if id == MONITOR => {
            server.apply(&updates);
            true
        }
        _ => false,
    }
}

/// The three questions, asked at once.
struct Ask {
    aware: Option<u64>,
    monitor: Option<u64>,
    get_schema: u64,
    schema: Option<Result<Schema, String>>,
}

impl Ask {
    fn send(link: &Link, server: &Server, config: &Config) -> Result<Self, serde_json::Error> {
        let sender = link.sender();
        Ok(Ask {
            // Else the server closes the connection whenever its set of databases changes.
            aware: Some(sender.request("set_db_change_aware", &json!([true]))?),
            monitor: Some(
                sender.request("monitor_cond", &server.request(config.remotes.len() > 1))?,
            ),
            get_schema: sender.request("get_schema", &json!([config.database]))?,
            schema: None,
        })
    }

    fn is_done(&self) -> bool {
        self.aware.is_none() && self.monitor.is_none() && self.schema.is_some()
    }

    fn take(
        &mut self,
        id: u64,
        outcome: Result<Raw, RemoteError>,
        server: &mut Server,
    ) -> Result<(), String> {
        if self.aware == Some(id) {
            // Older servers do not know it, and need not.
            self.aware = None;
        } else if self.monitor == Some(id) {
            self.monitor = None;
            match outcome {
                Ok(rows) => server.apply(&rows.decode().map_err(|e| e.to_string())?),
                Err(_) => server.unknown(),
            }
        } else if id == self.get_schema {
            self.schema = Some(match outcome {
                Ok(schema) => schema.decode().map_err(|e| format!("its schema: {e}")),
                Err(error) => Err(format!("its schema: {error}")),
            });
        }
        Ok(())
    }
}

/// Connects the stream, with TLS if the remote says so.
pub(crate) async fn open(config: &Config, remote: &Remote) -> Result<Link, String> {
    let options = Options {
        max_frame: config.max_message,
        ..Options::new(Dialect::V1)
    };
    match remote {
        Remote::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
            Ok(Link::open(stream, &options))
        }
        Remote::Tcp { host, port } => Ok(Link::open(tcp(host, *port).await?, &options)),
        Remote::Ssl { host, port } => {
            let files = config
                .tls
                .as_ref()
                .ok_or("ssl: needs a key, a certificate and a CA")?;
            let stream = tcp(host, *port).await?;
            Ok(Link::open(
                tls::connect(files, host, stream).await?,
                &options,
            ))
        }
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(|e| e.to_string())?;
    // Requests are written whole: waiting for more only delays them.
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    Ok(stream)
}
