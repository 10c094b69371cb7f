//! `qemu-img`: image files that no process has open.

mod process;
mod report;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

pub use process::ImageError;
use process::{Job, Program};
pub use report::{Check, Info, Measure};

/// Runs `qemu-img` on image files, which are given by absolute paths (any other name may be a network address to it).
/// Each call is one child process, killed at the deadline.
#[derive(Debug, Clone)]
pub struct Image {
    program: Program,
}

/// A qcow2 image to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Its size in bytes; that of the backing file if not given.
    pub size: Option<u64>,
    /// What it lies over.
    pub backing: Option<Backing>,
    /// Bytes of a cluster; with sub-clusters (`extended_l2`) a 32nd of it is allocated at a time.
    pub cluster_size: u64,
    /// Whether clusters have sub-clusters; then `cluster_size` is at least 16384.
    pub extended_l2: bool,
}

/// The image below another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// Its path, as it gets into the header.
    pub path: PathBuf,
    /// `qcow2` or `raw`: never guessed, since the contents of a raw image are the guest's.
    pub format: String,
}

impl Create {
    /// A thin image of `size` bytes in Outboard's layout: 128 KiB clusters with sub-clusters.
    #[must_use]
    pub fn blank(size: u64) -> Self {
        Create {
            size: Some(size),
            backing: None,
            cluster_size: 128 << 10,
            extended_l2: true,
        }
    }

    /// An empty image of the same layout over a qcow2 image, and of its size.
    #[must_use]
    pub fn over(path: impl Into<PathBuf>) -> Self {
        Create {
            size: None,
            backing: Some(Backing {
                path: path.into(),
                format: "qcow2".to_owned(),
            }),
            ..Create::blank(0)
        }
    }
}

impl Default for Image {
    fn default() -> Self {
        Image::new("qemu-img")
    }
}

impl Image {
    /// Uses this `qemu-img`: a path, or a name to be found in `PATH`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Image {
            program: Program(program.into()),
        }
    }

    /// Makes a qcow2 image. It and its directory entry are on disk when this returns.
    ///
    /// # Errors
    /// [`ImageError::Exists`] if there is a file; and others. After an error there may be a file that is no image.
    pub async fn create(
        &self,
        path: &Path,
        image: &Create,
        deadline: Instant,
    ) -> Result<(), ImageError> {
        let mut job = Job::new("create", path)?;
        if tokio::fs::try_exists(path).await.unwrap_or(true) {
            return Err(ImageError::Exists {
                path: path.to_owned(),
            });
        }
        let extended = if image.extended_l2 { "on" } else { "off" };
        job.arg("-q").arg("-f").arg("qcow2").arg("-o").arg(format!(
            "compat=1.1,lazy_refcounts=off,cluster_size={},extended_l2={extended}",
            image.cluster_size
        ));
        if let Some(backing) = &image.backing {
            job.image("-b", &backing.path)?;
            job.arg("-F").arg(&backing.format);
        }
        job.file();
        if let Some(size) = image.size {
            job.arg(size.to_string());
        }
        self.program.run(job, deadline).await?;
        process::sync(path).await
    }

    /// What an image is. `shared` reads one that another process has open; what is read then may be of no moment.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn info(
        &self,
        path: &Path,
        shared: bool,
        deadline: Instant,
    ) -> Result<Info, ImageError> {
        let mut job = Job::new("info", path)?;
        job.arg("--output=json");
        if shared {
            job.arg("-U");
        }
        job.file();
        self.program.read(job, deadline).await
    }

    /// An image and those below it, from the top down.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn chain(
        &self,
        path: &Path,
        shared: bool,
        deadline: Instant,
    ) -> Result<Vec<Info>, ImageError> {
        let mut job = Job::new("info", path)?;
        job.arg("--output=json").arg("--backing-chain");
        if shared {
            job.arg("-U");
        }
        job.file();
        self.program.read(job, deadline).await
    }

    /// The space that a new qcow2 image of `size` bytes would take at most, in Outboard's layout.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn measure_size(&self, size: u64, deadline: Instant) -> Result<Measure, ImageError> {
        let mut job = Job::without_file("measure");
        job.arg("--output=json").arg("-O").arg("qcow2");
        job.arg("-o").arg("cluster_size=131072,extended_l2=on");
        job.arg("--size").arg(size.to_string());
        self.program.read(job, deadline).await
    }

    /// The space that a full copy of a qcow2 image and all below it would take.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn measure_copy(
        &self,
        path: &Path,
        deadline: Instant,
    ) -> Result<Measure, ImageError> {
        let mut job = Job::new("measure", path)?;
        job.arg("--output=json").arg("-O").arg("qcow2");
        job.arg("-o").arg("cluster_size=131072,extended_l2=on");
        job.arg("-f").arg("qcow2").file();
        self.program.read(job, deadline).await
    }

    /// Writes another backing file, or none, into a qcow2 image's header and touches no data: right only if what is
    /// below holds the same. It is on disk when this returns.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn rebase_unsafe(
        &self,
        path: &Path,
        backing: Option<&Backing>,
        deadline: Instant,
    ) -> Result<(), ImageError> {
        let mut job = Job::new("rebase", path)?;
        job.arg("-u").arg("-f").arg("qcow2");
        match backing {
            Some(backing) => {
                job.image("-b", &backing.path)?;
                job.arg("-F").arg(&backing.format);
            }
            None => {
                job.arg("-b").arg(OsString::new());
            }
        }
        job.file();
        self.program.run(job, deadline).await?;
        process::sync(path).await
    }

    /// Makes a qcow2 image larger, to `size` bytes. It never shrinks one.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn grow(&self, path: &Path, size: u64, deadline: Instant) -> Result<(), ImageError> {
        let mut job = Job::new("resize", path)?;
        job.arg("-q").arg("-f").arg("qcow2").file();
        job.arg(size.to_string());
        self.program.run(job, deadline).await?;
        process::sync(path).await
    }

    /// Merges an image into the one below it, which then holds both; the image itself is then of no use.
    ///
    /// # Errors
    /// See [`ImageError`]. After an error the merge is done in part, which the image above hides: try again.
    pub async fn commit(&self, path: &Path, deadline: Instant) -> Result<(), ImageError> {
        let mut job = Job::new("commit", path)?;
        job.arg("-q").arg("-d").arg("-f").arg("qcow2").file();
        self.program.run(job, deadline).await
    }

    /// Looks for damage in a qcow2 image and repairs nothing. Damage is no error of this call.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub async fn check(&self, path: &Path, deadline: Instant) -> Result<Check, ImageError> {
        let mut job = Job::new("check", path)?;
        job.arg("--output=json").arg("-f").arg("qcow2").file();
        self.program.read(job, deadline).await
    }
}
