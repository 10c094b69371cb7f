//! OPI's front end of the card in card.rs.

use proto::opi::storage::v1::frontend_nvme_service_server::FrontendNvmeService;
use proto::opi::storage::v1::nvme_controller_spec::Endpoint;
use proto::opi::storage::v1::*;
use proto::volume::v1::{Device, ExposureKind, device};
use tonic::{Request, Response, Status};

use crate::card::{Fake, State};

#[derive(Clone)]
pub(crate) enum Object {
    Subsystem(NvmeSubsystem),
    Namespace(NvmeNamespace),
    Controller(NvmeController),
}

type Answer<T> = Result<Response<T>, Status>;

impl State {
    fn function_of(&self, subsystem: &str) -> Option<i32> {
        self.nvme.iter().find_map(|(name, object)| match object {
            Object::Controller(controller) if name.starts_with(subsystem) => {
                match controller.spec.as_ref()?.endpoint.as_ref()? {
                    Endpoint::PcieId(id) => id.physical_function,
                    Endpoint::FabricsId(_) => None,
                }
            }
            _ => None,
        })
    }

    pub(crate) fn user_of(&self, physical: u32) -> String {
        let subsystems = self.nvme.keys().filter(|name| name.split('/').count() == 2);
        let mut user =
            subsystems.filter(|name| self.function_of(name) == i32::try_from(physical).ok());
        user.next_back().cloned().unwrap_or_default()
    }

    pub(crate) fn nvme_device(&self, name: &str) -> Result<Device, Status> {
        let Some(Object::Namespace(namespace)) = self.nvme.get(name) else {
            return Err(Status::not_found("no such object"));
        };
        let subsystem = name.split("/nvmeNamespaces").next().unwrap();
        let Some(function) = self.function_of(subsystem) else {
            return Err(Status::failed_precondition(
                "its subsystem has no controller",
            ));
        };
        let source = &namespace.spec.as_ref().unwrap().volume_name_ref;
        let mut device = self.device_of(source, ExposureKind::NvmeFunction);
        device.address = Some(device::Address::PciAddress(format!(
            "0000:0{function}:00.0"
        )));
        Ok(device)
    }

    fn taken<T>(&self, name: &str, as_is: impl FnOnce(&Object) -> Option<T>) -> Answer<T> {
        let found = self.nvme.get(name).and_then(as_is);
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found(format!("{name} does not exist")))
    }
}

fn no<T>() -> Answer<T> {
    Err(Status::unimplemented("not by this card"))
}

#[tonic::async_trait]
impl FrontendNvmeService for Fake {
    async fn create_nvme_subsystem(
        &self,
        r: Request<CreateNvmeSubsystemRequest>,
    ) -> Answer<NvmeSubsystem> {
        self.gate("CreateNvmeSubsystem").await?;
        let r = r.into_inner();
        let mut made = r.nvme_subsystem.unwrap();
        made.name = format!("nvmeSubsystems/{}", r.nvme_subsystem_id);
        let object = Object::Subsystem(made.clone());
        self.state().nvme.insert(made.name.clone(), object);
        Ok(Response::new(made))
    }

    async fn create_nvme_controller(
        &self,
        r: Request<CreateNvmeControllerRequest>,
    ) -> Answer<NvmeController> {
        self.gate("CreateNvmeController").await?;
        let r = r.into_inner();
        let mut made = r.nvme_controller.unwrap();
        made.name = format!("{}/nvmeControllers/{}", r.parent, r.nvme_controller_id);
        let object = Object::Controller(made.clone());
        self.state().nvme.insert(made.name.clone(), object);
        Ok(Response::new(made))
    }

    async fn create_nvme_namespace(
        &self,
        r: Request<CreateNvmeNamespaceRequest>,
    ) -> Answer<NvmeNamespace> {
        self.gate("CreateNvmeNamespace").await?;
        let r = r.into_inner();
        let mut made = r.nvme_namespace.unwrap();
        made.name = format!("{}/nvmeNamespaces/{}", r.parent, r.nvme_namespace_id);
        let object = Object::Namespace(made.clone());
        self.state().nvme.insert(made.name.clone(), object);
        Ok(Response::new(made))
    }

