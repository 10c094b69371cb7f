//! `vhostUserBlk`: a raw volume that a virtual machine may have as a socket, in its block device's place.
//!
//! The socket lies in the pod under the name of the volume's claim: that is kept with the volume ([`of_claim`], from what
//! external-provisioner adds with `--extra-create-metadata`), or named by hand in a static PersistentVolume.

use api::storage::volume_context as key;
use proto::volume::v1::VhostUserBlk;
use tonic::Status;

use super::capability::Usage;
use super::invalid;
use super::parameters::{CLAIM, Parameters};
use crate::status::Answer;

/// Request queues that a socket may have.
pub(crate) const QUEUES: std::ops::RangeInclusive<u32> = 1..=64;

/// The claim of a volume that is made with such parameters; `None`: they ask for no socket.
pub(crate) fn of_claim(
    context: &Parameters,
    parameters: &Parameters,
    usages: &[Usage],
) -> Answer<Option<String>> {
    if !context.contains_key(key::VHOST_USER_BLK) {
        return Ok(None);
    }
    for (n, usage) in usages.iter().enumerate() {
        raw(&format!("volume_capabilities[{n}]"), usage)?;
    }
    let claim = parameters.get(CLAIM).ok_or_else(|| {
        invalid(format!(
            "parameters.{CLAIM} is missing, and with {} the volume's socket is named after its claim: run external-provisioner with \
             --extra-create-metadata",
            key::VHOST_USER_BLK
        ))
    })?;
    named(&format!("parameters.{CLAIM}"), claim)?;
    Ok(Some(claim.clone()))
}

/// The socket that `volume_context` asks for beside the block device, if it does.
pub(crate) fn wanted(context: &Parameters, usage: &Usage) -> Answer<Option<VhostUserBlk>> {
    let field = |key: &str| format!("volume_context.{key}");
    let wrong = |key: &str, allowed: &str| {
        invalid(format!("{} is malformed; allowed: {allowed}", field(key)))
    };
    match context.get(key::VHOST_USER_BLK).map(String::as_str) {
        None | Some("false") => return Ok(None),
        Some("true") => {}
        Some(_) => return Err(wrong(key::VHOST_USER_BLK, "true or false")),
    }
    raw("volume_capability", usage)?;
    let claim = context.get(key::CLAIM).ok_or_else(|| {
        invalid(format!(
            "{} is missing, and with {} the volume's socket is named after its claim: give the context that CreateVolume answered; a \
             static PersistentVolume names its claim in csi.volumeAttributes",
            field(key::CLAIM),
            key::VHOST_USER_BLK
        ))
    })?;
    named(&field(key::CLAIM), claim)?;
    let given = context.get(key::VHOST_USER_BLK_QUEUES);
    let queues = match given {
        None => 1,
        Some(value) => queues(value).ok_or_else(|| wrong(key::VHOST_USER_BLK_QUEUES, "1 to 64"))?,
    };
    Ok(Some(VhostUserBlk { queues }))
}

/// A number of queues.
pub(crate) fn queues(value: &str) -> Option<u32> {
    let plain = value.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| value.parse().ok())?
        .filter(|queues| QUEUES.contains(queues))
}

fn raw(field: &str, usage: &Usage) -> Answer<()> {
    if usage.block {
        return Ok(());
    }
    Err(invalid(format!(
        "{field}: {} is for raw volumes alone, and a file system is wanted; use volumeMode: Block, or a StorageClass without it",
        key::VHOST_USER_BLK
    )))
}

fn named(field: &str, claim: &str) -> Answer<()> {
    let path = api::storage::vhost_path(claim);
    path.map(drop)
        .map_err(|why| -> Status { invalid(format!("{field}: {why}")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::csi::v1::volume_capability::access_mode::Mode;
    use proto::csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
    use rstest::rstest;

    fn usage(block: bool) -> Usage {
        let access = if block {
            AccessType::Block(BlockVolume {})
        } else {
            AccessType::Mount(MountVolume::default())
        };
        let capability = proto::csi::v1::VolumeCapability {
            access_type: Some(access),
            access_mode: Some(AccessMode {
                mode: Mode::SingleNodeWriter.into(),
            }),
        };
        Usage::new("volume_capability", Some(&capability)).unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> Parameters {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[rstest]
    #[case(&[], None)]
    #[case(&[("vhostUserBlk", "false"), ("claim", "/")], None)]
    #[case(&[("vhostUserBlk", "true"), ("claim", "data")], Some(1))]
    #[case(&[("vhostUserBlk", "true"), ("claim", "data"), ("vhostUserBlkQueues", "64")], Some(64))]
    fn a_context_says_whether_there_is_a_socket(
        #[case] pairs: &[(&str, &str)],
        #[case] queues: Option<u32>,
    ) {
        let found = wanted(&map(pairs), &usage(true)).unwrap();
        assert_eq!(found.map(|socket| socket.queues), queues);
    }

    #[rstest]
    #[case(&[("vhostUserBlk", "yes")], true, "allowed: true or false")]
    #[case(&[("vhostUserBlk", "true")], true, "csi.volumeAttributes")]
    #[case(&[("vhostUserBlk", "true"), ("claim", "a/b")], true, "is not the name of a claim")]
    #[case(&[("vhostUserBlk", "true"), ("claim", "a")], false, "volumeMode: Block")]
    #[case(&[("vhostUserBlk", "true"), ("claim", "a"), ("vhostUserBlkQueues", "65")], true, "allowed: 1 to 64")]
    #[case(&[("vhostUserBlk", "true"), ("claim", "a"), ("vhostUserBlkQueues", "0")], true, "allowed: 1 to 64")]
    fn a_context_that_can_not_be_followed_says_why(
        #[case] pairs: &[(&str, &str)],
        #[case] block: bool,
        #[case] says: &str,
    ) {
        let error = wanted(&map(pairs), &usage(block)).unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
        assert!(error.message().contains(says), "{error}");
    }

    #[test]
    fn the_claim_is_remembered_if_there_is_to_be_a_socket() {
        let asks = map(&[("vhostUserBlk", "true")]);
        let of = |name: &str| map(&[(CLAIM, name)]);
        let raw = [usage(true)];
        assert_eq!(of_claim(&map(&[]), &of("data"), &raw).unwrap(), None);
        let claim = of_claim(&asks, &of("data"), &raw).unwrap();
        assert_eq!(claim.as_deref(), Some("data"));
        for (error, says) in [
            (of_claim(&asks, &map(&[]), &raw), "--extra-create-metadata"),
            (
                of_claim(&asks, &of("data"), &[usage(false)]),
                "volume_capabilities[0]",
            ),
            (
                of_claim(&asks, &of(&"c".repeat(253)), &raw),
                "at most 60 characters",
            ),
        ] {
            let error = error.unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
    }
}
