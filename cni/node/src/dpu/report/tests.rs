use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};

use super::*;

fn ours() -> Ours {
    Ours {
        name: "p1".into(),
        uid: "uid-1".into(),
    }
}

fn host(alive: bool) -> HostState {
    HostState {
        host: Some("h1".into()),
        alive,
        since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        why: if alive {
            String::new()
        } else {
            "host h1 was not heard for 2.4 s".into()
        },
        epoch: Some(channel::proto::Epoch {
            boot_id: "b1".into(),
            process: 7,
        }),
        ..HostState::default()
    }
}

#[test]
fn the_status_holds_what_is_ours_alone() {
    let said = said(&ours(), &host(false), Some((32, 30)), "b2/9".into());
    let now = Timestamp::from_second(1_700_000_100).unwrap();
    let text = serde_json::to_string_pretty(&document(&said, now)).unwrap();
    insta::assert_snapshot!(text, @r#"
    {
      "apiVersion": "iaas.yusur.io/v1",
      "kind": "Dpu",
      "metadata": {
        "name": "p1"
      },
      "status": {
        "conditions": [
          {
            "lastTransitionTime": "2023-11-14T22:13:20Z",
            "message": "host h1 was not heard for 2.4 s",
            "reason": "NoSession",
            "status": "False",
            "type": "HostSeen"
          }
        ],
        "dpuEpoch": "b2/9",
        "functions": {
          "free": 30,
          "total": 32
        },
        "hostEpoch": "b1/7",
        "lastHeartbeat": "2023-11-14T22:15:00Z"
      }
    }
    "#);
    let status: api::dpu::DpuStatus =
        serde_json::from_value(document(&said, now)["status"].clone()).unwrap();
    assert_eq!(status.conditions[0].type_, HOST_SEEN);
    assert!(said.is_old(&host(true)) && !said.is_old(&host(false)));
}

#[test]
fn a_refusal_becomes_an_event_of_the_dpu() {
    let refusal = Refusal {
        peer: "198.18.0.9:1".into(),
        reason: "old_attempt",
        sentence: "é".repeat(900),
    };
    let now = Timestamp::from_second(1_700_000_100).unwrap();
    let event = event("d1", &ours(), &refusal, now);
    assert_eq!(event["reason"], "RefusedOldAttempt");
    assert_eq!(event["reportingInstance"], "d1");
    assert!(event["note"].as_str().unwrap().len() <= 1000);
    let event: k8s_openapi::api::events::v1::Event = serde_json::from_value(event).unwrap();
    assert_eq!(event.regarding.unwrap().uid.as_deref(), Some("uid-1"));
}

type Seen = Arc<Mutex<Vec<(String, String, Value)>>>;

/// An API server that has one Dpu, and notes what is written.
async fn api_server(seen: Seen) -> Client {
    async fn answer(State(seen): State<Seen>, request: Request) -> Response {
        let (method, path) = (
            request.method().to_string(),
            request.uri().path().to_owned(),
        );
        let body = axum::body::to_bytes(request.into_body(), 1 << 20)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let spec =
            json!({"dpuNode": "d1", "hostNode": "h1", "address": "198.18.0.12", "port": 9478});
        let dpu = json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "metadata": {"name": "p1", "uid": "uid-1"}, "spec": spec});
        let document = match (method.as_str(), path.as_str()) {
            ("GET", _) => {
                json!({"apiVersion": "iaas.yusur.io/v1", "kind": "DpuList", "metadata": {}, "items": [dpu]})
            }
            ("POST", _) => body.clone(),
            _ => dpu,
        };
        if method != "GET" {
            seen.lock().unwrap().push((method, path, body));
        }
        ([("content-type", "application/json")], document.to_string()).into_response()
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(seen);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let config = kube::Config::new(format!("http://{address}").parse().unwrap());
    Client::try_from(config).unwrap()
}

#[test]
fn kubernetes_hears_of_the_host_at_once_and_of_refusals() {
    use crate::gateway::tests::sandbox::{sandboxed, soon};
    sandboxed(
        "dpu::report::tests::kubernetes_hears_of_the_host_at_once_and_of_refusals",
        async {
            let world = crate::tests::world::World::start().await;
            let dpu = crate::dpu::tests::card::Dpu::of(world.node().await);
            let seen = Seen::default();
            let client = api_server(Arc::clone(&seen)).await;
            let pairing = r#"{"dpu":"d1","host":"h1","address":"198.18.0.12","port":9478,"controller":null,"uid":"uid-1"}"#;
            let (paired, pairing) = watch::channel(Some(pairing.parse().unwrap()));
            let (state, host_state) = watch::channel(host(false));
            let (refusals, refused) = broadcast::channel(8);
            let readiness = daemon::readiness::Readiness::default();
            let reporter = Reporter {
                node_name: "d1".into(),
                epoch: "b2/9".into(),
                pairing,
                host: host_state,
                ports: dpu.ports.clone(),
                check: readiness.check("dpu-status", "not yet"),
                client: Some(client),
            };
            let stop = CancellationToken::new();
            let running = tokio::spawn(run(reporter, refused, stop.clone()));
            let count = |method: &str| {
                let seen = seen.lock().unwrap();
                seen.iter().filter(|(m, ..)| m == method).count()
            };
            soon("the first status", || {
                count("PATCH") == 1 && readiness.is_ready()
            })
            .await;
            state.send_replace(host(true));
            soon("the second, at once", || count("PATCH") == 2).await;
            // What is no news waits for the heartbeat.
            state.send_modify(|state| state.sessions += 1);
            refusals
                .send(Refusal {
                    peer: "h2".into(),
                    reason: "no_port",
                    sentence: "no".into(),
                })
                .unwrap();
            soon("the Event", || count("POST") == 1).await;
            assert_eq!(count("PATCH"), 2);
            let statuses: Vec<Value> = {
                let seen = seen.lock().unwrap();
                let patches = seen.iter().filter(|(method, path, _)| {
                    method == "PATCH" && path.ends_with("/dpus/p1/status")
                });
                patches
                    .map(|(.., body)| body["status"]["conditions"][0]["status"].clone())
                    .collect()
            };
            assert_eq!(statuses, ["False", "True"]);
            // No Dpu names the node any more.
            paired.send_replace(None);
            soon("the complaint", || !readiness.is_ready()).await;
            stop.cancel();
            running.await.unwrap();
        },
    );
}
