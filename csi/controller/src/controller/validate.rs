//! ValidateVolumeCapabilities.

use proto::csi::v1::validate_volume_capabilities_response::Confirmed;
use proto::csi::v1::{ValidateVolumeCapabilitiesRequest, ValidateVolumeCapabilitiesResponse};
use proto::deadline::Deadline;

use crate::driver::Driver;
use crate::request::capability::Usage;
use crate::request::parameters::Class;
use crate::request::{map, vhost, volume_id};
use crate::status::Answer;

/// Whether the volume can be used so. No: OK, with why.
pub(super) async fn validate(
    driver: &Driver,
    request: &ValidateVolumeCapabilitiesRequest,
    _: Deadline,
) -> Answer<ValidateVolumeCapabilitiesResponse> {
    let id = volume_id(&request.volume_id)?;
    let usages = Usage::all("volume_capabilities", &request.volume_capabilities)?;
    for (field, given) in [
        ("volume_context", &request.volume_context),
        ("parameters", &request.parameters),
        ("mutable_parameters", &request.mutable_parameters),
        ("secrets", &request.secrets),
    ] {
        map(field, given)?;
    }
    let found = driver.volume(id).await?;
    let refused = |message: String| ValidateVolumeCapabilitiesResponse {
        confirmed: None,
        message,
    };
    if let Err(why) = Class::new(&request.parameters, &request.mutable_parameters) {
        return Ok(refused(why.message().to_owned()));
    }
    for (n, usage) in usages.iter().enumerate() {
        if let Err(why) = usage.supported(found.capabilities()) {
            return Ok(refused(format!("volume_capabilities[{n}]: {why}")));
        }
        if let Err(why) = vhost::wanted(&request.volume_context, usage) {
            return Ok(refused(why.message().to_owned()));
        }
    }
    let confirmed = Confirmed {
        volume_context: request.volume_context.clone(),
        volume_capabilities: request.volume_capabilities.clone(),
        parameters: request.parameters.clone(),
        mutable_parameters: request.mutable_parameters.clone(),
    };
    Ok(ValidateVolumeCapabilitiesResponse {
        confirmed: Some(confirmed),
        message: String::new(),
    })
}
