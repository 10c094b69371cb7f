//! Nodes from a file: for bare metal, and for tests.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, bail};
use serde::Deserialize;
use tonic::Status;

use super::{Address, Node, Set};
use crate::status::Answer;

/// The file. See examples/nodes.yaml.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nodes: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    id: String,
    address: String,
    server_name: Option<String>,
    dn: Option<String>,
    engine: Option<String>,
    exports_dir: Option<PathBuf>,
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    out_of_service: bool,
}

/// The file, read again when it changes.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    last: Arc<Mutex<(Stamp, Arc<Set>)>>,
}

/// Another one: another content.
type Stamp = (SystemTime, u64);

impl Source {
    /// Reads the file for the first time.
    pub(crate) fn open(path: PathBuf) -> anyhow::Result<Self> {
        let read = stamp(&path)
            .map_err(anyhow::Error::from)
            .and_then(|stamp| Ok((stamp, parse(&path)?)));
        let (stamp, set) = read.with_context(|| format!("--nodes {}", path.display()))?;
        Ok(Self {
            path,
            last: Arc::new(Mutex::new((stamp, Arc::new(set)))),
        })
    }

    /// The nodes.
    ///
    /// # Errors
    /// UNAVAILABLE: the file can't be read, or is wrong. What it said before is not believed any more.
    pub(crate) async fn read(&self) -> Answer<Arc<Set>> {
        let (path, last) = (self.path.clone(), Arc::clone(&self.last));
        let read = tokio::task::spawn_blocking(move || {
            let stamp = stamp(&path)?;
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.0 != stamp {
                *last = (stamp, Arc::new(parse(&path)?));
            }
            Ok::<_, anyhow::Error>(Arc::clone(&last.1))
        });
        let read = read
            .await
            .map_err(anyhow::Error::from)
            .and_then(|read| read);
        read.map_err(|why| {
            Status::unavailable(format!(
                "nodes {}: {why:#}; repair the file",
                self.path.display()
            ))
        })
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}

fn parse(path: &Path) -> anyhow::Result<Set> {
    let file: File = serde_saphyr::from_str(&std::fs::read_to_string(path)?)?;
    let mut set = Set::new();
    for entry in file.nodes {
        if entry.id.is_empty() || entry.id.len() > 128 {
            bail!("id {:?}: must have 1 to 128 bytes", entry.id);
        }
        let node = Node {
            address: Address::parse(&entry.address, entry.server_name)
                .with_context(|| format!("node {}", entry.id))?,
            dn: entry.dn,
            engine: entry.engine,
            exports: entry
                .exports_dir
                .unwrap_or_else(|| api::storage::EXPORTS_DIR.into()),
            limit: Some(entry.limit).filter(|limit| *limit > 0),
            out_of_service: entry.out_of_service,
            refusal: None,
            id: entry.id.clone(),
        };
        if set.insert(entry.id.clone(), node).is_some() {
            bail!("node {} is there twice", entry.id);
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_example_is_right_and_a_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.yaml");
        std::fs::write(&path, include_str!("../../examples/nodes.yaml")).unwrap();
        let nodes = super::super::Nodes::File(Source::open(path.clone()).unwrap());
        let node = nodes.get("node-1").await.unwrap();
        assert_eq!(
            (node.limit, node.dn.as_deref()),
            (Some(64), Some("CN=dpu-1"))
        );
        assert!(matches!(
            nodes.get("node-2").await.unwrap().address,
            Address::Unix(_)
        ));
        let error = nodes.get("node-3").await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::NotFound);
        std::fs::write(&path, "nodes: [{id: node-3, address: 'unix:/x'}]").unwrap();
        assert!(nodes.get("node-3").await.is_ok());
        assert_eq!(nodes.all().await.unwrap().len(), 1);
        for bad in [
            "nodes: [{id: n, address: 'http://h:1'}]",
            "nodes: [{id: n, address: 'https://h'}]",
            "nodes: [{id: n, address: 'unix:x'}]",
            "nodes: [{id: n, address: 'unix:/x', colour: red}]",
            "nodes: [{id: n, address: 'unix:/x'}, {id: n, address: 'unix:/y'}]",
        ] {
            std::fs::write(&path, bad).unwrap();
            let error = nodes.get("node-3").await.unwrap_err();
            assert_eq!(error.code(), tonic::Code::Unavailable, "{bad}");
        }
    }
}
