//! GetCapacity.

use proto::csi::v1::{GetCapacityRequest, GetCapacityResponse};
use proto::deadline::Deadline;

use crate::driver::Driver;
use crate::request::capability::Usage;
use crate::request::capacity::signed;
use crate::request::map;
use crate::request::parameters::{Class, Parameters};
use crate::request::topology;
use crate::status::{self, Answer};

/// How much can still be made. Nothing where the question can't be satisfied.
pub(super) async fn capacity(
    driver: &Driver,
    request: &GetCapacityRequest,
    _: Deadline,
) -> Answer<GetCapacityResponse> {
    let class = Class::new(&request.parameters, &Parameters::new())?;
    let served = driver.backends.of_parameter(class.backend.as_deref())?;
    let can = served.backend.capabilities();
    let mut possible = true;
    for (n, one) in request.volume_capabilities.iter().enumerate() {
        let usage = Usage::new(&format!("volume_capabilities[{n}]"), Some(one))?;
        possible &= usage.supported(can).is_ok();
    }
    if let Some(place) = &request.accessible_topology {
        map("accessible_topology.segments", &place.segments)?;
        possible &= topology::reaches(&served.topology, place);
    }
    if !possible {
        return Ok(GetCapacityResponse::default());
    }
    let capacity = served.backend.capacity().await.map_err(status::of)?;
    Ok(GetCapacityResponse {
        available_capacity: signed(capacity.available),
        maximum_volume_size: Some(signed(capacity.largest)),
        minimum_volume_size: Some(signed(capacity.smallest)),
    })
}
