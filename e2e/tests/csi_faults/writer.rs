//! A writer of numbered blocks in a process of its own, and whether they are where they were written.
//!
//! Block `k` goes to place `k mod places`, past all caches, and is counted in the ledger only when the disk has it. So each place
//! has to hold the last block that was counted for it; the one place that was being written may hold anything.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use e2e::until;

use crate::world::{LIMIT, World};

const BLOCK: usize = 16 << 10;
const O_DIRECT: i32 = 0o40000;
const O_DSYNC: i32 = 0o10000;

/// What this program is told to do as another process.
pub(crate) struct Order {
    writes: bool,
    path: PathBuf,
    ledger: PathBuf,
    places: u64,
    seed: u64,
}

#[repr(align(4096))]
struct Block([u8; BLOCK]);

impl Order {
    /// `write|check PATH LEDGER PLACES SEED`.
    pub(crate) fn parse(arguments: &[String]) -> Option<Self> {
        let [what, path, ledger, places, seed] = arguments else {
            return None;
        };
        let writes = match what.as_str() {
            "write" => true,
            "check" => false,
            _ => return None,
        };
        Some(Self {
            writes,
            path: path.into(),
            ledger: ledger.into(),
            places: places.parse().ok()?,
            seed: seed.parse().ok()?,
        })
    }

    pub(crate) fn carry_out(&self) -> ExitCode {
        let done = if self.writes {
            self.write()
        } else {
            self.check()
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{why:#}");
                ExitCode::FAILURE
            }
        }
    }

    fn block(&self, number: u64) -> Box<Block> {
        let mut block = Box::new(Block([0; BLOCK]));
        let mut state = self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for word in block.0.chunks_exact_mut(8) {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            word.copy_from_slice(&(z ^ (z >> 31)).to_le_bytes());
        }
        block
    }

    /// Until it is killed, or an error.
    fn write(&self) -> Result<()> {
        let mut options = File::options();
        let options = options.write(true).custom_flags(O_DIRECT | O_DSYNC);
        let file = match options.open(&self.path) {
            // A disk is never made.
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                let file = options.create_new(true).open(&self.path)?;
                File::open(self.path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
                file
            }
            other => other?,
        };
        let ledger = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.ledger)?;
        for number in 0.. {
            let at = number % self.places * BLOCK as u64;
            file.write_all_at(&self.block(number).0, at)
                .with_context(|| format!("block {number}"))?;
            ledger.write_all_at(&(number + 1).to_le_bytes(), 0)?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let counted = count(&self.ledger)?;
        let file = File::options()
            .read(true)
            .custom_flags(O_DIRECT)
            .open(&self.path)?;
        let under_way = counted % self.places;
        for place in (0..self.places.min(counted)).filter(|place| *place != under_way) {
            let last = (counted - 1 - place) / self.places * self.places + place;
            let mut there = Box::new(Block([0; BLOCK]));
            file.read_exact_at(&mut there.0, place * BLOCK as u64)
                .with_context(|| format!("place {place}"))?;
            ensure!(
                there.0 == self.block(last).0,
                "place {place} does not hold block {last} of {counted}"
            );
        }
        Ok(())
    }
}

/// Blocks that the disk has.
fn count(ledger: &Path) -> Result<u64> {
    let mut bytes = Vec::new();
    match File::open(ledger) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(why) => return Err(why.into()),
    };
    Ok(bytes.try_into().map_or(0, u64::from_le_bytes))
}

/// A writer that runs, or has run.
pub(crate) struct Writer {
    child: Child,
    host: usize,
    ledger: PathBuf,
    places: u64,
    seed: u64,
}

impl Writer {
    /// Starts to write what a pod of `host` has at `path`: a disk, or a file that is made.
    pub(crate) fn start(world: &World, host: usize, path: &Path, places: u64) -> Result<Self> {
        let mut seed = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        let seed = u64::from_le_bytes(seed);
        let ledger = world.chain.dir().join(format!("ledger-{seed:x}"));
        let child = world
            .chain
            .command(host, &program()?)
            .arg("write")
            .args(order(path, &ledger, places, seed))
            .stdin(Stdio::null())
            .stderr(File::create(ledger.with_extension("why"))?)
            .spawn()?;
        let mut writer = Self {
            child,
            host,
            ledger,
            places,
            seed,
        };
        writer.goes_on(20)?;
        Ok(writer)
    }

    pub(crate) fn count(&self) -> Result<u64> {
        count(&self.ledger)
    }

    /// So many more blocks.
    pub(crate) fn goes_on(&mut self, more: u64) -> Result<()> {
        let wanted = self.count()? + more;
        let mut ended = None;
        until("the writer to go on", LIMIT, || {
            ended = self.child.try_wait()?;
            Ok((ended.is_some() || count(&self.ledger)? >= wanted).then_some(()))
        })?;
        match ended {
            None => Ok(()),
            Some(_) => bail!("the writer has ended: {}", self.why()),
        }
    }

    /// Waits until it ends by an error; gives that.
    pub(crate) fn fails(&mut self) -> Result<String> {
        until("the writer to fail", LIMIT, || Ok(self.child.try_wait()?))?;
        Ok(self.why())
    }

    /// Ends it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the writer has ended: {status}: {}", self.why());
        }
        self.child.kill()?;
        until("the writer to end", LIMIT, || Ok(self.child.try_wait()?))?;
        Ok(())
    }

    fn why(&self) -> String {
        let said = std::fs::read_to_string(self.ledger.with_extension("why"));
        said.unwrap_or_default().trim().to_owned()
    }

    /// Everything that was counted is there, at a path of this host or, where the volume moved, of another.
    pub(crate) fn check(&self, world: &World, host: Option<usize>, path: &Path) -> Result<u64> {
        let host = host.unwrap_or(self.host);
        let output = world
            .chain
            .command(host, "timeout")
            .args(["--signal=KILL", "60", &program()?, "check"])
            .args(order(path, &self.ledger, self.places, self.seed))
            .stdin(Stdio::null())
            .output()?;
        ensure!(
            output.status.success(),
            "{}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        self.count()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // One that waits for a dead disk ends when that does: it is not waited for.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }
}

/// This program.
fn program() -> Result<String> {
    Ok(std::env::current_exe()?.display().to_string())
}

fn order(path: &Path, ledger: &Path, places: u64, seed: u64) -> [String; 4] {
    [
        path.display().to_string(),
        ledger.display().to_string(),
        places.to_string(),
        seed.to_string(),
    ]
}
