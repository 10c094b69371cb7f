//! A vhost-user-blk export is not whole before it had a client: QEMU dies of a block_resize until then, whoever asks for it. So the engine
//! is that client, before anybody else is told that the daemon runs.

use std::path::Path;

use qemu::{Greeting, Step};

/// Is the first client of the step's export, if it is one of vhost-user. A failure is no reason not to serve.
pub(crate) async fn greet(step: &Step) {
    let Some(socket) = socket(step) else { return };
    match qemu::greet(socket).await {
        Ok(Greeting::Answered) => {}
        Ok(Greeting::Waiting) => {
            tracing::info!(socket = %socket.display(), "its guest was faster than the engine");
        }
        Err(why) => tracing::warn!(
            socket = %socket.display(),
            "can't be its first client ({why}): if the volume is resized before a guest came, the storage daemon is lost"
        ),
    }
}

fn socket(step: &Step) -> Option<&Path> {
    let arguments = &step.arguments;
    let ours = step.execute == "block-export-add" && arguments.get("type")? == "vhost-user-blk";
    let path = arguments.get("addr")?.get("path")?.as_str()?;
    ours.then(|| Path::new(path))
}
