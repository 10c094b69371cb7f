//! What lies on a disk, by libblkid's low-level probe in a process of its own.

use std::collections::HashMap;

use super::super::child;
use super::super::device::Device;
use super::super::error::Error;
use super::Kind;

/// What lies on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A file system that can be mounted.
    Filesystem(Kind),
    /// Something of somebody's, in words.
    Foreign(String),
    /// blkid recognizes nothing. That does not say that nothing is there: it answers so too when it could not read.
    Unrecognized,
}

/// Probes the disk.
pub(crate) async fn content(device: &Device) -> Result<Content, Error> {
    // -p: the disk, not blkid's cache.
    let args = ["-p", "-o", "export", &device.pinned()];
    let ended = child::run("blkid", args).await?;
    let path = device.path();
    let path = path.display();
    match ended.code {
        Some(0) => Ok(recognized(&ended.out)),
        Some(2) => Ok(Content::Unrecognized),
        Some(8) => Ok(Content::Foreign(
            "signatures of more than one file system or volume manager".to_owned(),
        )),
        _ => Err(Error::Unavailable(format!(
            "blkid can't tell what is on {path} ({}); repeat",
            ended.verdict()
        ))),
    }
}

fn recognized(export: &str) -> Content {
    let tags: HashMap<&str, &str> = export.lines().filter_map(|l| l.split_once('=')).collect();
    match (tags.get("TYPE"), tags.get("PTTYPE")) {
        (Some(name), None) => Kind::named(name)
            .map_or_else(|| Content::Foreign((*name).to_owned()), Content::Filesystem),
        (Some(name), Some(table)) => {
            Content::Foreign(format!("{name} and a partition table ({table})"))
        }
        (None, Some(table)) => Content::Foreign(format!("a partition table ({table})")),
        (None, None) => {
            Content::Foreign("something that blkid recognizes but can't name".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lone_file_system_of_ours_is_one() {
        let check = |export, expected| assert_eq!(recognized(export), expected, "{export}");
        let foreign = |what: &str| Content::Foreign(what.to_owned());
        check(
            "DEVNAME=/dev/x\nTYPE=ext4\nUSAGE=filesystem",
            Content::Filesystem(Kind::Ext4),
        );
        check("TYPE=xfs\n", Content::Filesystem(Kind::Xfs));
        check("TYPE=ext3\n", foreign("ext3"));
        check("TYPE=LVM2_member\nUSAGE=raid", foreign("LVM2_member"));
        check("PTTYPE=gpt\n", foreign("a partition table (gpt)"));
        check(
            "TYPE=ext4\nPTTYPE=dos",
            foreign("ext4 and a partition table (dos)"),
        );
        check(
            "",
            foreign("something that blkid recognizes but can't name"),
        );
    }
}
