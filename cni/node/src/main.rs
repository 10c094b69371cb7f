//! `cni-node`.

fn main() -> std::process::ExitCode {
    cni_node::main()
}
