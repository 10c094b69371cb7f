//! `volume-attacher`.

fn main() -> std::process::ExitCode {
    attacher::main()
}
