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

/// `kind` with the card's own choice of everything else.
pub(crate) fn of(kind: ExposureKind) -> Exposure {
    let kind = match kind {
        ExposureKind::LocalBlockDevice => Some(Kind::LocalBlockDevice(LocalBlockDevice {})),
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
