//! A volume's daemon: its recipe, and the running process by its monitor.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::PoisonError;
use std::time::Duration;

use engine::{Daemon, Put, State};
use proto::volume::v1::source::Kind;
use qemu::commands::{
    BlockExportDel, BlockResize, BlockdevAdd, BlockdevDel, QueryBlockExports, QueryNamedBlockNodes,
    RemoveMode,
};
use qemu::{Qmp, Step};
use tokio::time::Instant;

use super::{Linux, exports, recipe, socket};
use crate::card::{Error, Medium, Result, Volume, error};

/// The owner of the card's daemons.
pub(super) const OWNER: &str = "card";
/// Clears a daemon's end of an export that its clients delay.
const WITHDRAW: Duration = Duration::from_secs(10);
/// A node that is opened to ask for the size, and closed again.
const PROBE: &str = "probe";

/// A daemon that serves what is wanted.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) daemon: Daemon,
    pub(crate) size: u64,
}

impl Linux {
    /// Makes the daemon serve the volume as wanted: exports that are missing are added, others of ours are taken away, limits hold.
    pub(crate) async fn serve(&self, volume: &Volume, deadline: Instant) -> Result<Served> {
        let daemon = self.put(volume, deadline).await?;
        let (id, ours) = recipe::daemon_of(volume);
        match &daemon.state {
            State::Running => {}
            State::Failed { why } => return Err(error::refused(why, why)),
            State::Starting | State::Stopped => {
                return Err(Error::Late(format!(
                    "daemon {id} is still being started; call again"
                )));
            }
        }
        self.seen(volume.uuid, &daemon);
        fail::fail_point!("card::recorded");
        let qmp = self.monitors.of(&daemon, deadline).await?;
        if ours && daemon.applied != Some(daemon.revision) {
            qmp.execute(&recipe::set_limits(&volume.limits), deadline)
                .await?;
            self.renew(&qmp, &daemon, deadline).await?;
        }
        let exporting = self.export(&qmp, volume, &daemon, deadline);
        let ((), size) = tokio::try_join!(exporting, size_of(&qmp, deadline))?;
        // Before anybody may ask for another size.
        for socket in exports::sockets(volume, &self.places)? {
            socket::greet(&socket).await?;
        }
        Ok(Served { daemon, size })
    }

    /// Takes the exposure out of the recipe. The back end may have taken its daemon away, and the exposure with it.
    pub(crate) async fn unwish(&self, without: &Volume, deadline: Instant) -> Result<()> {
        let (id, ours) = recipe::daemon_of(without);
        if !ours && self.engine.get(&id, deadline).await?.is_none() {
            return Ok(());
        }
        self.put(without, deadline).await.map(drop)
    }

