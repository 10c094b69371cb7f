//! Turns the .proto files of the chosen features into Rust: no `protoc`, no network.
//!
//! Beside what tonic and prost generate, each package gets a file of `Debug` impls for the messages that hold secrets, made from
//! their descriptors (`build/debug.rs`), and the crate gets the descriptors themselves, for the tests and for gRPC reflection.

#[path = "build/debug.rs"]
mod debug;

use std::error::Error;
use std::path::{Path, PathBuf};

/// Files by feature. Imports come by themselves.
const FILES: [(&str, &[&str]); 5] = [
    ("CSI", &["csi/v1/csi.proto"]),
    ("KUBELET", &["kubelet/pluginregistration/v1/api.proto"]),
    (
        "KUBEVIRT",
        &[
            "kubevirt/hooks/info/info.proto",
            "kubevirt/hooks/v1alpha1/callbacks.proto",
            "kubevirt/hooks/v1alpha2/callbacks.proto",
            "kubevirt/hooks/v1alpha3/callbacks.proto",
        ],
    ),
    (
        "OPI",
        &[
            "opi/storage/v1/backend_aio.proto",
            "opi/storage/v1/backend_malloc.proto",
            "opi/storage/v1/backend_null.proto",
            "opi/storage/v1/backend_nvme.proto",
            "opi/storage/v1/frontend_nvme.proto",
            "opi/storage/v1/frontend_virtio_blk.proto",
            "opi/storage/v1/middleend_encryption.proto",
            "opi/storage/v1/middleend_qos_volume.proto",
        ],
    ),
    (
        "OUTBOARD",
        &[
            "outboard/attacher/v1/attacher.proto",
            "outboard/card/v1/card.proto",
            "outboard/dpu/v1/dpu.proto",
            "outboard/node/v1/node.proto",
            "outboard/volume/v1/volume.proto",
        ],
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let files = chosen();
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    let pool = compiler.descriptor_pool();

    let secret = debug::messages(&pool);
    let mut config = tonic_prost_build::Config::new();
    // Maps in order of their keys: an equal message has equal bytes and prints alike.
    config.btree_map(["."]);
    config.skip_debug(secret.iter().map(|m| format!(".{}", m.full_name())));
    tonic_prost_build::configure()
        .out_dir(&out)
        .compile_fds_with_config(compiler.file_descriptor_set(), config)?;
    debug::write(&out, &pool, &secret)?;
    write_descriptors(&out, &files)
}

/// The files of the features that are on.
fn chosen() -> Vec<&'static str> {
    let on = |feature: &str| std::env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    let chosen = FILES.iter().filter(|(feature, _)| on(feature));
    chosen
        .flat_map(|(_, files)| files.iter().copied())
        .collect()
}

/// Without comments, which would lie in every program; with options, which prost's own types would drop.
fn write_descriptors(out: &Path, files: &[&str]) -> Result<(), Box<dyn Error>> {
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).open_files(files)?;
    std::fs::write(
        out.join("descriptors.bin"),
        compiler.encode_file_descriptor_set(),
    )?;
    Ok(())
}
