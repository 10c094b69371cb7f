//! Was anything ever written to a volume, or to what it was made from?

use super::images::image_error;
use super::recipe::image_path;
use super::{Inner, deadline, failed};
use crate::error::Result;
use crate::identity::VolumeId;

/// An image without data has a header and tables, and is smaller than this whatever its size as a disk is: a larger one need
/// not be looked into.
const EMPTY: u64 = 8 << 20;
/// Of our images.
const CLUSTER: u64 = 128 << 10;

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
            if metadata.map_err(|why| failed(&object, &path, &why))?.len() > EMPTY {
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
