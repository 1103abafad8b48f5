//! Rempart with test-only faults (`edge::fault`): what must survive them is tested with it. Never shipped.

use edge::fault::{BinaryFault, binary};

fn main() -> std::process::ExitCode {
    match binary() {
        Some(BinaryFault::Crashes) => std::process::abort(),
        Some(BinaryFault::Hangs) => loop {
            std::thread::park();
        },
        _ => app::main(),
    }
}
