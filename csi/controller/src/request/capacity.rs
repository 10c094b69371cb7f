//! `capacity_range`: how large a volume shall be.

use framework::SizeRange;
use proto::csi::v1::CapacityRange;

use super::{invalid, missing};
use crate::status::Answer;

/// The range; unset: the backend chooses.
pub(crate) fn range(range: Option<&CapacityRange>) -> Answer<SizeRange> {
    let Some(range) = range else {
        return Ok(SizeRange::default());
    };
    let required = bytes("required_bytes", range.required_bytes)?;
    let limit = bytes("limit_bytes", range.limit_bytes)?;
    if required == 0 && limit == 0 {
        return Err(invalid(
            "capacity_range has neither required_bytes nor limit_bytes: give one of them, or leave the range out",
        ));
    }
    if limit != 0 && limit < required {
        return Err(invalid(format!(
            "capacity_range.limit_bytes is {limit}, less than required_bytes, which is {required}"
        )));
    }
    Ok(SizeRange {
        required,
        limit: (limit != 0).then_some(limit),
    })
}

/// The range of a volume that shall grow: there is none to choose.
pub(crate) fn wanted(wanted: Option<&CapacityRange>) -> Answer<SizeRange> {
    if wanted.is_none() {
        return Err(missing(
            "capacity_range",
            "the size that the volume shall have",
        ));
    }
    range(wanted)
}

fn bytes(field: &str, value: i64) -> Answer<u64> {
    u64::try_from(value).map_err(|_| {
        invalid(format!(
            "capacity_range.{field} is {value}: it can't be negative"
        ))
    })
}

/// A size as CSI has them.
pub(crate) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictions_are_refused() {
        let of = |required_bytes, limit_bytes| {
            range(Some(&CapacityRange {
                required_bytes,
                limit_bytes,
            }))
        };
        assert_eq!(range(None).unwrap(), SizeRange::default());
        assert_eq!(of(5, 0).unwrap(), SizeRange::at_least(5));
        assert_eq!(
            of(0, 5).unwrap(),
            SizeRange {
                required: 0,
                limit: Some(5)
            }
        );
        for (required, limit) in [(-1, 0), (0, -1), (2, 1), (0, 0)] {
            let error = of(required, limit).unwrap_err();
            assert!(error.message().starts_with("capacity_range"), "{error}");
        }
        assert!(wanted(None).is_err());
    }
}
