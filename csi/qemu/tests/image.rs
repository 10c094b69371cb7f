//! qemu-img: what it makes, and how it fails.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::path::Path;
use std::time::Duration;

use qemu::{Backing, Create, Image, ImageError};
use support::{Program, soon};

#[tokio::test]
async fn images_are_made_measured_rebased_grown_and_checked() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name);
    let (a, b, c) = (path("a.qcow2"), path("b.qcow2"), path("c.qcow2"));
    let image = Image::default();
    image
        .create(&a, &Create::blank(1 << 30), soon())
        .await
        .unwrap();
    let info = image.info(&a, false, soon()).await.unwrap();
    assert_eq!(
        (info.virtual_size, info.cluster_size),
        (1 << 30, Some(128 << 10))
    );
    assert_eq!((info.format.as_str(), info.dirty_flag), ("qcow2", false));
    assert!(info.actual_size < 2 << 20, "{info:?}");
    image.create(&b, &Create::over(&a), soon()).await.unwrap();
    let larger = Create {
        size: Some(2 << 30),
        ..Create::over(&b)
    };
    image.create(&c, &larger, soon()).await.unwrap();
    let chain = image.chain(&c, false, soon()).await.unwrap();
    let files: Vec<_> = chain.iter().map(|info| info.filename.clone()).collect();
    assert_eq!(files, [c.clone(), b.clone(), a.clone()]);
    assert_eq!(chain[1].virtual_size, 1 << 30);
    assert_eq!(chain[1].full_backing_filename.as_ref(), Some(&a));
    assert_eq!(chain[1].backing_filename_format.as_deref(), Some("qcow2"));

    let backing = Backing {
        path: a.clone(),
        format: "qcow2".into(),
    };
    image
        .rebase_unsafe(&c, Some(&backing), soon())
        .await
        .unwrap();
    assert_eq!(image.chain(&c, false, soon()).await.unwrap().len(), 2);
    image.rebase_unsafe(&c, None, soon()).await.unwrap();
    assert_eq!(
        image
            .info(&c, false, soon())
            .await
            .unwrap()
            .backing_filename,
        None
    );
    image.grow(&b, 3 << 30, soon()).await.unwrap();
    assert_eq!(
        image.info(&b, false, soon()).await.unwrap().virtual_size,
        3 << 30
    );
    let shrunk = image.grow(&b, 1 << 30, soon()).await.unwrap_err();
    assert!(shrunk.to_string().contains("hrink"), "{shrunk}");
    image.commit(&b, soon()).await.unwrap();
    assert_eq!(
        image.info(&a, false, soon()).await.unwrap().virtual_size,
        3 << 30
    );
    assert!(image.check(&a, soon()).await.unwrap().is_sound());
    let measure = image.measure_size(1 << 30, soon()).await.unwrap();
    assert!(measure.required < measure.fully_allocated && measure.fully_allocated > 1 << 30);
    assert!(image.measure_copy(&a, soon()).await.unwrap().required < 4 << 20);
}

#[tokio::test]
async fn failures_are_qemu_imgs_own_sentences() {
    let home = tempfile::tempdir().unwrap();
    let (a, missing) = (
        home.path().join("a.qcow2"),
        home.path().join("missing.qcow2"),
    );
    let image = Image::default();
    let error = image.info(&missing, false, soon()).await.unwrap_err();
    assert!(matches!(error, ImageError::Missing { .. }), "{error}");
    let error = image
        .create(&a, &Create::over(&missing), soon())
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Missing { .. }), "{error}");
    let error = image
        .info(Path::new("nbd:unix:x"), false, soon())
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Path { .. }), "{error}");
    image
        .create(&a, &Create::blank(1 << 20), soon())
        .await
        .unwrap();
    let error = image
        .create(&a, &Create::blank(1 << 20), soon())
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Exists { .. }), "{error}");

    let program = Program::storage_daemon(home.path(), "qmp.sock");
    let qmp = program.connect().await;
    let node = qemu::commands::Node::qcow2("a", qemu::commands::Node::file("f", &a));
    qmp.execute(&qemu::commands::BlockdevAdd(node), soon())
        .await
        .unwrap();
    let error = image.grow(&a, 2 << 20, soon()).await.unwrap_err();
    assert!(matches!(error, ImageError::Locked { .. }), "{error}");

    std::fs::write(home.path().join("text"), "no image").unwrap();
    let error = image
        .check(&home.path().join("text"), soon())
        .await
        .unwrap_err();
    assert!(matches!(error, ImageError::Failed { .. }), "{error}");
    let late = tokio::time::Instant::now() - Duration::from_millis(1);
    let error = image.info(&a, true, late).await.unwrap_err();
    assert!(matches!(error, ImageError::Timeout { .. }), "{error}");
    let error = Image::new("/nowhere/qemu-img")
        .info(&a, true, soon())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("install qemu-utils"), "{error}");
}
