//! Prints the custom resource definitions, as `manifests/crds` has them.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (_, crd) in api::crds() {
        println!("---\n{}", serde_saphyr::to_string(&crd)?);
    }
    Ok(())
}
