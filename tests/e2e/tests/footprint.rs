//! What the processes occupy while nothing happens.

use api::admin::ProcessRole;
use harness::companions::Host;
use harness::memory;
use harness::rempart::{Rempart, binary, process_of};

use crate::heavy;
use crate::stage::{HOST, config};

/// Bounds of issue 3 in bytes: supervisor and edge, for the optimised binary.
const OPTIMISED: (u64, u64) = (8 << 20, 24 << 20);
/// The unoptimised one has a larger program text.
const UNOPTIMISED: (u64, u64) = (48 << 20, 80 << 20);

#[test]
fn idle_processes_are_small() {
    let _alone = heavy();
    let host = Host::new();
    let rempart = Rempart::with(&config(&host));
    let status = rempart.await_standby();
    assert_eq!(rempart.client().get(HOST, "/ok").unwrap().text(), "ok");
    assert_eq!(rempart.http2(HOST).get(HOST, "/ok").unwrap().body, b"ok");
    let resident = |role| memory::resident(process_of(&status, role).unwrap());
    // Most of what is resident in it is the program, which the others have mapped too: it is counted once.
    let supervisor = memory::proportional(process_of(&status, ProcessRole::Supervisor).unwrap());
    let (edge, standby) = (resident(ProcessRole::Edge), resident(ProcessRole::Standby));
    println!(
        "supervisor {} KiB (resident {} KiB), edge resident {} KiB, standby {} KiB",
        supervisor / 1024,
        resident(ProcessRole::Supervisor) / 1024,
        edge / 1024,
        standby / 1024
    );
    let optimised = binary().parent().is_some_and(|folder| folder.ends_with("release"));
    let bounds = if optimised { OPTIMISED } else { UNOPTIMISED };
    assert!(supervisor <= bounds.0, "the supervisor occupies {supervisor} bytes");
    assert!(edge <= bounds.1, "the edge occupies {edge} bytes");
    assert!(standby <= bounds.1, "the standby occupies {standby} bytes");
    for process in &status.processes {
        let (told, now) = (process.resident_bytes, memory::resident(process.pid));
        assert!(told > 0 && told < 2 * now && now < 2 * told, "{process:?}: {now} bytes");
    }
}
