//! `csi-node-dpu`.

fn main() -> std::process::ExitCode {
    csi_node::dpu::main()
}