    /// Makes the recipe the wanted one, and starts the daemon if it is ours and absent.
    pub(crate) async fn put(&self, volume: &Volume, deadline: Instant) -> Result<Daemon> {
        let (id, ours) = recipe::daemon_of(volume);
        if ours {
            let dir = self.engine.info(deadline).await?.daemons.join(&id);
            let recipe = recipe::own(volume, &self.places, &dir)?;
            let put = Put {
                id,
                owner: OWNER.into(),
                recipe,
            };
            return Ok(self.engine.put(&put, deadline).await?);
        }
        self.guests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), volume.uuid);
        // The back end changes its recipe, too, and takes it away: whoever was overtaken looks once more.
        loop {
            let daemon = self.engine.get(&id, deadline).await?.ok_or_else(|| {
                Error::NotFound(format!(
                    "source.engine: there is no daemon {id}; has the volume been exported?"
                ))
            })?;
            let joined = recipe::joined(&daemon.recipe, volume, &self.places, &daemon.dir)?;
            if joined == daemon.recipe {
                return Ok(daemon);
            }
            let put = Put {
                id: id.clone(),
                owner: daemon.owner,
                recipe: joined,
            };
            match self.engine.put_if(&put, daemon.revision, deadline).await {
                Err(engine::Error::Conflict(_)) => {}
                other => drop(other?),
            }
        }
    }

    async fn export(
        &self,
        qmp: &Qmp,
        volume: &Volume,
        daemon: &Daemon,
        deadline: Instant,
    ) -> Result<()> {
        let wanted = exports::exports(volume, &self.places, &daemon.dir)?;
        let there = qmp.execute(&QueryBlockExports {}, deadline).await?;
        let there: BTreeSet<_> = there.into_iter().map(|export| export.id).collect();
        for id in exports::ids(volume.uuid) {
            let is_wanted = wanted.iter().any(|step| step.object() == Some(&id));
            if !is_wanted && there.contains(&id) {
                end_export(qmp, &id, deadline).await?;
            }
        }
        let is_there = |step: &Step| step.object().map(|id| there.contains(id));
        if wanted.iter().any(|step| is_there(step) == Some(false)) {
            for step in wanted.iter().filter(|step| is_there(step) != Some(true)) {
                match qmp.run(step, deadline).await {
                    Err(error) if error.says("already running") => {}
                    other => drop(other?),
                }
                fail::fail_point!("card::exporting");
            }
        }
        Ok(())
    }

    /// Takes the export away from the running daemon, whose recipe has it no more.
    pub(crate) async fn withdraw(&self, volume: &Volume, deadline: Instant) -> Result<()> {
        let (id, _) = recipe::daemon_of(volume);
        let Some(daemon) = self.engine.get(&id, deadline).await? else {
            return Ok(());
        };
        if daemon.state != State::Running {
            return Ok(());
        }
        let qmp = self.monitors.of(&daemon, deadline).await?;
        self.export(&qmp, volume, &daemon, deadline).await
    }

    /// Lets the daemon take over the source's size, and returns it.
    pub(crate) async fn grow(
        &self,
        volume: &Volume,
        wanted: u64,
        deadline: Instant,
    ) -> Result<u64> {
        let served = self.serve(volume, deadline).await?;
        let qmp = self.monitors.of(&served.daemon, deadline).await?;
        let source = match &volume.medium {
            Medium::Source(source) => match &source.kind {
                Some(Kind::Nbd(nbd)) => {
                    let probe = recipe::nbd_client(PROBE, nbd, &self.places)?.read_only();
                    probe_size(&qmp, probe, deadline).await?
                }
                Some(Kind::File(file)) => file_size(file, served.size)?,
                Some(Kind::BlockDevice(device)) => device_size(&device.path)?,
                _ => served.size,
            },
            Medium::Null(_) => served.size,
        };
        if wanted > source {
            return Err(Error::Range(format!(
                "volume {}: its source has {source} bytes, {wanted} are wanted; grow the source first",
                volume.uuid
            )));
        }
        if wanted > 0 && wanted < served.size {
            return Err(Error::Range(format!(
                "volume {}: has {} bytes already, {wanted} are wanted; volumes do not shrink",
                volume.uuid, served.size
            )));
        }
        if source <= served.size {
            return Ok(served.size);
        }
        fail::fail_point!("card::resizing");
        let resize = BlockResize {
            node_name: recipe::TOP.into(),
            size: source,
        };
        loop {
            match qmp.execute(&resize, deadline).await {
                // A client sees the new size when it has connected again, which its next request makes it do.
                Err(error) if error.says("Cannot grow NBD nodes") => {
                    let again = Instant::now() + Duration::from_millis(50);
                    if again >= deadline {
                        return Err(Error::Away(format!(
                            "volume {}: the target has not cut the connection at its old size yet; call again",
                            volume.uuid
                        )));
                    }
                    self.poke(volume).await;
                    tokio::time::sleep_until(again).await;
                }
                other => {
                    other?;
                    return Ok(source);
                }
            }
        }
    }

    /// The size that a daemon gives to its clients, in bytes.
    pub(super) async fn size(&self, daemon: &Daemon, deadline: Instant) -> Result<u64> {
        let qmp = self.monitors.of(daemon, deadline).await?;
        size_of(&qmp, deadline).await
    }

    /// One read through the export.
    async fn poke(&self, volume: &Volume) {
        let file = self.places.file(volume.uuid);
        let read = tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::FileExt;
            let mut block = [0; 512];
            std::fs::File::open(file).and_then(|file| file.read_at(&mut block, 0))
        });
        if let Ok(Err(why)) = read.await {
            tracing::debug!(uuid = %volume.uuid, "read to wake the connection: {why}");
        }
    }
}

