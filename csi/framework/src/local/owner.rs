//! On which node the images lie: that of the engine under whose id the directory was first opened.
//!
//! A csi-controller that comes up on another node with a copy of the directory, or with a network file system in its place,
//! would serve old images, or images that two engines have open.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use super::{NAME, failed};
use crate::error::{Error, Result};

/// The file that says it.
const FILE: &str = "engine";

/// Writes the engine's id down where none is, and compares it where one is. The catalogue is open: nobody else does that now.
pub(crate) fn check(dir: &Path, engine_id: &str) -> Result<()> {
    let path = dir.join(FILE);
    let there = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            return record(dir, engine_id)
                .map_err(|why| failed(&format!("backend {NAME}"), &path, &why));
        }
        Err(why) => return Err(failed(&format!("backend {NAME}"), &path, &why)),
    };
    if there.trim_end() == engine_id {
        return Ok(());
    }
    let allowed = format!(
        "{:?}, on whose node the images in {} were made; if they are on this node now, delete {}",
        there.trim_end(),
        dir.display(),
        path.display()
    );
    Err(Error::invalid("engineId", engine_id, &allowed))
}

fn record(dir: &Path, engine_id: &str) -> io::Result<()> {
    let next = dir.join(".engine");
    let mut file = fs::File::create(&next)?;
    writeln!(file, "{engine_id}")?;
    file.sync_all()?;
    fs::rename(next, dir.join(FILE))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_another_node_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        check(dir.path(), "n1").unwrap();
        check(dir.path(), "n1").unwrap();
        let refused = check(dir.path(), "n2").unwrap_err();
        assert!(matches!(refused, Error::Invalid { .. }));
        let sentence = refused.to_string();
        for word in ["engineId = \"n2\"", "\"n1\"", "delete"] {
            assert!(sentence.contains(word), "{sentence}");
        }
        fs::remove_file(dir.path().join(FILE)).unwrap();
        check(dir.path(), "n2").unwrap();
    }
}
