//! `outboard.card.v1.Card`.

use std::pin::Pin;

use futures::Stream;
use proto::card::v1::card_server::Card;
use proto::card::v1::{
    CreateLocalDeviceRequest, CreateSourceRequest, DeleteLocalDeviceRequest,
    DeleteLocalDeviceResponse, DeleteSourceRequest, DeleteSourceResponse, Event, GetDeviceRequest,
    GetDeviceResponse, GetLocalDeviceRequest, GetSourceRequest, InventoryRequest,
    InventoryResponse, ListLocalDevicesRequest, ListLocalDevicesResponse, ListSourcesRequest,
    ListSourcesResponse, LocalDevice, ResizeRequest, ResizeResponse, SetLimitsRequest,
    SetLimitsResponse, Source, Started, WatchRequest, event,
};
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use super::Services;
use crate::bridge::Bridge;
use crate::card::{Error, Result};
use crate::objects::collection;

type Answer<A> = std::result::Result<Response<A>, Status>;

/// A name of this collection, or nothing can be found under it.
fn of(name: &str, wanted: &str) -> Result<()> {
    if collection(name) == Some(wanted) {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "name: {name:?} is none of {wanted}"
    )))
}

async fn local_device(bridge: &Bridge, name: &str) -> Result<LocalDevice> {
    let mut device: LocalDevice = bridge.get(name)?;
    device.device = bridge.look(name, false).await?.device;
    Ok(device)
}

#[tonic::async_trait]
impl Card for Services {
    async fn create_source(&self, request: Request<CreateSourceRequest>) -> Answer<Source> {
        let name = Bridge::name::<Source>(None, &request.get_ref().source_id)?;
        self.change(
            "CreateSource",
            name.clone(),
            request,
            |bridge, request| async move {
                let wish = Source {
                    source: request.source,
                    read_only: request.read_only,
                    uuid: request.uuid,
                    ..Source::default()
                };
                match bridge.create_seen(wish, name.clone()).await? {
                    (_, Some(look)) => bridge.described(&name, Ok(look)),
                    (_, None) => bridge.source(&name).await,
                }
            },
        )
        .await
    }

    async fn delete_source(
        &self,
        request: Request<DeleteSourceRequest>,
    ) -> Answer<DeleteSourceResponse> {
        let name = request.get_ref().name.clone();
        of(&name, "sources")?;
        self.change(
            "DeleteSource",
            name,
            request,
            |bridge, request| async move {
                bridge.delete(&request.name, true, false).await?;
                Ok(DeleteSourceResponse {})
            },
        )
        .await
    }

    async fn get_source(&self, request: Request<GetSourceRequest>) -> Answer<Source> {
        let name = request.get_ref().name.clone();
        self.read("GetSource", name, request, |bridge, request| async move {
            bridge.source(&request.name).await
        })
        .await
    }

    async fn list_sources(
        &self,
        request: Request<ListSourcesRequest>,
    ) -> Answer<ListSourcesResponse> {
        self.read(
            "ListSources",
            String::new(),
            request,
            |bridge, request| async move {
                let page =
                    bridge.list::<Source>(None, request.page_size.into(), &request.page_token)?;
                let sources = page.items.iter().map(|source| bridge.source(&source.name));
                let sources = futures::future::join_all(sources).await;
                Ok(ListSourcesResponse {
                    // One that has just gone is left out.
                    sources: sources.into_iter().flatten().collect(),
                    next_page_token: page.next,
                })
            },
        )
        .await
    }

    async fn create_local_device(
        &self,
        request: Request<CreateLocalDeviceRequest>,
    ) -> Answer<LocalDevice> {
        let name = Bridge::name::<LocalDevice>(None, &request.get_ref().local_device_id)?;
        self.change(
            "CreateLocalDevice",
            name.clone(),
            request,
            |bridge, request| async move {
                let wish = LocalDevice {
                    volume_name_ref: request.volume_name_ref,
                    exposure: request.exposure,
                    read_only: request.read_only,
                    serial: request.serial,
                    ..LocalDevice::default()
                };
                let (mut made, look) = bridge.create_seen(wish, name.clone()).await?;
                match look.and_then(|look| look.device) {
                    Some(device) => {
                        made.device = Some(device);
                        Ok(made)
                    }
                    None => local_device(&bridge, &name).await,
                }
            },
        )
        .await
    }

