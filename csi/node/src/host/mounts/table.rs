//! `/proc/self/mountinfo` (proc(5)). Since Linux 5.8 a read of it misses nothing while others mount.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::super::device::Numbers;
use super::super::error::Error;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number in this boot, as open files tell theirs.
    pub(crate) id: u64,
    /// The device under it; major 0 for what has none.
    pub(crate) device: Numbers,
    /// Which part of that file system is mounted.
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
    /// The file system's type.
    pub(crate) kind: String,
    /// Peer groups that it shares with, or follows.
    pub(crate) peers: Vec<u64>,
    /// Options of this mount.
    options: Vec<String>,
    /// Options of the file system.
    of_all: Vec<String>,
}

impl Mount {
    /// Has this option of its own.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// Nobody may write through this mount.
    pub(crate) fn read_only(&self) -> bool {
        self.has("ro")
    }

    /// The kernel took away from a mount that may write what it may write to: what ext4 does after an error.
    pub(crate) fn gave_up(&self) -> bool {
        let gave_up = ["ro", "emergency_ro", "shutdown"];
        !self.read_only() && self.of_all.iter().any(|o| gave_up.contains(&o.as_str()))
    }

    /// Another view of the same part of the same file system.
    pub(crate) fn same_source(&self, other: &Self) -> bool {
        self.device == other.device && self.root == other.root
    }
}

/// All mounts of a namespace, in the order in which they were made.
#[derive(Debug, Clone)]
pub(crate) struct Table(Vec<Mount>);

impl Table {
    /// This program's.
    pub(crate) fn read() -> Result<Self, Error> {
        let path = "/proc/self/mountinfo";
        let text = std::fs::read(path)
            .map_err(|error| Error::Unavailable(format!("can't read {path}: {error}; repeat")))?;
        Ok(Self::parse(&text))
    }

    /// Of a text. Lines that are none are left out.
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(text.split(|b| *b == b'\n').filter_map(line).collect())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// The one that is seen at `point`: the last one made there.
    pub(crate) fn top(&self, point: &Path) -> Option<&Mount> {
        self.0.iter().rev().find(|mount| mount.point == point)
    }
}

/// proc(5): `36 35 98:0 /root /point options [shared:N master:N …] - type source options`.
fn line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|b| *b == b' ');
    let mut word = || words.next();
    let id = text(word()?)?.parse().ok()?;
    let _parent = word()?;
    let device = Numbers::parse(text(word()?)?)?;
    let root = path(word()?);
    let point = path(word()?);
    let options = list(word()?);
    let mut peers = Vec::new();
    loop {
        match text(word()?)? {
            "-" => break,
            tag => {
                if let Some((_, group)) = tag.split_once(':') {
                    peers.extend(group.parse::<u64>());
                }
            }
        }
    }
    let kind = text(word()?)?.to_owned();
    let _source = word()?;
    Some(Mount {
        id,
        device,
        root,
        point,
        kind,
        peers,
        options,
        of_all: list(word()?),
    })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn list(bytes: &[u8]) -> Vec<String> {
    let all = String::from_utf8_lossy(bytes);
    all.split(',').map(str::to_owned).collect()
}

/// Blank, tab, line's end and backslash are written as three octal digits.
fn path(bytes: &[u8]) -> PathBuf {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, others)) = rest.split_first() {
        let octal = |b: u8| (b'0'..=b'7').contains(&b).then(|| u32::from(b - b'0'));
        let escaped = match (first, others) {
            (b'\\', [a, b, c, ..]) => octal(*a)
                .zip(octal(*b))
                .zip(octal(*c))
                .and_then(|((a, b), c)| u8::try_from(a << 6 | b << 3 | c).ok()),
            _ => None,
        };
        match escaped {
            Some(byte) => {
                plain.push(byte);
                rest = &others[3..];
            }
            None => {
                plain.push(*first);
                rest = others;
            }
        }
    }
    PathBuf::from(OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
36 35 7:3 / /a\\040b rw,noatime shared:12 master:3 - ext4 /dev/loop3 rw,errors=remount-ro\n\
37 35 7:4 / /c rw,relatime - ext4 /dev/loop4 ro\n\
not a line\n\
38 36 0:6 /loop5 /a\\040b ro - devtmpfs devtmpfs rw,size=1k\n";

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let table = Table::parse(TEXT);
        assert_eq!(table.iter().count(), 3);
        let first = table.iter().next().unwrap();
        assert_eq!(first.point, PathBuf::from("/a b"));
        assert_eq!((first.id, first.device.to_string()), (36, "7:3".to_owned()));
        assert_eq!(first.peers, [12, 3]);
        assert!(first.has("noatime") && !first.read_only() && !first.gave_up());
        let top = table.top(Path::new("/a b")).unwrap();
        assert_eq!(
            (top.kind.as_str(), top.root.as_path()),
            ("devtmpfs", Path::new("/loop5"))
        );
        assert!(top.read_only() && !top.gave_up());
        assert!(table.top(Path::new("/c")).unwrap().gave_up());
        assert_eq!(table.top(Path::new("/d")), None);
    }

    #[test]
    fn this_machines_table_is_read_whole() {
        let lines = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let table = Table::parse(lines.as_bytes());
        assert_eq!(table.iter().count(), lines.lines().count());
    }
}
