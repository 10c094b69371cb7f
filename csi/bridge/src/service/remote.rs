//! Services of OPI that the card has nothing for: every call says why, and what to use instead.

use proto::opi::storage::v1 as opi;
use tonic::{Request, Response, Status};

use super::Services;

type Answer<A> = std::result::Result<Response<A>, Status>;

/// A service all of whose calls are refused.
macro_rules! refused {
    ($module:ident::$service:ident, $why:literal, [$($call:ident($request:ty) -> $answer:ty;)*]) => {
        #[tonic::async_trait]
        impl opi::$module::$service for Services {$(
            async fn $call(&self, _: Request<$request>) -> Answer<$answer> {
                Err(Status::unimplemented($why))
            }
        )*}
    };
}

refused!(nvme_remote_controller_service_server::NvmeRemoteControllerService, "this card reaches no NVMe-oF targets: the kernel's nvme-fabrics is not used; connect the volume as an NBD source (outboard.card.v1 CreateSource)", [
    create_nvme_remote_controller(opi::CreateNvmeRemoteControllerRequest) -> opi::NvmeRemoteController;
    delete_nvme_remote_controller(opi::DeleteNvmeRemoteControllerRequest) -> ();
    update_nvme_remote_controller(opi::UpdateNvmeRemoteControllerRequest) -> opi::NvmeRemoteController;
    list_nvme_remote_controllers(opi::ListNvmeRemoteControllersRequest) -> opi::ListNvmeRemoteControllersResponse;
    get_nvme_remote_controller(opi::GetNvmeRemoteControllerRequest) -> opi::NvmeRemoteController;
    reset_nvme_remote_controller(opi::ResetNvmeRemoteControllerRequest) -> ();
    stats_nvme_remote_controller(opi::StatsNvmeRemoteControllerRequest) -> opi::StatsNvmeRemoteControllerResponse;
    list_nvme_remote_namespaces(opi::ListNvmeRemoteNamespacesRequest) -> opi::ListNvmeRemoteNamespacesResponse;
    get_nvme_remote_namespace(opi::GetNvmeRemoteNamespaceRequest) -> opi::NvmeRemoteNamespace;
    create_nvme_path(opi::CreateNvmePathRequest) -> opi::NvmePath;
    delete_nvme_path(opi::DeleteNvmePathRequest) -> ();
    update_nvme_path(opi::UpdateNvmePathRequest) -> opi::NvmePath;
    list_nvme_paths(opi::ListNvmePathsRequest) -> opi::ListNvmePathsResponse;
    get_nvme_path(opi::GetNvmePathRequest) -> opi::NvmePath;
    stats_nvme_path(opi::StatsNvmePathRequest) -> opi::StatsNvmePathResponse;
]);

refused!(malloc_volume_service_server::MallocVolumeService, "this card makes no volumes of memory: a restart of their daemon would empty them unnoticed; use an AIO volume", [
    create_malloc_volume(opi::CreateMallocVolumeRequest) -> opi::MallocVolume;
    delete_malloc_volume(opi::DeleteMallocVolumeRequest) -> ();
    update_malloc_volume(opi::UpdateMallocVolumeRequest) -> opi::MallocVolume;
    list_malloc_volumes(opi::ListMallocVolumesRequest) -> opi::ListMallocVolumesResponse;
    get_malloc_volume(opi::GetMallocVolumeRequest) -> opi::MallocVolume;
    stats_malloc_volume(opi::StatsMallocVolumeRequest) -> opi::StatsMallocVolumeResponse;
]);

refused!(middleend_encryption_service_server::MiddleendEncryptionService, "this card does not encrypt: the key would lie in its engine's recipe; encrypt in the back end or in the guest", [
    create_encrypted_volume(opi::CreateEncryptedVolumeRequest) -> opi::EncryptedVolume;
    delete_encrypted_volume(opi::DeleteEncryptedVolumeRequest) -> ();
    update_encrypted_volume(opi::UpdateEncryptedVolumeRequest) -> opi::EncryptedVolume;
    list_encrypted_volumes(opi::ListEncryptedVolumesRequest) -> opi::ListEncryptedVolumesResponse;
    get_encrypted_volume(opi::GetEncryptedVolumeRequest) -> opi::EncryptedVolume;
    stats_encrypted_volume(opi::StatsEncryptedVolumeRequest) -> opi::StatsEncryptedVolumeResponse;
]);
