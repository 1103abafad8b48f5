//! The attacks: their names, who performs them, for how long, and which peers face them too.

use std::time::Duration;

/// Time for an attack that works by speed.
const FLOOD: Duration = Duration::from_secs(8);
/// Time for an attack that works by patience: longer than the time limits that should end it.
const SIEGE: Duration = Duration::from_secs(20);

/// Who performs an attack.
#[derive(Clone, Copy)]
pub enum Attacker {
    /// Debian's slowhttptest with these arguments, on the TLS port or not.
    SlowHttpTest { arguments: &'static [&'static str], tls: bool },
    /// `xtask/attacks/attack.py NAME`, in so many processes.
    Script { processes: usize },
}

/// One attack.
#[derive(Clone, Copy)]
pub struct Attack {
    /// As `--only` and `attack.py` know it.
    pub name: &'static str,
    pub attacker: Attacker,
    pub lasts: Duration,
    /// Whether nginx faces it in every full run.
    pub peer: bool,
    /// Whether the control faces it: it speaks plain HTTP/1.1 only.
    pub control: bool,
}

impl Attack {
    const fn slow(name: &'static str, tls: bool, arguments: &'static [&'static str]) -> Self {
        let attacker = Attacker::SlowHttpTest { arguments, tls };
        Self { name, attacker, lasts: SIEGE, peer: false, control: false }
    }

    const fn script(name: &'static str, lasts: Duration) -> Self {
        Self { name, attacker: Attacker::Script { processes: 1 }, lasts, peer: false, control: false }
    }

    /// Twice the connections, so that they are more than one process may have.
    const fn twice(self) -> Self {
        Self { attacker: Attacker::Script { processes: 2 }, ..self }
    }

    const fn with_peer(self) -> Self {
        Self { peer: true, ..self }
    }

    const fn with_control(self) -> Self {
        Self { control: true, ..self }
    }
}

/// Heads that come a field at a time.
const SLOW_HEADERS: &[&str] = &["-H", "-c", "4000", "-r", "1000", "-i", "5", "-x", "24", "-p", "3"];
/// Bodies that come a piece at a time.
const SLOW_BODIES: &[&str] =
    &["-B", "-c", "2000", "-r", "500", "-i", "5", "-s", "8192", "-x", "24", "-p", "3"];
/// Answers that are read a little at a time, several on each connection.
const SLOW_READING: &[&str] =
    &["-X", "-c", "1000", "-r", "500", "-w", "256", "-y", "512", "-n", "5", "-z", "32", "-k", "3", "-p", "3"];

/// All of them, in the order they are run and shown.
pub const ATTACKS: &[Attack] = &[
    Attack::slow("slow-headers", false, SLOW_HEADERS).with_peer().with_control(),
    Attack::slow("slow-headers-tls", true, SLOW_HEADERS),
    Attack::slow("slow-body", false, SLOW_BODIES),
    Attack::slow("slow-body-tls", true, SLOW_BODIES),
    Attack::slow("slow-read", false, SLOW_READING),
    Attack::slow("slow-read-tls", true, SLOW_READING),
    Attack::script("h2-rapid-reset", FLOOD).with_peer(),
    Attack::script("h2-made-you-reset", FLOOD).with_peer(),
    Attack::script("h2-continuation", FLOOD),
    Attack::script("h2-settings", FLOOD),
    Attack::script("h2-ping", FLOOD),
    Attack::script("h2-priority", FLOOD),
    Attack::script("h2-empty-data", FLOOD),
    Attack::script("h2-window-update", FLOOD),
    Attack::script("h2-zero-window", SIEGE).with_peer(),
    Attack::script("h2-hpack-bomb", FLOOD),
    Attack::script("h2-hpack-resize", FLOOD),
    Attack::script("h2-silent-bodies", SIEGE),
    Attack::script("h2-unknown-frames", FLOOD),
    Attack::script("sources-idle", SIEGE).twice().with_peer(),
    Attack::script("sources-half-head", SIEGE).twice(),
    Attack::script("sources-client-hello", SIEGE).twice(),
    Attack::script("sources-churn", FLOOD),
    Attack::script("sources-handshakes", FLOOD),
    Attack::script("sources-slow-read", SIEGE).with_peer(),
    Attack::script("h1-pipelining", FLOOD),
    Attack::script("h1-huge-heads", FLOOD),
    Attack::script("h1-chunk-extensions", FLOOD),
    Attack::script("h1-tiny-chunks", FLOOD),
    Attack::script("h1-trailers", FLOOD),
    Attack::script("tls-renegotiation", FLOOD),
    Attack::script("tls-tiny-records", FLOOD),
    Attack::script("tls-tiny-hello", FLOOD),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_something_is_left_for_peer_and_control() {
        let names: std::collections::BTreeSet<&str> = ATTACKS.iter().map(|attack| attack.name).collect();
        assert_eq!(names.len(), ATTACKS.len());
        assert!(ATTACKS.iter().any(|attack| attack.peer) && ATTACKS.iter().any(|attack| attack.control));
    }

    #[test]
    fn the_script_knows_every_name() {
        // Where the folder is now: a program out of a cache may have been built elsewhere.
        let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
        let folder = std::path::Path::new(&here).join("attacks");
        let known: String = ["attack.py", "http2.py", "http1.py", "sources.py"]
            .iter()
            .map(|file| std::fs::read_to_string(folder.join(file)).unwrap())
            .collect();
        for attack in ATTACKS.iter().filter(|attack| matches!(attack.attacker, Attacker::Script { .. })) {
            assert!(known.contains(&format!("\"{}\"", attack.name)), "{}", attack.name);
        }
    }
}
