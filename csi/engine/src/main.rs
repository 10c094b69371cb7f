//! `outboard-engine`.

fn main() -> std::process::ExitCode {
    engine::main()
}
