//! How large a file system thinks it is.

use super::Kind;

/// The size in bytes that the superblock in the disk's first 4 KiB says. `None`: it is none of that kind.
pub(super) fn bytes(kind: Kind, head: &[u8]) -> Option<u64> {
    match kind {
        Kind::Ext4 => ext4(head.get(1024..)?),
        Kind::Xfs => xfs(head),
    }
}

fn array<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at + N)?.try_into().ok()
}

fn ext4(superblock: &[u8]) -> Option<u64> {
    const MAGIC: u16 = 0xef53;
    const INCOMPAT_64BIT: u32 = 0x80;
    let word = |at| array(superblock, at).map(u32::from_le_bytes);
    if u16::from_le_bytes(array(superblock, 0x38)?) != MAGIC {
        return None;
    }
    let low = u64::from(word(0x4)?);
    let high = match word(0x60)? & INCOMPAT_64BIT {
        0 => 0,
        _ => u64::from(word(0x150)?),
    };
    let block = 1024_u64.checked_shl(word(0x18)?)?;
    (high << 32 | low).checked_mul(block)
}

fn xfs(superblock: &[u8]) -> Option<u64> {
    if superblock.get(..4)? != b"XFSB" {
        return None;
    }
    let block = u64::from(u32::from_be_bytes(array(superblock, 4)?));
    u64::from_be_bytes(array(superblock, 8)?).checked_mul(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn made(program: &str, bytes: u64) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(bytes).unwrap();
        let done = Command::new(program).arg("-q").arg(file.path()).status();
        assert!(done.expect("run `make setup`").success());
        let mut image = std::fs::read(file.path()).unwrap();
        image.truncate(4096);
        image
    }

    #[test]
    fn the_size_is_what_mkfs_wrote() {
        let ext4 = made("mkfs.ext4", 64 << 20);
        assert_eq!(bytes(Kind::Ext4, &ext4), Some(64 << 20));
        let xfs = made("mkfs.xfs", 320 << 20);
        assert_eq!(bytes(Kind::Xfs, &xfs), Some(320 << 20));
        assert_eq!(bytes(Kind::Ext4, &xfs), None);
        assert_eq!(bytes(Kind::Xfs, &ext4), None);
        assert_eq!(bytes(Kind::Ext4, &[]), None);
    }
}
