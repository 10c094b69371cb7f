//! `csi-node-host`.

fn main() -> std::process::ExitCode {
    csi_node::host::main()
}