    async fn delete_nvme_subsystem(&self, r: Request<DeleteNvmeSubsystemRequest>) -> Answer<()> {
        self.gate("DeleteNvmeSubsystem").await?;
        let name = r.into_inner().name;
        self.state().nvme.remove(&name);
        assert!(
            self.state()
                .nvme
                .keys()
                .all(|left| !left.starts_with(&name)),
            "children are left"
        );
        Ok(Response::new(()))
    }

    async fn delete_nvme_controller(&self, r: Request<DeleteNvmeControllerRequest>) -> Answer<()> {
        self.gate("DeleteNvmeController").await?;
        self.state().nvme.remove(&r.into_inner().name);
        Ok(Response::new(()))
    }

    async fn delete_nvme_namespace(&self, r: Request<DeleteNvmeNamespaceRequest>) -> Answer<()> {
        self.gate("DeleteNvmeNamespace").await?;
        self.state().nvme.remove(&r.into_inner().name);
        Ok(Response::new(()))
    }

    async fn get_nvme_subsystem(
        &self,
        r: Request<GetNvmeSubsystemRequest>,
    ) -> Answer<NvmeSubsystem> {
        self.state()
            .taken(&r.into_inner().name, |object| match object {
                Object::Subsystem(subsystem) => Some(subsystem.clone()),
                _ => None,
            })
    }

    async fn get_nvme_controller(
        &self,
        r: Request<GetNvmeControllerRequest>,
    ) -> Answer<NvmeController> {
        self.state()
            .taken(&r.into_inner().name, |object| match object {
                Object::Controller(controller) => Some(controller.clone()),
                _ => None,
            })
    }

    async fn get_nvme_namespace(
        &self,
        r: Request<GetNvmeNamespaceRequest>,
    ) -> Answer<NvmeNamespace> {
        self.state()
            .taken(&r.into_inner().name, |object| match object {
                Object::Namespace(namespace) => Some(namespace.clone()),
                _ => None,
            })
    }

    async fn list_nvme_subsystems(
        &self,
        _: Request<ListNvmeSubsystemsRequest>,
    ) -> Answer<ListNvmeSubsystemsResponse> {
        let state = self.state();
        let all = state.nvme.values().filter_map(|object| match object {
            Object::Subsystem(subsystem) => Some(subsystem.clone()),
            _ => None,
        });
        Ok(Response::new(ListNvmeSubsystemsResponse {
            nvme_subsystems: all.collect(),
            ..ListNvmeSubsystemsResponse::default()
        }))
    }

    async fn update_nvme_subsystem(
        &self,
        _: Request<UpdateNvmeSubsystemRequest>,
    ) -> Answer<NvmeSubsystem> {
        no()
    }
    async fn stats_nvme_subsystem(
        &self,
        _: Request<StatsNvmeSubsystemRequest>,
    ) -> Answer<StatsNvmeSubsystemResponse> {
        no()
    }
    async fn update_nvme_controller(
        &self,
        _: Request<UpdateNvmeControllerRequest>,
    ) -> Answer<NvmeController> {
        no()
    }
    async fn list_nvme_controllers(
        &self,
        _: Request<ListNvmeControllersRequest>,
    ) -> Answer<ListNvmeControllersResponse> {
        no()
    }
    async fn stats_nvme_controller(
        &self,
        _: Request<StatsNvmeControllerRequest>,
    ) -> Answer<StatsNvmeControllerResponse> {
        no()
    }
    async fn update_nvme_namespace(
        &self,
        _: Request<UpdateNvmeNamespaceRequest>,
    ) -> Answer<NvmeNamespace> {
        no()
    }
    async fn list_nvme_namespaces(
        &self,
        _: Request<ListNvmeNamespacesRequest>,
    ) -> Answer<ListNvmeNamespacesResponse> {
        no()
    }
    async fn stats_nvme_namespace(
        &self,
        _: Request<StatsNvmeNamespaceRequest>,
    ) -> Answer<StatsNvmeNamespaceResponse> {
        no()
    }
}