    async fn delete_local_device(
        &self,
        request: Request<DeleteLocalDeviceRequest>,
    ) -> Answer<DeleteLocalDeviceResponse> {
        let name = request.get_ref().name.clone();
        of(&name, "localDevices")?;
        self.change(
            "DeleteLocalDevice",
            name,
            request,
            |bridge, request| async move {
                bridge.delete(&request.name, true, request.force).await?;
                Ok(DeleteLocalDeviceResponse {})
            },
        )
        .await
    }

    async fn get_local_device(
        &self,
        request: Request<GetLocalDeviceRequest>,
    ) -> Answer<LocalDevice> {
        let name = request.get_ref().name.clone();
        self.read(
            "GetLocalDevice",
            name,
            request,
            |bridge, request| async move { local_device(&bridge, &request.name).await },
        )
        .await
    }

    async fn list_local_devices(
        &self,
        request: Request<ListLocalDevicesRequest>,
    ) -> Answer<ListLocalDevicesResponse> {
        self.read(
            "ListLocalDevices",
            String::new(),
            request,
            |bridge, request| async move {
                let page = bridge.list::<LocalDevice>(
                    None,
                    request.page_size.into(),
                    &request.page_token,
                )?;
                let devices = page
                    .items
                    .iter()
                    .map(|device| local_device(&bridge, &device.name));
                let devices = futures::future::join_all(devices).await;
                Ok(ListLocalDevicesResponse {
                    local_devices: devices.into_iter().flatten().collect(),
                    next_page_token: page.next,
                })
            },
        )
        .await
    }

    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Answer<GetDeviceResponse> {
        let name = request.get_ref().name.clone();
        self.read("GetDevice", name, request, |bridge, request| async move {
            let look = bridge.look(&request.name, request.users).await?;
            let device = look.device.ok_or_else(|| {
                let why = look.trouble.unwrap_or_else(|| "it is being made".into());
                Error::Precondition(format!("{} is not there at the host: {why}", request.name))
            })?;
            Ok(GetDeviceResponse {
                device: Some(device),
                in_use: look.in_use,
                epoch: Some(bridge.epoch()),
            })
        })
        .await
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Answer<ResizeResponse> {
        let name = request.get_ref().name.clone();
        self.change("Resize", name, request, |bridge, request| async move {
            let size_bytes = bridge.resize(&request.name, request.size_bytes).await?;
            Ok(ResizeResponse { size_bytes })
        })
        .await
    }

    async fn set_limits(&self, request: Request<SetLimitsRequest>) -> Answer<SetLimitsResponse> {
        let name = request.get_ref().name.clone();
        self.change("SetLimits", name, request, |bridge, request| async move {
            bridge
                .set_limits(&request.name, &request.limits.unwrap_or_default())
                .await?;
            Ok(SetLimitsResponse {})
        })
        .await
    }

    async fn inventory(&self, request: Request<InventoryRequest>) -> Answer<InventoryResponse> {
        self.read(
            "Inventory",
            String::new(),
            request,
            |bridge, _| async move { bridge.inventory().await },
        )
        .await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = std::result::Result<Event, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        // Before `started` is sent: nothing that happens after it is missed.
        let events = self.bridge.events.subscribe();
        let started = Event {
            epoch: Some(self.bridge.epoch()),
            kind: Some(event::Kind::Started(Started {})),
        };
        let further = futures::stream::unfold(Some(events), |events| async move {
            let mut events = events?;
            match events.recv().await {
                Ok(event) => Some((Ok(event), Some(events))),
                Err(RecvError::Lagged(missed)) => {
                    let why = format!(
                        "{missed} events were missed: watch again, and read what is needed"
                    );
                    Some((Err(Status::resource_exhausted(why)), None))
                }
                Err(RecvError::Closed) => None,
            }
        });
        let first = futures::stream::once(std::future::ready(Ok(started)));
        Ok(Response::new(Box::pin(futures::StreamExt::chain(
            first, further,
        ))))
    }
}
