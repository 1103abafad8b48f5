//! Rempart with test-only faults (`edge::fault`): what must survive them is tested with it. Never shipped.

fn main() -> std::process::ExitCode {
    app::main()
}
