//! Reads the files that the resolver looks at. Small ones, in memory: they are read where they are needed.

use std::io::Read;
use std::path::{Path, PathBuf};

use changes::Changes;

use crate::resolver::links::{Link, Links};
use crate::resolver::{Sources, dra};
use crate::vmi::{Vmi, tap};

/// More is none of these files.
const MOST: u64 = 4 << 20;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// KubeVirt's network-info.
    pub network_info: PathBuf,
    /// The pod's annotations.
    pub annotations: PathBuf,
    /// The directory of DRA metadata.
    pub dra: PathBuf,
    /// The directory of the pod's links in sysfs.
    pub links: PathBuf,
    /// The directory of hook sockets as `compute` sees it.
    pub hooks: String,
}

impl Places {
    /// What is there now, for the binding's interfaces of this VM.
    #[must_use]
    pub fn read(&self, vmi: &Vmi, binding: &str) -> Sources {
        Sources {
            network_info: downward(&self.network_info),
            annotations: downward(&self.annotations),
            dra: self.claims(vmi, binding),
            links: self.links(vmi, binding),
            hooks: self.hooks.clone(),
        }
    }

    /// What changes from now on where kubelet writes while a VM starts.
    pub(crate) fn changes(&self) -> Changes {
        let files = [&self.network_info, &self.annotations];
        let directories = files.into_iter().filter_map(|file| file.parent());
        // A volume that is not mounted now never will be.
        Changes::within(directories.filter(|directory| directory.is_dir()))
    }

    /// Those of the binding's interfaces: their taps, and links of their own names.
    fn links(&self, vmi: &Vmi, binding: &str) -> Option<Links> {
        if !self.links.is_dir() {
            return None;
        }
        let networks = vmi.bound(binding).filter_map(|i| vmi.network(&i.name));
        let names = networks.flat_map(|n| [tap(&n.name), vmi.pod_interface(n)]);
        let there = names.filter_map(|name| {
            let directory = self.links.join(&name);
            let link = Link {
                alias: read(&directory.join("ifalias")).unwrap_or_default(),
                mtu: read(&directory.join("mtu"))?,
                tun_flags: read(&directory.join("tun_flags")),
            };
            Some((name, link))
        });
        Some(Links(there.collect()))
    }

    fn claims(&self, vmi: &Vmi, binding: &str) -> Vec<dra::File> {
        let networks = vmi.bound(binding).filter_map(|i| vmi.network(&i.name));
        let requests = networks.filter_map(|n| n.resource_claim.as_ref());
        let mut files = Vec::new();
        for request in requests {
            let (claim, request) = (&request.claim_name, &request.request_name);
            let text = self
                .claim_directories(vmi, claim)
                .into_iter()
                .filter(|_| plain(request))
                .find_map(|directory| metadata(&directory.join(request)));
            files.extend(text.map(|text| dra::File {
                claim: claim.clone(),
                request: request.clone(),
                text,
            }));
        }
        files
    }

    /// KEP-5304's two, and that of earlier drivers.
    fn claim_directories(&self, vmi: &Vmi, claim: &str) -> Vec<PathBuf> {
        let named = vmi.spec.resource_claims.iter().find(|c| c.name == claim);
        let own = named.and_then(|c| c.resource_claim_name.clone());
        let own = own.filter(|name| plain(name));
        let first = match own {
            Some(name) => self.dra.join("resourceclaims").join(name),
            None => self.dra.join("resourceclaimtemplates").join(claim),
        };
        if plain(claim) {
            vec![first, self.dra.join(claim)]
        } else {
            Vec::new()
        }
    }
}

/// A downward file: nothing if its volume is not mounted, empty until it is written.
fn downward(path: &Path) -> Option<String> {
    read(path).or_else(|| path.parent().filter(|d| d.is_dir()).map(|_| String::new()))
}

/// The first metadata file of a request's directory.
fn metadata(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?;
    let mut names: Vec<_> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    names.sort();
    let ours = |path: &&PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str());
        name.is_some_and(|n| n == "metadata.json" || n.ends_with("-metadata.json"))
    };
    read(names.iter().find(ours)?)
}

fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(MOST).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// A name that stays in its directory.
fn plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains('/')
}
