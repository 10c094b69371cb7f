//! One run of `qemu-img`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::de::DeserializeOwned;
use tokio::process::Command;
use tokio::time::Instant;

/// Why a run of `qemu-img` failed, one variant per decision of a caller.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The program can't be run.
    #[error("can't run {}: {source}; install qemu-utils (10.0.3 or newer)", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The path is not absolute.
    #[error("image {}: not an absolute path", .path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// There is a file already.
    #[error("image {}: exists already", .path.display())]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// It, or an image below it, is not there.
    #[error("qemu-img {operation} {}: {said}", .path.display())]
    Missing {
        /// `create`, `info`, …
        operation: &'static str,
        /// The image.
        path: PathBuf,
        /// qemu-img's own sentence.
        said: String,
    },
    /// Another process has it open.
    #[error("qemu-img {operation} {}: {said}", .path.display())]
    Locked {
        /// `create`, `info`, …
        operation: &'static str,
        /// The image.
        path: PathBuf,
        /// qemu-img's own sentence.
        said: String,
    },
    /// The file system is full.
    #[error("qemu-img {operation} {}: {said}", .path.display())]
    NoSpace {
        /// `create`, `info`, …
        operation: &'static str,
        /// The image.
        path: PathBuf,
        /// qemu-img's own sentence.
        said: String,
    },
    /// It failed in another way.
    #[error("qemu-img {operation} {}: {said}", .path.display())]
    Failed {
        /// `create`, `info`, …
        operation: &'static str,
        /// The image.
        path: PathBuf,
        /// qemu-img's own sentence, or how it ended.
        said: String,
    },
    /// It was not done at the deadline, and was killed: whether it was carried out is unknown.
    #[error("qemu-img {operation} {}: not done before the deadline", .path.display())]
    Timeout {
        /// `create`, `info`, …
        operation: &'static str,
        /// The image.
        path: PathBuf,
    },
    /// A file can't be written to disk.
    #[error("image {}: can't sync it: {source}", .path.display())]
    Sync {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What to run.
pub(super) struct Job {
    operation: &'static str,
    path: PathBuf,
    args: Vec<OsString>,
}

impl Job {
    pub(super) fn new(operation: &'static str, path: &Path) -> Result<Self, ImageError> {
        absolute(path)?;
        Ok(Job {
            operation,
            path: path.to_owned(),
            args: Vec::new(),
        })
    }

    pub(super) fn without_file(operation: &'static str) -> Self {
        Job {
            operation,
            path: PathBuf::new(),
            args: Vec::new(),
        }
    }

    pub(super) fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// The image itself.
    pub(super) fn file(&mut self) {
        self.args.push(self.path.clone().into());
    }

    /// Another image as the value of a flag.
    pub(super) fn image(&mut self, flag: &str, path: &Path) -> Result<(), ImageError> {
        absolute(path)?;
        self.arg(flag).arg(path);
        Ok(())
    }
}

fn absolute(path: &Path) -> Result<(), ImageError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(ImageError::Path {
        path: path.to_owned(),
    })
}

/// The program.
#[derive(Debug, Clone)]
pub(super) struct Program(pub(super) PathBuf);

impl Program {
    /// Runs it to its end; success only.
    pub(super) async fn run(&self, job: Job, deadline: Instant) -> Result<(), ImageError> {
        let (success, output, said) = self.output(&job, deadline).await?;
        drop(output);
        if success {
            Ok(())
        } else {
            Err(job.failed(said))
        }
    }

    /// Runs it and decodes what it reports. `check` reports damage with an exit code of its own.
    pub(super) async fn read<T: DeserializeOwned>(
        &self,
        job: Job,
        deadline: Instant,
    ) -> Result<T, ImageError> {
        let (success, output, said) = self.output(&job, deadline).await?;
        match serde_json::from_slice(&output) {
            Ok(report) => Ok(report),
            Err(why) if success => Err(job.failed(format!("can't decode its report ({why})"))),
            Err(_) => Err(job.failed(said)),
        }
    }

    async fn output(
        &self,
        job: &Job,
        deadline: Instant,
    ) -> Result<(bool, Vec<u8>, String), ImageError> {
        let child = Command::new(&self.0)
            .arg(job.operation)
            .args(&job.args)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ImageError::Start {
                program: self.0.clone(),
                source,
            })?;
        tracing::debug!(operation = job.operation, image = %job.path.display(), "qemu-img");
        let output = tokio::time::timeout_at(deadline, child.wait_with_output())
            .await
            .map_err(|_| ImageError::Timeout {
                operation: job.operation,
                path: job.path.clone(),
            })?
            .map_err(|why| job.failed(why.to_string()))?;
        let said = sentence(&String::from_utf8_lossy(&output.stderr));
        let said = said.unwrap_or_else(|| output.status.to_string());
        Ok((output.status.success(), output.stdout, said))
    }
}

/// The first line that is no warning, without the program's name. What follows is hints.
fn sentence(stderr: &str) -> Option<String> {
    let line = stderr
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with("qemu-img: warning"))?;
    Some(line.strip_prefix("qemu-img: ").unwrap_or(line).to_owned())
}

impl Job {
    fn failed(&self, said: String) -> ImageError {
        let (operation, path) = (self.operation, self.path.clone());
        // Pinned by a test against the real program.
        if said.contains("No such file or directory") {
            ImageError::Missing {
                operation,
                path,
                said,
            }
        } else if said.contains(" lock") {
            ImageError::Locked {
                operation,
                path,
                said,
            }
        } else if said.contains("No space left on device") {
            ImageError::NoSpace {
                operation,
                path,
                said,
            }
        } else {
            ImageError::Failed {
                operation,
                path,
                said,
            }
        }
    }
}

/// Writes a file and its directory's entry of it to disk.
pub(super) async fn sync(path: &Path) -> Result<(), ImageError> {
    let file = path.to_owned();
    let synced = tokio::task::spawn_blocking(move || {
        std::fs::File::open(&file)?.sync_all()?;
        let dir = file.parent().unwrap_or(Path::new("/"));
        std::fs::File::open(dir)?.sync_all()
    });
    synced
        .await
        .map_err(io::Error::other)
        .and_then(|synced| synced)
        .map_err(|source| ImageError::Sync {
            path: path.to_owned(),
            source,
        })
}
