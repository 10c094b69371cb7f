//! Making a file system, on a disk that is new by csi-controller's word and empty by its own.

use std::time::Instant;

use fail::fail_point;
use uuid::Uuid;

use super::super::blocking::blocking;
use super::super::child;
use super::super::device::Device;
use super::super::error::Error;
use super::super::request::MkfsOptions;
use super::{Kind, Tickets, blank};

/// Proof that a disk may be formatted; only [`Fresh::prove`] makes one.
#[derive(Debug)]
pub(crate) struct Fresh {
    /// An mkfs of ours was cut off on it.
    again: bool,
}

impl Fresh {
    /// Proves that the disk, on which blkid recognized nothing (or an mkfs of ours was cut off), may be formatted.
    /// `fresh` is csi-controller's word that nobody ever formatted the volume.
    pub(crate) async fn prove(
        device: &std::sync::Arc<Device>,
        volume: Uuid,
        fresh: bool,
        tickets: &Tickets,
    ) -> Result<Self, Error> {
        let path = device.path();
        let path = path.display();
        if !fresh {
            return Err(Error::Refused(format!(
                "{path}: no file system is recognized on volume {volume}, which is not new: it is not \
                 formatted, since something that was written to it may be lost or damaged. Look at it by hand \
                 (`blkid -p {path}`); a volume that was used raw stays with volumeMode: Block"
            )));
        }
        if !device.found.proven {
            return Err(Error::Refused(format!(
                "{path}: volume {volume} is new and would be formatted, but the disk has no serial number of \
                 its own, so that only its address says that it is this volume; use volumeMode: Block, or a \
                 kind of disk that has one (nvme, loop)"
            )));
        }
        let (disk, all) = (std::sync::Arc::clone(device), tickets.clone());
        blocking("looking for traces on a disk", move || {
            prove(&disk, volume, &all)
        })
        .await
    }
}

fn prove(device: &Device, volume: Uuid, tickets: &Tickets) -> Result<Fresh, Error> {
    let path = device.path();
    let path = path.display();
    let unread = |error: std::io::Error| {
        Error::Unavailable(format!(
            "{path}: can't be read ({error}), so nobody knows whether it is empty: not formatted; repeat \
             when the volume is well"
        ))
    };
    // Whoever has it, has something on it. Held until the look is over; mkfs itself then takes it in the same way.
    let Some(_claim) = device.claim().map_err(unread)? else {
        return Err(Error::Unavailable(format!(
            "{path}: in use by another program (mkfs of an earlier call, a mount, device mapper): not \
             formatted; repeat"
        )));
    };
    if tickets.has(volume, device) {
        return Ok(Fresh { again: true });
    }
    if let Some(at) = blank::first_trace(device).map_err(unread)? {
        return Err(Error::Refused(format!(
            "{path}: volume {volume} is said to be new, but byte {at} of it is not zero: not formatted. If \
             nothing on it is needed, delete the volume, or wipe it by hand (`blkdiscard -z {path}` or \
             `wipefs -a` and zeros in its first and last MiB)"
        )));
    }
    tickets.write(volume, device)?;
    Ok(Fresh { again: false })
}

/// Makes a file system.
pub(crate) async fn format(
    device: &Device,
    volume: Uuid,
    kind: Kind,
    options: &MkfsOptions,
    fresh: Fresh,
    tickets: &Tickets,
) -> Result<(), Error> {
    fail_point!("stage::ticketed");
    let began = Instant::now();
    let chosen = options.arguments(kind)?;
    let (program, mut args) = match kind {
        // All space is the user's; a fresh volume has nothing to discard.
        Kind::Ext4 => ("mkfs.ext4", vec!["-q"]),
        Kind::Xfs => ("mkfs.xfs", vec!["-q", "-K"]),
    };
    let given = |option: &str| chosen.iter().any(|word| word == option);
    if kind == Kind::Ext4 && !given("-m") {
        args.extend(["-m", "0"]);
    }
    if kind == Kind::Ext4 && !given("-E") {
        args.extend(["-E", "nodiscard"]);
    }
    // Without it mkfs refuses, as its own last look, a disk with something on it.
    if fresh.again {
        args.push(match kind {
            Kind::Ext4 => "-F",
            Kind::Xfs => "-f",
        });
    }
    args.extend(chosen.iter().map(String::as_str));
    let pinned = device.pinned();
    args.push(&pinned);
    let ended = child::run_alone(program, &args).await?;
    let path = device.path();
    if ended.code != Some(0) {
        // The note stays: the next call may overwrite what this one left.
        return Err(Error::Unavailable(format!(
            "{program} failed on {}, volume {volume} ({}); it is tried again at the next call. A volume that is \
             too small, or mkfsOptions that do not fit, must be made anew",
            path.display(),
            ended.verdict()
        )));
    }
    fail_point!("stage::formatted");
    tickets.remove(volume)?;
    fail_point!("stage::unticketed");
    let took = began.elapsed();
    tracing::info!(device = %path.display(), %kind, again = fresh.again, ?took, "formatted");
    Ok(())
}
