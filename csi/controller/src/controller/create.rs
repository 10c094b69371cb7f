//! CreateVolume.

use framework::{CreateVolume, Qos, Source};
use proto::csi::v1::{CreateVolumeRequest, CreateVolumeResponse};
use proto::deadline::Deadline;
use tonic::Status;

use super::volume::message;
use crate::backends::Served;
use crate::driver::Driver;
use crate::record::{Fresh, Record};
use crate::request::capability::Usage;
use crate::request::parameters::{Class, Parameters, own};
use crate::request::{capacity, id, invalid, map, source, topology, vhost};
use crate::status::{self, Answer};

/// Makes a volume, or answers the one of that name if it is what is asked for.
pub(super) async fn create(
    driver: &Driver,
    request: &CreateVolumeRequest,
    deadline: Deadline,
) -> Answer<CreateVolumeResponse> {
    let name = id("name", &request.name, "a name of 1 to 128 bytes")?;
    let size = capacity::range(request.capacity_range.as_ref())?;
    let usages = Usage::all("volume_capabilities", &request.volume_capabilities)?;
    map("secrets", &request.secrets)?;
    let class = Class::new(&request.parameters, &request.mutable_parameters)?;
    let claim = vhost::of_claim(&class.context, &request.parameters, &usages)?;
    let source = source::source(request.volume_content_source.as_ref())?;
    let requirement = request.accessibility_requirements.as_ref();
    topology::check(requirement)?;
    let served = backend(driver, &class, &source)?;
    let can = served.backend.capabilities();
    for (n, usage) in usages.iter().enumerate() {
        usage.check(&format!("volume_capabilities[{n}]"), can)?;
    }
    if !topology::satisfies(&served.topology, requirement) {
        return Err(Status::resource_exhausted(format!(
            "accessibility_requirements: volumes of backend {} are reachable from {:?} only; use a StorageClass with \
             allowedTopologies",
            served.backend.name(),
            served.topology
        )));
    }
    let qos = class.limits.apply(Qos::default())?;
    if qos != Qos::default() && !can.qos {
        return Err(invalid(format!(
            "parameters: backend {} has no limits",
            served.backend.name()
        )));
    }

    let _held = driver
        .locks
        .lock(format!("volume named {name:?}"), "CreateVolume", deadline)
        .await?;
    let record = Record {
        name: name.to_owned(),
        backend: served.backend.name().to_owned(),
        parameters: Some(own(&request.parameters)),
        mutable: own(&request.mutable_parameters),
        claim,
        fresh: if source == Source::Blank {
            Fresh::Untouched
        } else {
            Fresh::Unsure
        },
    };
    let first = match driver.records.get(name) {
        Some(there) => {
            same(&there, &record)?;
            false
        }
        None => {
            driver.records.insert(record).await?;
            true
        }
    };
    fail::fail_point!("create::recorded");
    let (block_size, write_cache) = (class.block_size, class.write_cache);
    let wanted = CreateVolume {
        name: name.to_owned(),
        size,
        source,
        qos,
        block_size,
        write_cache,
    };
    let made = served.backend.create(wanted).await.map_err(status::of);
    fail::fail_point!("create::made");
    if let Err(why) = &made
        && first
        && status::is_final(why.code())
    {
        driver.records.remove(name).await?;
    }
    Ok(CreateVolumeResponse {
        volume: Some(message(driver, served, &made?)),
    })
}

/// The backend that the class names, or that has the source.
fn backend<'a>(driver: &'a Driver, class: &Class, source: &Source) -> Answer<&'a Served> {
    let (of, can): (_, fn(framework::Capabilities) -> bool) = match source {
        Source::Blank => return driver.backends.of_parameter(class.backend.as_deref()),
        Source::Snapshot(id) => (id.backend(), |can| can.snapshots),
        Source::Volume(id) => (id.backend(), |can| can.clones),
    };
    let Some(served) = driver.backends.of_id(of) else {
        return Err(Status::not_found(format!(
            "volume_content_source: {source} does not exist: there is no backend {of:?}; check the id"
        )));
    };
    if class.backend.as_deref().is_some_and(|wanted| wanted != of) {
        return Err(invalid(format!(
            "parameters.backend and volume_content_source contradict each other: {source} is in backend {of}; allowed: {of}"
        )));
    }
    if !can(served.backend.capabilities()) {
        return Err(invalid(format!(
            "volume_content_source: backend {of} can't make a volume of {source}"
        )));
    }
    Ok(served)
}

/// Whether a volume that exists, or was about to, was asked for in the same words.
fn same(there: &Record, wanted: &Record) -> Answer<()> {
    let differs = |what: String| {
        Status::already_exists(format!(
            "volume {:?} exists with another {what}; use another name, or ask for what exists",
            there.name
        ))
    };
    if there.backend != wanted.backend {
        return Err(differs(format!(
            "backend: it is in {}, not in {}",
            there.backend, wanted.backend
        )));
    }
    let Some(parameters) = &there.parameters else {
        return Ok(());
    };
    let pairs = [
        ("parameters", parameters, wanted.parameters.as_ref()),
        ("mutable_parameters", &there.mutable, Some(&wanted.mutable)),
    ];
    for (field, has, wants) in pairs {
        let empty = Parameters::new();
        let wants = wants.unwrap_or(&empty);
        let keys = has.keys().chain(wants.keys());
        if let Some(key) = keys
            .into_iter()
            .find(|key| has.get(*key) != wants.get(*key))
        {
            return Err(differs(format!(
                "{field}.{key}: it has {:?}, not {:?}",
                has.get(key),
                wants.get(key)
            )));
        }
    }
    Ok(())
}
