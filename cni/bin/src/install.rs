//! The plugin on a host: this program in the runtime's plugin directory, and a conflist that names it.

use std::path::{Path, PathBuf};

use cni_bin::cni::SpecVersion;
use serde::Serialize;

use crate::replace::{self, Error};

/// The file name that `"type": "outboard"` makes a runtime look for.
const PROGRAM: &str = "outboard";
/// The network's name. GC works by it: no second runtime on the host may use it.
const NETWORK: &str = "outboard";

/// Where things go and what the conflist says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The runtime's plugin directory.
    pub(crate) bin_dir: PathBuf,
    /// The runtime's configuration directory; it takes the first file by name.
    pub(crate) conf_dir: PathBuf,
    /// The conflist's file name.
    pub(crate) conf_name: String,
    /// The path of cni-node's socket.
    pub(crate) socket: String,
    /// The one version to use, or `None` to let the runtime choose.
    pub(crate) cni_version: Option<SpecVersion>,
}

/// A file and what was done with it.
pub(crate) type Done = (PathBuf, &'static str);

impl Plan {
    /// Puts the program, then the conflist in place: a runtime that sees the conflist finds the program.
    pub(crate) fn install(&self) -> Result<Vec<Done>, Error> {
        let myself = std::env::current_exe()
            .and_then(std::fs::read)
            .map_err(|source| Error::own("read", source))?;
        let did = |changed| if changed { "installed" } else { "unchanged" };
        let program = self.program();
        let first = replace::file(&program, &myself, 0o755)?;
        let conflist = self.conflist();
        let second = replace::file(&conflist, self.document().as_bytes(), 0o644)?;
        Ok(vec![(program, did(first)), (conflist, did(second))])
    }

    /// Removes the conflist, then the program.
    pub(crate) fn uninstall(&self) -> Result<Vec<Done>, Error> {
        let did = |removed| if removed { "removed" } else { "not there" };
        let mut done = Vec::new();
        for path in [self.conflist(), self.program()] {
            let removed = replace::removed(&path)?;
            done.push((path, did(removed)));
        }
        Ok(done)
    }

    fn program(&self) -> PathBuf {
        self.bin_dir.join(PROGRAM)
    }

    fn conflist(&self) -> PathBuf {
        self.conf_dir.join(Path::new(&self.conf_name))
    }

    /// The conflist.
    ///
    /// Runtimes before libcni 1.2 (containerd 1.6 and 1.7) know no `cniVersions` and take `cniVersion`, which they must
    /// therefore support: 1.0.0. Newer ones take the highest that they know, and with 1.1.0 they call GC and STATUS.
    fn document(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Conflist<'a> {
            cni_version: SpecVersion,
            #[serde(skip_serializing_if = "Option::is_none")]
            cni_versions: Option<[SpecVersion; 2]>,
            name: &'a str,
            plugins: [Plugin<'a>; 1],
        }
        #[derive(Serialize)]
        struct Plugin<'a> {
            r#type: &'a str,
            socket: &'a str,
        }
        let oldest = SpecVersion::new(1, 0, 0);
        let document = Conflist {
            cni_version: self.cni_version.unwrap_or(oldest),
            cni_versions: match self.cni_version {
                Some(_) => None,
                None => Some([oldest, SpecVersion::new(1, 1, 0)]),
            },
            name: NETWORK,
            plugins: [Plugin {
                r#type: PROGRAM,
                socket: &self.socket,
            }],
        };
        let mut text =
            serde_json::to_string_pretty(&document).expect("strings and versions are always JSON");
        text.push('\n');
        text
    }
}
