//! How a host is to see a volume.

use proto::volume::v1::exposure::Kind;
use proto::volume::v1::{
    Exposure, ExposureKind, FunctionCount, LocalBlockDevice, NvmeFunction, VhostUserBlk,
    VirtioBlkFunction,
};

/// What a host without a VM can use, best first: what outlives a restart of the card's engine, then what carries a serial.
const PREFERRED: [ExposureKind; 3] = [
    ExposureKind::NvmeFunction,
    ExposureKind::VirtioBlkFunction,
    ExposureKind::LocalBlockDevice,
];

/// The first of `acceptable` (none given: of our own order) that the card can do.
pub(crate) fn choose(acceptable: &[ExposureKind], card: &[FunctionCount]) -> Option<ExposureKind> {
    let order = if acceptable.is_empty() {
        &PREFERRED[..]
    } else {
        acceptable
    };
    let able = |kind: &ExposureKind| card.iter().any(|count| count.kind() == *kind);
    order.iter().copied().find(able)
}

/// A block device of this machine with a socket beside it; none if the card can't do both, or the caller not use it.
pub(crate) fn with_socket(
    acceptable: &[ExposureKind],
    socket: VhostUserBlk,
    card: &[FunctionCount],
) -> Option<Exposure> {
    use ExposureKind::{LocalBlockDevice as Block, VhostUserBlk as Socket};
    let both = choose(&[Block], card).and(choose(&[Socket], card));
    let usable = acceptable.is_empty() || acceptable.contains(&Block);
    let block = LocalBlockDevice {
        socket: Some(socket),
    };
    both.filter(|_| usable).map(|_| Exposure {
        kind: Some(Kind::LocalBlockDevice(block)),
    })
}

/// The socket beside the block device of `exposure`.
pub(crate) fn socket(exposure: Exposure) -> Option<VhostUserBlk> {
    match exposure.kind {
        Some(Kind::LocalBlockDevice(block)) => block.socket,
        _ => None,
    }
}

/// `kind` with the card's own choice of everything else.
pub(crate) fn of(kind: ExposureKind) -> Exposure {
    let kind = match kind {
        ExposureKind::LocalBlockDevice => Some(Kind::LocalBlockDevice(LocalBlockDevice::default())),
        ExposureKind::VhostUserBlk => Some(Kind::VhostUserBlk(VhostUserBlk::default())),
        ExposureKind::NvmeFunction => Some(Kind::NvmeFunction(NvmeFunction::default())),
        ExposureKind::VirtioBlkFunction => {
            Some(Kind::VirtioBlkFunction(VirtioBlkFunction::default()))
        }
        ExposureKind::Unspecified => None,
    };
    Exposure { kind }
}

/// The kind of `exposure`.
pub(crate) fn kind(exposure: Option<Exposure>) -> ExposureKind {
    match exposure.and_then(|exposure| exposure.kind) {
        Some(Kind::LocalBlockDevice(_)) => ExposureKind::LocalBlockDevice,
        Some(Kind::VhostUserBlk(_)) => ExposureKind::VhostUserBlk,
        Some(Kind::NvmeFunction(_)) => ExposureKind::NvmeFunction,
        Some(Kind::VirtioBlkFunction(_)) => ExposureKind::VirtioBlkFunction,
        None => ExposureKind::Unspecified,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_the_card_can_do() {
        let can = |kinds: &[ExposureKind]| -> Vec<FunctionCount> {
            let count = |kind: &ExposureKind| FunctionCount {
                kind: (*kind).into(),
                ..FunctionCount::default()
            };
            kinds.iter().map(count).collect()
        };
        use ExposureKind::{LocalBlockDevice, NvmeFunction, VhostUserBlk, VirtioBlkFunction};
        let linux = can(&[VhostUserBlk, LocalBlockDevice]);
        assert_eq!(choose(&[], &linux), Some(LocalBlockDevice));
        assert_eq!(choose(&[VhostUserBlk], &linux), Some(VhostUserBlk));
        assert_eq!(choose(&[NvmeFunction], &linux), None);
        let dpu = can(&[VirtioBlkFunction, NvmeFunction]);
        assert_eq!(choose(&[], &dpu), Some(NvmeFunction));
        assert_eq!(
            choose(&[VirtioBlkFunction, NvmeFunction], &dpu),
            Some(VirtioBlkFunction)
        );
        let wanted = super::VhostUserBlk { queues: 3 };
        let both = with_socket(&[NvmeFunction, LocalBlockDevice], wanted, &linux).unwrap();
        assert_eq!(
            (kind(Some(both)), socket(both)),
            (LocalBlockDevice, Some(wanted))
        );
        assert_eq!(socket(of(LocalBlockDevice)), None);
        assert_eq!(with_socket(&[NvmeFunction], wanted, &linux), None);
        assert_eq!(with_socket(&[], wanted, &can(&[LocalBlockDevice])), None);
        assert_eq!(with_socket(&[], wanted, &dpu), None);
        for kind in [
            LocalBlockDevice,
            VhostUserBlk,
            NvmeFunction,
            VirtioBlkFunction,
        ] {
            assert_eq!(self::kind(Some(of(kind))), kind);
        }
    }
}
