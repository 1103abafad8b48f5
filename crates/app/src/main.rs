//! The rempart binary.

fn main() -> std::process::ExitCode {
    app::main()
}
