//! A card's service with nothing behind it: the real protocol over a real socket, and orders that a real card keeps only by chance.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::Stream;
use proto::card::v1::card_server::{Card, CardServer};
use proto::card::v1::event::Kind;
use proto::card::v1::*;
use proto::opi::storage::v1::frontend_nvme_service_server::FrontendNvmeServiceServer;
use proto::volume::v1::{
    Device, Epoch, ExposureKind, FunctionCount, FunctionId, Limits, SourceKind, device,
};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::StreamExt;
use tonic::{Request, Response, Status};

pub(crate) const SIZE: u64 = 1 << 20;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fake(pub(crate) Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) sources: BTreeMap<String, Source>,
    pub(crate) devices: BTreeMap<String, LocalDevice>,
    pub(crate) nvme: BTreeMap<String, super::card_nvme::Object>,
    pub(crate) limits: BTreeMap<String, Limits>,
    pub(crate) in_use: bool,
    pub(crate) engine: u32,
    /// Of the target.
    pub(crate) size: u64,
    pub(crate) functions: u32,
    /// Every changing call that came.
    pub(crate) log: Vec<String>,
    hold: HashMap<&'static str, Arc<Semaphore>>,
    refuse: HashMap<&'static str, Status>,
    events: broadcast::Sender<Event>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            sources: BTreeMap::new(),
            devices: BTreeMap::new(),
            nvme: BTreeMap::new(),
            limits: BTreeMap::new(),
            in_use: false,
            engine: 1,
            size: SIZE,
            functions: 2,
            log: Vec::new(),
            hold: HashMap::new(),
            refuse: HashMap::new(),
            events: broadcast::Sender::new(64),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Serves until the runtime is shut down: with it go all connections.
    pub(crate) async fn serve(&self, socket: &Path) -> Runtime {
        let card = CardServer::new(self.clone());
        let nvme = FrontendNvmeServiceServer::new(self.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (bound, wait) = tokio::sync::oneshot::channel();
        let socket = socket.to_owned();
        runtime.spawn(async move {
            let listener = proto::uds::bind(&socket).await.unwrap();
            bound.send(()).unwrap();
            let mut server = tonic::transport::Server::builder();
            let server = server.add_service(card).add_service(nvme);
            let incoming = proto::uds::incoming(listener);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        wait.await.unwrap();
        runtime
    }

    /// From now on calls of `method` wait for permits.
    pub(crate) fn hold(&self, method: &'static str) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        self.state().hold.insert(method, Arc::clone(&permits));
        permits
    }

    pub(crate) fn refuse(&self, method: &'static str, status: Status) {
        self.state().refuse.insert(method, status);
    }

    pub(crate) fn allow(&self, method: &'static str) {
        self.state().refuse.remove(method);
    }

    pub(crate) fn tell(&self, kind: Kind) {
        let state = self.state();
        let event = Event {
            epoch: Some(state.epoch()),
            kind: Some(kind),
        };
        let _ = state.events.send(event);
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.state()
            .log
            .iter()
            .filter(|call| *call == method)
            .count()
    }

    pub(crate) async fn gate(&self, method: &'static str) -> Result<(), Status> {
        let hold = {
            let mut state = self.state();
            state.log.push(method.to_owned());
            state.hold.get(method).cloned()
        };
        if let Some(hold) = hold {
            hold.acquire().await.unwrap().forget();
        }
        match self.state().refuse.get(method) {
            Some(status) => Err(status.clone()),
            None => Ok(()),
        }
    }
}

impl State {
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch {
            boot_id: "boot".to_owned(),
            engine: self.engine.to_string(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.sources.is_empty() && self.devices.is_empty() && self.nvme.is_empty()
    }

    pub(crate) fn device_of(&self, source: &str, kind: ExposureKind) -> Device {
        let source = &self.sources[source];
        Device {
            kind: kind.into(),
            address: Some(device::Address::Path(format!("/dev/loop{}", self.engine))),
            uuid: source.uuid.clone(),
            size_bytes: source.size_bytes,
            block_size: 512,
            ..Device::default()
        }
    }
}

fn missing<T>(name: &str) -> Result<T, Status> {
    Err(Status::not_found(format!("{name} does not exist")))
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
}

#[tonic::async_trait]
impl Card for Fake {
    async fn create_source(&self, request: Request<CreateSourceRequest>) -> Answer<Source> {
        self.gate("CreateSource").await?;
        let request = request.into_inner();
        let mut state = self.state();
        let name = format!("sources/{}", request.source_id);
        let source = Source {
            name: name.clone(),
            source: request.source,
            read_only: request.read_only,
            state: SourceState::Connected.into(),
            size_bytes: state.size,
            block_size: 512,
            uuid: request.uuid,
            ..Source::default()
        };
        let source = state.sources.entry(name).or_insert(source);
        answer(source.clone())
    }

    async fn delete_source(
        &self,
        request: Request<DeleteSourceRequest>,
    ) -> Answer<DeleteSourceResponse> {
        self.gate("DeleteSource").await?;
        let name = request.into_inner().name;
        let mut state = self.state();
        assert!(state.devices.values().all(|d| d.volume_name_ref != name));
        state.sources.remove(&name);
        state.limits.remove(&name);
        answer(DeleteSourceResponse {})
    }

    async fn get_source(&self, request: Request<GetSourceRequest>) -> Answer<Source> {
        let name = request.into_inner().name;
        let found = self.state().sources.get(&name).cloned();
        found.map_or_else(|| missing(&name), answer)
    }

    async fn list_sources(&self, _: Request<ListSourcesRequest>) -> Answer<ListSourcesResponse> {
        answer(ListSourcesResponse {
            sources: self.state().sources.values().cloned().collect(),
            ..ListSourcesResponse::default()
        })
    }

    async fn create_local_device(
        &self,
        request: Request<CreateLocalDeviceRequest>,
    ) -> Answer<LocalDevice> {
        self.gate("CreateLocalDevice").await?;
        let request = request.into_inner();
        let mut state = self.state();
        if !state.sources.contains_key(&request.volume_name_ref) {
            return missing(&request.volume_name_ref);
        }
        let name = format!("localDevices/{}", request.local_device_id);
        let device = LocalDevice {
            name: name.clone(),
            volume_name_ref: request.volume_name_ref,
            exposure: request.exposure,
            read_only: request.read_only,
            serial: request.serial,
            device: None,
        };
        answer(state.devices.entry(name).or_insert(device).clone())
    }

    async fn delete_local_device(
        &self,
        request: Request<DeleteLocalDeviceRequest>,
    ) -> Answer<DeleteLocalDeviceResponse> {
        self.gate("DeleteLocalDevice").await?;
        let request = request.into_inner();
        let mut state = self.state();
        if state.in_use && !request.force && state.devices.contains_key(&request.name) {
            return Err(Status::failed_precondition("somebody has it open"));
        }
        state.devices.remove(&request.name);
        answer(DeleteLocalDeviceResponse {})
    }

    async fn get_local_device(
        &self,
        request: Request<GetLocalDeviceRequest>,
    ) -> Answer<LocalDevice> {
        let name = request.into_inner().name;
        let found = self.state().devices.get(&name).cloned();
        found.map_or_else(|| missing(&name), answer)
    }

    async fn list_local_devices(
        &self,
        _: Request<ListLocalDevicesRequest>,
    ) -> Answer<ListLocalDevicesResponse> {
        answer(ListLocalDevicesResponse {
            local_devices: self.state().devices.values().cloned().collect(),
            ..ListLocalDevicesResponse::default()
        })
    }

    async fn get_device(&self, request: Request<GetDeviceRequest>) -> Answer<GetDeviceResponse> {
        let name = request.into_inner().name;
        let state = self.state();
        let device = if let Some(device) = state.devices.get(&name) {
            state.device_of(&device.volume_name_ref, ExposureKind::LocalBlockDevice)
        } else {
            state.nvme_device(&name)?
        };
        answer(GetDeviceResponse {
            device: Some(device),
            in_use: state.in_use,
            epoch: Some(state.epoch()),
        })
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Answer<ResizeResponse> {
        self.gate("Resize").await?;
        let request = request.into_inner();
        let mut state = self.state();
        let size = state.size;
        if request.size_bytes > size {
            return Err(Status::out_of_range(format!("the source has {size} bytes")));
        }
        let Some(source) = state.sources.get_mut(&request.name) else {
            return missing(&request.name);
        };
        source.size_bytes = size;
        answer(ResizeResponse { size_bytes: size })
    }

    async fn set_limits(&self, request: Request<SetLimitsRequest>) -> Answer<SetLimitsResponse> {
        self.gate("SetLimits").await?;
        let request = request.into_inner();
        let limits = request.limits.unwrap_or_default();
        self.state().limits.insert(request.name, limits);
        answer(SetLimitsResponse {})
    }

    async fn inventory(&self, _: Request<InventoryRequest>) -> Answer<InventoryResponse> {
        let state = self.state();
        let functions = (0..state.functions).map(|physical| Function {
            id: Some(FunctionId {
                physical,
                ..FunctionId::default()
            }),
            kinds: vec![ExposureKind::NvmeFunction.into()],
            used_by: state.user_of(physical),
            ..Function::default()
        });
        answer(InventoryResponse {
            card: "fake".to_owned(),
            counts: vec![FunctionCount {
                kind: ExposureKind::LocalBlockDevice.into(),
                ..FunctionCount::default()
            }],
            sources: vec![SourceKind::BlockDevice.into()],
            functions: functions.collect(),
            online_resize: true,
            survives_engine_restart: false,
            epoch: Some(state.epoch()),
        })
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<Event, Status>> + Send>>;

    async fn watch(&self, _: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let state = self.state();
        let started = Event {
            epoch: Some(state.epoch()),
            kind: Some(Kind::Started(Started {})),
        };
        let later = tokio_stream::wrappers::BroadcastStream::new(state.events.subscribe());
        let later = later.map(|event| event.map_err(|_| Status::resource_exhausted("slow")));
        let stream: Self::WatchStream = Box::pin(tokio_stream::once(Ok(started)).chain(later));
        answer(stream)
    }
}
