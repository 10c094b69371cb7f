//! The services of `opi_api.storage.v1` that this bridge has objects for.

use proto::opi::storage::v1 as opi;
use tonic::{Request, Response, Status};

use super::Services;
use crate::bridge::Bridge;
use crate::card::Error;
use crate::objects::collection;
use crate::resource::Resource;

type Answer<A> = std::result::Result<Response<A>, Status>;

fn wish<R: Resource>(given: Option<R>, field: &str) -> Result<R, Error> {
    given.ok_or_else(|| Error::Invalid(format!("{field}: must be given")))
}

fn of<R: Resource>(name: &str) -> Result<(), Error> {
    if collection(name) == Some(R::COLLECTION) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "name: {name:?} is none of {}",
        R::COLLECTION
    )))
}

const STATS: &str =
    "OPI's counters of 32 bits overflow within seconds; the engine's exporter has the real ones";

/// One service; for each of its kinds: type, collection field of the list, and the names that the .proto gives.
macro_rules! service {
    ($module:ident::$service:ident {$(
        $kind:ident, $field:ident, $id:ident, $plural:ident, parent ($($parent:ident)?);
        $create:ident $create_request:ident; $get:ident $get_request:ident; $list:ident $list_request:ident $list_response:ident;
        $update:ident $update_request:ident; $delete:ident $delete_request:ident; $stats:ident $stats_request:ident $stats_response:ident
    )*}) => {
        #[tonic::async_trait]
        impl opi::$module::$service for Services {$(
            async fn $create(&self, request: Request<opi::$create_request>) -> Answer<opi::$kind> {
                let parent: Option<&str> = None;
                $(let parent = parent.or(Some(&request.get_ref().$parent));)?
                let name = Bridge::name::<opi::$kind>(parent, &request.get_ref().$id)?;
                self.change(stringify!($create_request), name.clone(), request, |bridge, request| async move {
                    bridge.create(wish(request.$field, stringify!($field))?, name).await
                })
                .await
            }

            async fn $get(&self, request: Request<opi::$get_request>) -> Answer<opi::$kind> {
                let name = request.get_ref().name.clone();
                self.read(stringify!($get_request), name, request, |bridge, request| async move {
                    bridge.get(&request.name)
                })
                .await
            }

            async fn $list(&self, request: Request<opi::$list_request>) -> Answer<opi::$list_response> {
                self.read(stringify!($list_request), String::new(), request, |bridge, request| async move {
                    let parent: Option<&str> = None;
                    $(let parent = parent.or(Some(&request.$parent));)?
                    let page = bridge.list(parent, request.page_size.into(), &request.page_token)?;
                    Ok(opi::$list_response { $plural: page.items, next_page_token: page.next })
                })
                .await
            }

            async fn $update(&self, request: Request<opi::$update_request>) -> Answer<opi::$kind> {
                let given = wish(request.get_ref().$field.clone(), stringify!($field))?;
                of::<opi::$kind>(&given.name)?;
                self.change(stringify!($update_request), given.name.clone(), request, |bridge, request| async move {
                    bridge.update(given, request.update_mask, request.allow_missing).await
                })
                .await
            }

            async fn $delete(&self, request: Request<opi::$delete_request>) -> Answer<()> {
                let name = request.get_ref().name.clone();
                of::<opi::$kind>(&name)?;
                self.change(stringify!($delete_request), name, request, |bridge, request| async move {
                    bridge.delete(&request.name, request.allow_missing, false).await
                })
                .await
            }

            async fn $stats(&self, request: Request<opi::$stats_request>) -> Answer<opi::$stats_response> {
                let name = request.get_ref().name.clone();
                self.read(stringify!($stats_request), name, request, |bridge, request| async move {
                    bridge.get::<opi::$kind>(&request.name)?;
                    Err(Error::Unable(STATS.into()))
                })
                .await
            }
        )*}
    };
}

