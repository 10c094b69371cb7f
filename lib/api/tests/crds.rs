//! `manifests/crds` is what the types say. `OUTBOARD_UPDATE=1 cargo test -p api` writes it anew.

use std::fs;
use std::path::Path;

#[test]
fn manifests_are_generated_from_the_types() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds");
    for (file, crd) in api::crds() {
        let path = dir.join(format!("{file}.yaml"));
        let yaml = serde_saphyr::to_string(&crd).unwrap();
        let text = format!(
            "# Generated from lib/api: OUTBOARD_UPDATE=1 cargo test -p api --test crds\n{}\n",
            yaml.trim_end()
        );
        if std::env::var_os("OUTBOARD_UPDATE").is_some() {
            fs::create_dir_all(&dir).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} differs from the types in lib/api: OUTBOARD_UPDATE=1 cargo test -p api --test crds",
            path.display()
        );
    }
}
