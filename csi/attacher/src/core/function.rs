//! Which PCI function a volume gets.

use proto::card::v1::{Function, InventoryResponse};
use proto::volume::v1::exposure::Kind;
use proto::volume::v1::{Exposure, ExposureKind, FunctionId};
use tonic::Code;

use crate::failure::Failure;

/// The kind of an exposure, and the function that it asks for.
pub(crate) fn asked(exposure: Exposure) -> (ExposureKind, Option<FunctionId>) {
    match exposure.kind {
        Some(Kind::LocalBlockDevice(_)) => (ExposureKind::LocalBlockDevice, None),
        Some(Kind::VhostUserBlk(_)) => (ExposureKind::VhostUserBlk, None),
        Some(Kind::NvmeFunction(nvme)) => (ExposureKind::NvmeFunction, nvme.function),
        Some(Kind::VirtioBlkFunction(blk)) => (ExposureKind::VirtioBlkFunction, blk.function),
        None => (ExposureKind::Unspecified, None),
    }
}

/// True for exposures that take a function.
pub(crate) fn needs_one(kind: ExposureKind) -> bool {
    matches!(
        kind,
        ExposureKind::NvmeFunction | ExposureKind::VirtioBlkFunction
    )
}

/// A free function for `exposure`: the one asked for, else the first. Those in `reserved` belong to other records; one that the card says
/// `object` of ours has already is ours.
///
/// # Errors
/// RESOURCE_EXHAUSTED, or UNIMPLEMENTED where the card has no function of that kind at all.
pub(crate) fn choose(
    exposure: Exposure,
    inventory: &InventoryResponse,
    reserved: &[FunctionId],
    object: &str,
) -> Result<FunctionId, Failure> {
    let (kind, asked) = asked(exposure);
    let able = |function: &&Function| function.kinds.contains(&kind.into());
    let all: Vec<&Function> = inventory.functions.iter().filter(able).collect();
    if all.is_empty() {
        return Err(Failure::new(
            Code::Unimplemented,
            format!(
                "card {} has no function of kind {}; Inventory lists what it has",
                inventory.card,
                kind.as_str_name()
            ),
        ));
    }
    let ours = |function: &Function| {
        crate::id::object_of(&function.used_by).is_some_and(|found| found == object)
    };
    let free = |function: &&&Function| {
        let Some(id) = function.id else { return false };
        asked.is_none_or(|asked| asked == id)
            && (ours(function)
                || (function.used_by.is_empty()
                    && !function.held_by_host
                    && !reserved.contains(&id)))
    };
    let found = all
        .iter()
        .find(|f| ours(f) && free(f))
        .or(all.iter().find(free));
    found.and_then(|function| function.id).ok_or_else(|| {
        let which = match asked {
            Some(_) => "the function asked for is taken, held by the host, or not there".to_owned(),
            None => format!(
                "all {} functions of kind {} are taken",
                all.len(),
                kind.as_str_name()
            ),
        };
        Failure::new(
            Code::ResourceExhausted,
            format!(
                "card {}: {which}; detach another volume first",
                inventory.card
            ),
        )
    })
}
