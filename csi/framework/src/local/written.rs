//! Was anything ever written to a volume, or to what it was made from?

use super::images::image_error;
use super::recipe::image_path;
use super::{Inner, deadline, failed};
use crate::error::Result;
use crate::identity::VolumeId;

/// Of our images.
const CLUSTER: u64 = 128 << 10;
/// Bytes of a disk for which the first table (L1) has one entry of eight bytes, where clusters have subclusters.
const PER_ENTRY: u64 = 1 << 30;

impl Inner {
    pub(crate) async fn written(&self, id: &VolumeId) -> Result<bool> {
        let (uuid, _) = self.volume(id)?;
        // No file that its contents lie in is merged meanwhile.
        let _lock = self.lock([uuid]).await?;
        let (_, record) = self.volume(id)?;
        if !record.exports.is_empty() {
            return Ok(true);
        }
        // Its daemon is gone: no write is under way, and what it held back is in the image. What that rests on is frozen,
        // and was on disk before it was.
        self.ensure(uuid).await?;
        let object = id.to_string();
        let files = self.catalogue.state().chain(record.top);
        for file in files {
            let path = image_path(&self.config, file);
            let metadata = tokio::fs::metadata(&path).await;
            let length = metadata.map_err(|why| failed(&object, &path, &why))?.len();
            if length > empty_at_most(record.size) {
                return Ok(true);
            }
        }
        let path = image_path(&self.config, record.top);
        let needed = self.images.measure_copy(&path, deadline()).await;
        let needed = needed.map_err(|why| image_error(&object, &why))?;
        // What a copy needs beyond what it would with every cluster written is what is not: all of the disk, if nothing is.
        let missing = needed.fully_allocated.saturating_sub(needed.required);
        Ok(missing != record.size.next_multiple_of(CLUSTER))
    }
}

/// An image of a disk of `size` bytes to which nothing was written is no longer than this, and one that is longer need not be looked
/// into: header, two tables of references, and L1, of which an older and a middle one are left behind where the disk has grown.
fn empty_at_most(size: u64) -> u64 {
    let table = (size.div_ceil(PER_ENTRY) * 8).next_multiple_of(CLUSTER);
    3 * CLUSTER + 3 * table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_empty_image_is_no_longer_also_after_it_has_grown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let run = |words: &[&str]| {
            let output = Command::new("qemu-img").args(words).output();
            let output = output.expect("run qemu-img (`make setup` installs it)");
            assert!(output.status.success(), "{output:?}");
        };
        let file = path.display().to_string();
        for (sizes, one) in [
            (&[1_u64 << 20, 1 << 30, 2 << 30, 3 << 30][..], 6 * CLUSTER),
            (&[100 << 30, 200 << 30, 5000 << 30], 6 * CLUSTER),
            (&[64 << 40, 65 << 40, 90 << 40], 21 * CLUSTER),
        ] {
            for (n, size) in sizes.iter().enumerate() {
                let bytes = size.to_string();
                let layout = format!("cluster_size={CLUSTER},extended_l2=on,size={bytes}");
                match n {
                    0 => run(&["create", "-q", "-f", "qcow2", "-o", &layout, &file]),
                    _ => run(&["resize", "-q", &file, &bytes]),
                }
                let length = std::fs::metadata(&path).unwrap().len();
                assert!(length <= empty_at_most(*size), "{size}: {length}");
            }
            assert_eq!(empty_at_most(sizes[sizes.len() - 1]), one);
        }
    }
}
