//! Image files.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use qemu::ImageError;
use uuid::Uuid;

use super::recipe::image_path;
use super::{Inner, deadline, failed};
use crate::error::{Error, Result};
use crate::state::FileId;

pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

pub(crate) fn image_error(object: &str, error: &ImageError) -> Error {
    let (object, why) = (object.to_owned(), error.to_string());
    match error {
        ImageError::NoSpace { .. } => Error::NoSpace { object, why },
        _ => Error::Unavailable { object, why },
    }
}

impl Inner {
    /// Makes the image as its file record says.
    pub(crate) async fn make_image(&self, object: &str, file: FileId) -> Result<()> {
        let record = self.catalogue.state().files.get(&file).cloned();
        let record = record.ok_or_else(|| Error::not_found(&format!("image {}", file.0)))?;
        let create = match record.backing {
            None => qemu::Create::blank(record.size),
            Some(backing) => qemu::Create {
                size: Some(record.size),
                ..qemu::Create::over(image_path(&self.config, backing))
            },
        };
        let path = image_path(&self.config, file);
        self.images
            .create(&path, &create, deadline())
            .await
            .map_err(|error| image_error(object, &error))
    }

    /// Removes an image; that it is not there is no error.
    pub(crate) async fn unlink(&self, object: &str, file: FileId) -> Result<()> {
        let path = image_path(&self.config, file);
        match tokio::fs::remove_file(&path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(&object, &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the image of a volume without daemon as large as recorded.
    pub(crate) async fn grow_image(&self, uuid: Uuid) -> Result<()> {
        let volume = self.catalogue.state().volumes.get(&uuid).cloned();
        let Some(volume) = volume else { return Ok(()) };
        let object = format!("volume {:?}", volume.name);
        let failed = |error: ImageError| image_error(&object, &error);
        // What it was made with; only an image that grew since is looked at.
        let made = self
            .catalogue
            .state()
            .files
            .get(&volume.top)
            .map(|file| file.size);
        if made == Some(volume.size) {
            return Ok(());
        }
        let path = image_path(&self.config, volume.top);
        let info = self
            .images
            .info(&path, true, deadline())
            .await
            .map_err(failed)?;
        if info.virtual_size < volume.size {
            self.images
                .grow(&path, volume.size, deadline())
                .await
                .map_err(failed)?;
        }
        Ok(())
    }
}
