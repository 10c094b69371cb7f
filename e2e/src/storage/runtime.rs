//! Async calls from code that blocks, wherever it runs: in a test of tokio's, too.

use std::sync::mpsc;

use anyhow::{Context as _, Result};

/// A runtime of its own, on which gRPC channels live.
#[derive(Debug)]
pub(super) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    pub(super) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot make a runtime")?;
        Ok(Self(Some(runtime)))
    }

    fn inner(&self) -> &tokio::runtime::Runtime {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    /// Makes what needs a runtime to live on.
    pub(super) fn make<T>(&self, make: impl FnOnce() -> T) -> T {
        let _entered = self.inner().enter();
        make()
    }

    /// Blocks until `work` is done.
    pub(super) fn run<W>(&self, work: W) -> W::Output
    where
        W: Future + Send + 'static,
        W::Output: Send + 'static,
    {
        let (done, wait) = mpsc::channel();
        self.inner().spawn(async move {
            let _ = done.send(work.await);
        });
        wait.recv().expect("work that does not panic is done")
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A plain drop blocks, which an async test must not.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
