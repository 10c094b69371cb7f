//! Log lines on standard error and, where asked for, spans to a collector.

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::args::{Common, LogFormat};

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// Keeps the export of spans alive; dropping it flushes what is left.
#[must_use = "dropping it ends the export of spans"]
#[derive(Debug, Default)]
pub struct Logging {
    #[cfg(feature = "otlp")]
    provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

/// Installs the process's one subscriber. `program` is the service name in traces. Call it within a tokio runtime.
///
/// # Errors
///
/// When a subscriber is installed already, or the collector's address is not one.
pub fn init(program: &'static str, args: &Common) -> anyhow::Result<Logging> {
    let filter = || EnvFilter::try_new(&args.log).context("--log");
    let lines: Boxed = match args.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
            .with_filter(filter()?)
            .boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(stderr)
            .with_filter(filter()?)
            .boxed(),
    };
    let (layers, logging) = with_export(program, args, vec![lines])?;
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .context("a subscriber for log lines is installed already")?;
    Ok(logging)
}

#[cfg(not(feature = "otlp"))]
fn with_export(
    _program: &'static str,
    _args: &Common,
    layers: Vec<Boxed>,
) -> anyhow::Result<(Vec<Boxed>, Logging)> {
    Ok((layers, Logging::default()))
}

#[cfg(feature = "otlp")]
fn with_export(
    program: &'static str,
    args: &Common,
    mut layers: Vec<Boxed>,
) -> anyhow::Result<(Vec<Boxed>, Logging)> {
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_otlp::WithExportConfig as _;

    let Some(endpoint) = &args.otlp_endpoint else {
        return Ok((layers, Logging::default()));
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("--otlp-endpoint {endpoint}"))?;
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(
            opentelemetry_sdk::Resource::builder()
                .with_service_name(program)
                .build(),
        )
        .build();
    layers.push(
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(program))
            // The exporter's own connection must not produce spans to export.
            .with_filter(EnvFilter::try_new(
                "info,h2=off,hyper=off,tonic=off,tower=off",
            )?)
            .boxed(),
    );
    Ok((
        layers,
        Logging {
            provider: Some(provider),
        },
    ))
}

#[cfg(feature = "otlp")]
impl Drop for Logging {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // A collector that is gone must not turn a clean end into a failure.
            let _ = provider.shutdown();
        }
    }
}
