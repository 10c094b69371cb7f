//! The file that says which pair this node is in: kept by watches on the Dpus that name it. (Each DPU writes its Dpu's heartbeat: who
//! watched all of them would hear all hearts of the cluster.)
//!
//! It changes when the API server has said so and at no other time: while that is away the file stays as it is, after a restart
//! too. Whoever reads it sees a whole file or none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use api::Dpu;
use api::pairing::{PAIRING_FILE, Pairing};
use futures::StreamExt as _;
use informer::{Informer, Told};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};
use tracing::{error, info, warn};

use super::Error;

/// A file that could not be written is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// A Dpu, or why it cannot be read.
type Guarded = DeserializeGuard<Dpu>;

/// What is known of the Dpus, by name. One that can no longer be read counts as it was.
#[derive(Default)]
struct Known {
    all: BTreeMap<String, Dpu>,
    /// There has been a whole list.
    complete: bool,
}

impl Known {
    fn take(&mut self, told: Told<Guarded>) {
        match told {
            Told::There(object) => {
                let name = object.name_any();
                match object.0 {
                    Ok(dpu) => drop(self.all.insert(name, dpu)),
                    Err(error) => warn!(
                        dpu = name,
                        "the object is not as it should be, and changes nothing: {error}"
                    ),
                }
            }
            Told::Gone((_, name)) => drop(self.all.remove(&name)),
            Told::Listed(there) => {
                let there: BTreeSet<_> = there.into_iter().map(|(_, name)| name).collect();
                self.all.retain(|name, _| there.contains(name));
                self.complete = true;
            }
            Told::Unknown => {}
        }
    }
}

/// How the Dpus that name the node are found: as the host, and as the DPU.
const FIELDS: [&str; 2] = ["spec.hostNode", "spec.dpuNode"];

/// Keeps the file in `directory` right for `node`, for ever.
pub async fn follow(client: Client, node: &str, directory: &Path) {
    let told = FIELDS.into_iter().enumerate().map(|(side, field)| {
        let informer = Informer::new(&client, "Dpus").fields(&format!("{field}={node}"));
        informer.told().map(move |told| (side, told))
    });
    let mut told = futures::stream::select_all(told);
    let mut known: [Known; 2] = Default::default();
    let mut unwritten = false;
    loop {
        tokio::select! {
            // It has no end.
            Some((side, told)) = told.next() => known[side].take(told),
            () = tokio::time::sleep(RETRY), if unwritten => {}
        }
        if known.iter().all(|known| known.complete) {
            let all = known.iter().flat_map(|known| known.all.values());
            let kept = keep(node, all, directory);
            unwritten = kept.is_err();
            if let Err(error) = kept {
                error!(retry_in_s = RETRY.as_secs(), "{}", crate::chain(&error));
            }
        }
    }
}

/// Makes the file in `directory` right for `node`, once.
///
/// # Errors
/// The API server does not list the Dpus, or the file cannot be written.
pub async fn once(client: Client, node: &str, directory: &Path) -> Result<(), Error> {
    let api = Api::<Guarded>::all(client);
    let mut dpus: Vec<Dpu> = Vec::new();
    for field in FIELDS {
        let of_node = ListParams::default().fields(&format!("{field}={node}"));
        let listed = api.list(&of_node).await;
        let listed = listed.map_err(|source| Error::Dpus(Box::new(source)))?;
        dpus.extend(listed.items.into_iter().filter_map(|one| one.0.ok()));
    }
    keep(node, &dpus, directory)
}

fn keep<'a>(
    node: &str,
    dpus: impl IntoIterator<Item = &'a Dpu>,
    directory: &Path,
) -> Result<(), Error> {
    let wanted = Pairing::of(node, dpus);
    let path = directory.join(PAIRING_FILE);
    let failed = |action| {
        let path = path.clone();
        move |source| Error::Files {
            action,
            path,
            source,
        }
    };
    let present = match fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(source) => return Err(failed("read")(source)),
    };
    let text = wanted.as_ref().map(Pairing::to_string);
    if present == text {
        return Ok(());
    }
    match (&wanted, &text) {
        (Some(Pairing { dpu, host, uid, .. }), Some(text)) => {
            replace(directory, text).map_err(failed("write"))?;
            info!(dpu, host, uid, path = %path.display(), "this node is in a pair");
        }
        _ => {
            fs::remove_file(&path).map_err(failed("remove"))?;
            info!(node, path = %path.display(), "no Dpu names this node any more");
        }
    }
    Ok(())
}

/// By rename: nobody sees half of it.
fn replace(directory: &Path, text: &str) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let fresh = directory.join("..pairing");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, directory.join(PAIRING_FILE))?;
    File::open(directory)?.sync_all()
}
