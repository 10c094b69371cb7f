//! `volume_content_source`: what a volume starts as.

use framework::Source;
use proto::csi::v1::VolumeContentSource;
use proto::csi::v1::volume_content_source::Type;
use tonic::Status;

use super::{id, missing};
use crate::status::Answer;

/// The source; unset: blank.
pub(crate) fn source(source: Option<&VolumeContentSource>) -> Answer<Source> {
    let Some(source) = source else {
        return Ok(Source::Blank);
    };
    match &source.r#type {
        None => Err(missing(
            "volume_content_source.type",
            "`snapshot` or `volume`, or leave the source out",
        )),
        Some(Type::Snapshot(snapshot)) => {
            let field = "volume_content_source.snapshot.snapshot_id";
            let id = id(
                field,
                &snapshot.snapshot_id,
                "the id that CreateSnapshot answered",
            )?;
            id.parse()
                .map(Source::Snapshot)
                .map_err(|_| unknown(field, id))
        }
        Some(Type::Volume(volume)) => {
            let field = "volume_content_source.volume.volume_id";
            let id = id(
                field,
                &volume.volume_id,
                "the id that CreateVolume answered",
            )?;
            id.parse()
                .map(Source::Volume)
                .map_err(|_| unknown(field, id))
        }
    }
}

/// An id that this driver never gave: what it names does not exist.
pub(crate) fn unknown(field: &str, id: &str) -> Status {
    Status::not_found(format!(
        "{field}: {id:?} is not an id of this driver; check it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::csi::v1::volume_content_source::{SnapshotSource, VolumeSource};
    use tonic::Code;

    #[test]
    fn an_unknown_source_is_not_found_and_no_source_is_blank() {
        let of = |r#type| source(Some(&VolumeContentSource { r#type }));
        let snapshot = |snapshot_id: &str| {
            Some(Type::Snapshot(SnapshotSource {
                snapshot_id: snapshot_id.into(),
            }))
        };
        let volume = |volume_id: &str| {
            Some(Type::Volume(VolumeSource {
                volume_id: volume_id.into(),
            }))
        };
        assert_eq!(source(None).unwrap(), Source::Blank);
        assert!(matches!(
            of(snapshot("s1.local.a")).unwrap(),
            Source::Snapshot(_)
        ));
        assert!(matches!(
            of(volume("v1.local.a")).unwrap(),
            Source::Volume(_)
        ));
        assert_eq!(of(None).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(of(volume("")).unwrap_err().code(), Code::InvalidArgument);
        assert_eq!(of(volume("s1.local.a")).unwrap_err().code(), Code::NotFound);
        assert_eq!(of(snapshot("fake")).unwrap_err().code(), Code::NotFound);
    }
}