service!(frontend_nvme_service_server::FrontendNvmeService {
    NvmeSubsystem, nvme_subsystem, nvme_subsystem_id, nvme_subsystems, parent ();
    create_nvme_subsystem CreateNvmeSubsystemRequest; get_nvme_subsystem GetNvmeSubsystemRequest;
    list_nvme_subsystems ListNvmeSubsystemsRequest ListNvmeSubsystemsResponse;
    update_nvme_subsystem UpdateNvmeSubsystemRequest; delete_nvme_subsystem DeleteNvmeSubsystemRequest;
    stats_nvme_subsystem StatsNvmeSubsystemRequest StatsNvmeSubsystemResponse

    NvmeController, nvme_controller, nvme_controller_id, nvme_controllers, parent (parent);
    create_nvme_controller CreateNvmeControllerRequest; get_nvme_controller GetNvmeControllerRequest;
    list_nvme_controllers ListNvmeControllersRequest ListNvmeControllersResponse;
    update_nvme_controller UpdateNvmeControllerRequest; delete_nvme_controller DeleteNvmeControllerRequest;
    stats_nvme_controller StatsNvmeControllerRequest StatsNvmeControllerResponse

    NvmeNamespace, nvme_namespace, nvme_namespace_id, nvme_namespaces, parent (parent);
    create_nvme_namespace CreateNvmeNamespaceRequest; get_nvme_namespace GetNvmeNamespaceRequest;
    list_nvme_namespaces ListNvmeNamespacesRequest ListNvmeNamespacesResponse;
    update_nvme_namespace UpdateNvmeNamespaceRequest; delete_nvme_namespace DeleteNvmeNamespaceRequest;
    stats_nvme_namespace StatsNvmeNamespaceRequest StatsNvmeNamespaceResponse
});

service!(frontend_virtio_blk_service_server::FrontendVirtioBlkService {
    VirtioBlk, virtio_blk, virtio_blk_id, virtio_blks, parent ();
    create_virtio_blk CreateVirtioBlkRequest; get_virtio_blk GetVirtioBlkRequest;
    list_virtio_blks ListVirtioBlksRequest ListVirtioBlksResponse;
    update_virtio_blk UpdateVirtioBlkRequest; delete_virtio_blk DeleteVirtioBlkRequest;
    stats_virtio_blk StatsVirtioBlkRequest StatsVirtioBlkResponse
});

service!(aio_volume_service_server::AioVolumeService {
    AioVolume, aio_volume, aio_volume_id, aio_volumes, parent ();
    create_aio_volume CreateAioVolumeRequest; get_aio_volume GetAioVolumeRequest;
    list_aio_volumes ListAioVolumesRequest ListAioVolumesResponse;
    update_aio_volume UpdateAioVolumeRequest; delete_aio_volume DeleteAioVolumeRequest;
    stats_aio_volume StatsAioVolumeRequest StatsAioVolumeResponse
});

service!(null_volume_service_server::NullVolumeService {
    NullVolume, null_volume, null_volume_id, null_volumes, parent ();
    create_null_volume CreateNullVolumeRequest; get_null_volume GetNullVolumeRequest;
    list_null_volumes ListNullVolumesRequest ListNullVolumesResponse;
    update_null_volume UpdateNullVolumeRequest; delete_null_volume DeleteNullVolumeRequest;
    stats_null_volume StatsNullVolumeRequest StatsNullVolumeResponse
});

service!(middleend_qos_volume_service_server::MiddleendQosVolumeService {
    QosVolume, qos_volume, qos_volume_id, qos_volumes, parent ();
    create_qos_volume CreateQosVolumeRequest; get_qos_volume GetQosVolumeRequest;
    list_qos_volumes ListQosVolumesRequest ListQosVolumesResponse;
    update_qos_volume UpdateQosVolumeRequest; delete_qos_volume DeleteQosVolumeRequest;
    stats_qos_volume StatsQosVolumeRequest StatsQosVolumeResponse
});
