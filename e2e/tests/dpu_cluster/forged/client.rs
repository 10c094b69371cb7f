//! The host's end of a channel, made by hand: it says what no host of ours would say.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::channel::mpsc;
use prost::Message as _;
use proto::dpu::v1::attachment::Subject;
use proto::dpu::v1::channel_client::ChannelClient;
use proto::dpu::v1::session_request::Message as FromHost;
use proto::dpu::v1::session_response::Message as FromDpu;
use proto::dpu::v1::{
    AttachRequest, Attachment, AttachmentKey, DetachRequest, Epoch, Failure, Function, Heartbeat,
    Hello, PodInterface, Reason, SessionRequest, SessionResponse,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

use super::papers::Papers;

/// A DPU that waits for a row waits for this long; well below the silence that ends a session.
const DEADLINE: Duration = Duration::from_millis(1500);
/// TCP and TLS take no longer.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection to a DPU; a clone is the same one.
#[derive(Clone)]
pub(super) struct Client(ChannelClient<Channel>);

/// A session; lives as long as this does.
pub(super) struct Session {
    pub(super) id: String,
    to: mpsc::UnboundedSender<SessionRequest>,
    _from: Streaming<SessionResponse>,
}

/// How somebody was sent away.
#[derive(Debug)]
pub(super) struct Refused {
    /// Of gRPC.
    pub(super) code: Code,
    /// Of the protocol; TLS has none.
    pub(super) failure: Option<Failure>,
    /// All that is known of it.
    pub(super) text: String,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.details();
        let failure = (!details.is_empty()).then(|| Failure::decode(details).ok());
        Self {
            code: status.code(),
            failure: failure.flatten(),
            text: format!("{status:?}"),
        }
    }
}

impl Refused {
    /// It is this refusal, and tells object and remedy.
    pub(super) fn is(&self, code: Code, reason: Reason, cni: u32) -> Result<()> {
        let failure = self.failure.as_ref();
        let failure = failure.with_context(|| format!("no Failure: {}", self.text))?;
        ensure!(
            self.code == code && failure.reason() == reason && failure.code == cni,
            "it is {:?} {failure:?}, not {code:?}, {reason:?}, code {cni}",
            self.code
        );
        ensure!(
            !failure.cause.is_empty() && !failure.remedy.is_empty(),
            "{failure:?} says nothing"
        );
        Ok(())
    }
}

impl Session {
    /// Says that the host lives.
    pub(super) fn beat(&self) {
        let beat = FromHost::Heartbeat(Heartbeat::default());
        // After the end nobody takes it.
        let _ = self.to.unbounded_send(SessionRequest {
            message: Some(beat),
        });
    }
}

impl Client {
    /// Connects to `dpu` at `address` (`ip:port`) with these papers. The DPU's verdict on them comes with the first answer.
    pub(super) fn new(address: &str, dpu: &str, papers: &Papers) -> Result<Self> {
        let mut tls = ClientTlsConfig::new()
            .domain_name(dpu)
            .ca_certificate(Certificate::from_pem(&papers.ca));
        if let Some((certificate, key)) = &papers.own {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?
            .connect_timeout(CONNECT)
            .tls_config(tls)?;
        Ok(Self(ChannelClient::new(endpoint.connect_lazy())))
    }

    /// Hello, of a boot and a process that never were.
    pub(super) async fn hello(&mut self) -> Result<Session, Refused> {
        let (to, messages) = mpsc::unbounded();
        let hello = Hello {
            version: 1,
            epoch: Some(Epoch {
                boot_id: "forged".to_owned(),
                process: 1,
            }),
            release: "forged".to_owned(),
            ..Hello::default()
        };
        // Its other end is in our hands.
        let _ = to.unbounded_send(SessionRequest {
            message: Some(FromHost::Hello(hello)),
        });
        let mut from = self.0.session(messages).await?.into_inner();
        loop {
            let said = from.message().await?;
            let said = said.ok_or_else(|| Status::unknown("it ended without a word"))?;
            if let Some(FromDpu::Welcome(welcome)) = said.message {
                return Ok(Session {
                    id: welcome.session,
                    to,
                    _from: from,
                });
            }
        }
    }

    /// Attach, to its end.
    pub(super) async fn attach(
        &mut self,
        session: &str,
        attachment: Attachment,
    ) -> Result<(), Refused> {
        let mut request = Request::new(AttachRequest {
            session: session.to_owned(),
            attachment: Some(attachment),
        });
        request.set_timeout(DEADLINE);
        let mut progress = self.0.attach(request).await?.into_inner();
        while progress.message().await?.is_some() {}
        Ok(())
    }

    /// Detach.
    pub(super) async fn detach(
        &mut self,
        session: &str,
        key: AttachmentKey,
        attempt: u64,
    ) -> Result<(), Refused> {
        let mut request = Request::new(DetachRequest {
            session: session.to_owned(),
            key: Some(key),
            attempt,
        });
        request.set_timeout(DEADLINE);
        self.0.detach(request).await?;
        Ok(())
    }
}

/// An interface `eth0` of a pod.
pub(super) fn attachment(
    sandbox: &str,
    pod: (&str, &str, &str),
    function: u32,
    attempt: u64,
) -> Attachment {
    let (namespace, name, uid) = pod;
    Attachment {
        key: Some(key(sandbox)),
        attempt,
        function: Some(Function {
            physical: 0,
            r#virtual: Some(function),
        }),
        subject: Some(Subject::Pod(PodInterface {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            subnet: String::new(),
        })),
    }
}

/// Its key.
pub(super) fn key(sandbox: &str) -> AttachmentKey {
    AttachmentKey {
        sandbox: sandbox.to_owned(),
        ifname: "eth0".to_owned(),
    }
}
