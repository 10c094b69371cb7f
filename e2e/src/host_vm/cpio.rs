//! Archives in the form that the kernel unpacks as its initramfs ("newc": Documentation/driver-api/early-userspace).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const FILE: u32 = 0o100_755;
const DIRECTORY: u32 = 0o040_755;
/// Names and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

/// An archive in the making.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<PathBuf>,
}

impl Archive {
    /// Adds a file, which may be executed, and the directories that lead to it. A path may be given with a leading slash.
    pub(super) fn file(&mut self, path: &Path, contents: &[u8]) {
        let path = path.strip_prefix("/").unwrap_or(path);
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.pop();
        for directory in above.into_iter().rev() {
            if self.directories.insert(directory.to_owned()) {
                self.entry(&directory.to_string_lossy(), DIRECTORY, &[]);
            }
        }
        self.entry(&path.to_string_lossy(), FILE, contents);
    }

    /// The archive. Several of them may follow each other in one initramfs.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(contents.len()).expect("no file of a guest has 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a path is short");
        // ino mode uid gid nlink mtime filesize, device of the file and of what it stands for, namesize, check.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            size,
            0,
            0,
            0,
            0,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes
            .resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell;

    #[test]
    fn what_is_packed_is_what_cpio_unpacks() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), b"one");
        archive.file(Path::new("a/d"), b"");
        archive.file(Path::new("init"), b"twelve");
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x.cpio"), archive.finish()).unwrap();
        let script =
            "cd \"$0\" && busybox cpio -i -F x.cpio && find a init | sort && cat a/b/c a/d init";
        let said = shell::run(&["sh", "-c", script, &dir.path().display().to_string()]).unwrap();
        assert_eq!(said, "a\na/b\na/b/c\na/d\ninit\nonetwelve");
    }
}