async fn size_of(qmp: &Qmp, deadline: Instant) -> Result<u64> {
    node_size(qmp, recipe::TOP, deadline).await
}

async fn node_size(qmp: &Qmp, node: &str, deadline: Instant) -> Result<u64> {
    let nodes = qmp
        .execute(&QueryNamedBlockNodes { flat: Some(true) }, deadline)
        .await?;
    let found = nodes.iter().find(|info| info.node_name == node);
    found.map(|info| info.image.virtual_size).ok_or_else(|| {
        Error::Precondition(format!(
            "{}: it has no node {node}; is it a volume's daemon?",
            qmp.socket().display()
        ))
    })
}

async fn probe_size(qmp: &Qmp, probe: qemu::commands::Node, deadline: Instant) -> Result<u64> {
    let close = BlockdevDel {
        node_name: PROBE.into(),
    };
    // A bridge that was killed may have left one.
    let _ = qmp.execute(&close, deadline).await;
    qmp.execute(&BlockdevAdd(probe), deadline).await?;
    let size = node_size(qmp, PROBE, deadline).await;
    qmp.execute(&close, deadline).await?;
    size
}

fn file_size(file: &proto::volume::v1::FileSource, now: u64) -> Result<u64> {
    use proto::volume::v1::file_source::Format;
    if file.format() != Format::Raw {
        // The daemon has it open: nobody else can have changed its size.
        return Ok(now);
    }
    let about = std::fs::metadata(&file.path)
        .map_err(|why| Error::NotFound(format!("{}: {why}", file.path)))?;
    Ok(about.len())
}

fn device_size(path: &str) -> Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut device =
        std::fs::File::open(path).map_err(|why| Error::NotFound(format!("{path}: {why}")))?;
    device
        .seek(SeekFrom::End(0))
        .map_err(|why| Error::Away(format!("{path}: {why}")))
}

async fn end_export(qmp: &Qmp, id: &str, deadline: Instant) -> Result<()> {
    let mut events = qmp.events();
    let delete = BlockExportDel {
        id: id.into(),
        mode: Some(RemoveMode::Hard),
    };
    match qmp.execute(&delete, deadline).await {
        Err(error) if error.says("is not found") => return Ok(()),
        Err(error) if error.says("already shutting down") => {}
        other => drop(other?),
    }
    let deadline = deadline.min(Instant::now() + WITHDRAW);
    let gone = events.wait_for(|event| event.is("BLOCK_EXPORT_DELETED", "id", id));
    if let Ok(Ok(_)) = tokio::time::timeout_at(deadline, gone).await {
        return Ok(());
    }
    Err(Error::Busy(format!(
        "export {id}: its users have not let go of it yet; call again"
    )))
}

/// A regular file to be mounted over, whatever state an earlier mount on it is in.
pub(crate) async fn make_mount_point(path: &Path) -> Result<()> {
    let (path, shown) = (path.to_owned(), path.display().to_string());
    let making = tokio::task::spawn_blocking(move || {
        let mut options = std::fs::OpenOptions::new();
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Err(why) if why.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map(drop),
        }
    });
    match making.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(why)) => Err(Error::Internal(format!(
            "{shown}: can't be made ({why}); see --exports-dir"
        ))),
        Err(why) => Err(Error::Internal(why.to_string())),
    }
}

pub(crate) async fn remove_file(path: &Path) -> Result<()> {
    match tokio::fs::remove_file(path).await {
        Err(why) if why.kind() == io::ErrorKind::ResourceBusy => Err(Error::Busy(format!(
            "{}: its export is still mounted; call again",
            path.display()
        ))),
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(Error::Away(format!(
            "{}: can't be removed ({why})",
            path.display()
        ))),
        _ => Ok(()),
    }
}
