//! A span reaches the collector that `--otlp-endpoint` names, also when the program ends right after it.
#![cfg(feature = "otlp")]

use clap::Parser;
use daemon::args::Common;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Config {
    #[command(flatten)]
    common: Common,
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_flushed_to_the_collector() {
    let collector = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    // HTTP/2 with prior knowledge; names lie uncompressed in the message. The stream is closed without an answer, as by
    // a collector that fails, which must not keep the program.
    let received = tokio::spawn(async move {
        let (mut stream, _) = collector.accept().await.unwrap();
        let mut bytes = Vec::new();
        let expected = ["service.name", "cni-node", "cni_verb", "a/b"];
        while !expected.iter().all(|text| contains(&bytes, text)) {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        bytes
    });
    let config = Config::parse_from(["p", "--otlp-endpoint", &endpoint]);
    let logging = daemon::logging::init("cni-node", &config.common).unwrap();
    tracing::info_span!("cni_verb", pod = "a/b").in_scope(|| tracing::info!("done"));
    tokio::task::spawn_blocking(move || drop(logging))
        .await
        .unwrap();
    let bytes = received.await.unwrap();
    assert!(bytes.starts_with(b"PRI * HTTP/2.0"));
}
