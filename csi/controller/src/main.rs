//! `csi-controller`.

fn main() -> std::process::ExitCode {
    csi_controller::main()
}
