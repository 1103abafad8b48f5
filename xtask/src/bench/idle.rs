//! What idle connections cost in memory: the server's processes before and while a client holds thousands of them.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::cpu;
use crate::peers::{Name, Origin, Place, Server};
use crate::shell::Background;

/// How long it may take until all connections stand.
const HELD_WITHIN: Duration = Duration::from_secs(120);
/// Time between two looks at the memory.
const SETTLE_STEP: Duration = Duration::from_millis(500);
/// So many looks in a row must differ by less than a hundredth each.
const STEADY_LOOKS: usize = 4;
/// Looks altogether.
const SETTLE_LOOKS: u32 = 60;

/// Servers started for one figure at most.
const ATTEMPTS: usize = 3;

/// One way to be idle, and what Rempart may use for it.
pub struct Variant {
    pub name: &'static str,
    pub connections: u64,
    pub tls: bool,
    /// Whether each connection has had an answer before it idles.
    pub asked: bool,
    /// Bytes per connection.
    pub bar: f64,
}

/// All of them.
pub const VARIANTS: &[Variant] = &[
    Variant { name: "plain, nothing asked", connections: 10_000, tls: false, asked: false, bar: 10_000.0 },
    Variant { name: "plain, after an answer", connections: 10_000, tls: false, asked: true, bar: 10_000.0 },
    Variant { name: "TLS, nothing asked", connections: 5_000, tls: true, asked: false, bar: 30_000.0 },
    Variant { name: "TLS, after an answer", connections: 5_000, tls: true, asked: true, bar: 30_000.0 },
];

/// Memory of a process and its descendants, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// Pages that several processes share count in part for each of them.
    pub proportional: u64,
    /// Pages that several processes share count in full for each of them.
    pub resident: u64,
}

/// What was measured of one server and variant.
#[derive(Clone, Debug)]
pub struct Idle {
    pub variant: &'static str,
    pub server: Name,
    pub connections: u64,
    pub before: Memory,
    pub after: Memory,
}

impl Idle {
    /// Bytes that one connection costs, shared pages counted once.
    pub fn per_connection(&self) -> f64 {
        (self.after.proportional as f64 - self.before.proportional as f64) / self.connections as f64
    }
}

/// Every server and variant, each with a server just started.
pub fn run(place: &Place, names: &[Name], origin: &Origin) -> Result<Vec<Idle>> {
    raise_file_limit()?;
    let mut results = Vec::new();
    for variant in VARIANTS {
        for &name in names.iter().filter(|name| !matches!(name, Name::Floor | Name::Ruled)) {
            let measured = (0..ATTEMPTS).find_map(|_| one(place, name, origin, variant).transpose());
            let idle = measured
                .unwrap_or_else(|| bail!("its processes come and go"))
                .with_context(|| format!("idle, {}, {}", variant.name, name.shown()))?;
            println!(
                "{:<28} {:<8} {:>8.1} MB at rest, {:>9.0} bytes per connection",
                variant.name,
                name.shown(),
                idle.before.proportional as f64 / 1e6,
                idle.per_connection()
            );
            results.push(idle);
        }
    }
    Ok(results)
}

/// Servers inherit it, and each needs a file for each connection.
fn raise_file_limit() -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).context("cannot raise the file limit")
}

/// `None` when a process of the server came or went between the two looks, as Rempart's second one may on a busy machine.
fn one(place: &Place, name: Name, origin: &Origin, variant: &Variant) -> Result<Option<Idle>> {
    let server = Server::start(place, name, origin.port)?;
    let port = if variant.tls { server.tls_port } else { server.plain_port };
    // What the first connections make a server load is not theirs.
    drop(hold(place, port, WARM_UP_CONNECTIONS, variant)?);
    let before = settled(server.id())?;
    let processes = cpu::family(server.id())?;
    let asked_before = origin.counted()?.requests;
    let holder = hold(place, port, variant.connections, variant)?;
    let after = settled(server.id())?;
    if cpu::family(server.id())? != processes {
        return Ok(None);
    }
    let open = established(port)?;
    if open < variant.connections {
        bail!("{open} of {} connections are still open", variant.connections);
    }
    let asked = origin.counted()?.requests - asked_before;
    if variant.asked && asked < variant.connections {
        bail!("{} connections, but {asked} requests reached the origin", variant.connections);
    }
    drop(holder);
    Ok(Some(Idle { variant: variant.name, server: name, connections: variant.connections, before, after }))
}

/// Connections that come and go before the first look.
const WARM_UP_CONNECTIONS: u64 = 50;

/// Connections that stay until the answer is dropped.
fn hold(place: &Place, port: u16, connections: u64, variant: &Variant) -> Result<Background> {
    let root = &place.workspace.root;
    let mut command = place.workspace.command("taskset");
    command.args(["--cpu-list", super::LOAD_CORE, "python3"]).arg(root.join("benches/idle/hold.py"));
    command.args([port.to_string(), connections.to_string()]);
    command.args([if variant.tls { "tls" } else { "plain" }, if variant.asked { "asked" } else { "silent" }]);
    command.env("OPENSSL_CONF", root.join("benches/peers/clients.cnf"));
    let mut holder = Background::start("the holder of connections", command.stdout(Stdio::piped()))?;
    let line = holder.first_line(HELD_WITHIN)?;
    if line.trim() != format!("holding {connections}") {
        bail!("the holder of connections says: {}", line.trim());
    }
    Ok(holder)
}

/// Memory once it does not change any more: servers give buffers back some time after they were needed, and Rempart's
/// second process comes up after the first one serves.
fn settled(root: u32) -> Result<Memory> {
    let mut last = memory(root)?;
    let mut steady = 0;
    for _ in 0..SETTLE_LOOKS {
        std::thread::sleep(SETTLE_STEP);
        let now = memory(root)?;
        steady = if now.proportional.abs_diff(last.proportional) < last.proportional / 100 {
            steady + 1
        } else {
            0
        };
        last = now;
        if steady == STEADY_LOOKS {
            return Ok(last);
        }
    }
    bail!("its memory still changes after {} s", (SETTLE_STEP * SETTLE_LOOKS).as_secs())
}

fn memory(root: u32) -> Result<Memory> {
    let mut sum = Memory { proportional: 0, resident: 0 };
    for id in cpu::family(root)? {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
        let of = parse_rollup(&text).with_context(|| format!("smaps_rollup says: {text}"))?;
        sum.proportional += of.proportional;
        sum.resident += of.resident;
    }
    Ok(sum)
}

/// `Rss:` and `Pss:`, in kB of 1024 bytes.
fn parse_rollup(text: &str) -> Option<Memory> {
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
    };
    Some(Memory { proportional: of("Pss:")?, resident: of("Rss:")? })
}

/// Connections a server has open on this port, as the kernel says.
fn established(port: u16) -> Result<u64> {
    Ok(count_established(&fs::read_to_string("/proc/net/tcp")?, port))
}

/// Rows of proc(5) `net/tcp` with this local port and state 1, established.
fn count_established(table: &str, port: u16) -> u64 {
    let suffix = format!(":{port:04X}");
    let rows = table.lines().skip(1).filter(|row| {
        let mut fields = row.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&suffix)) && fields.nth(1) == Some("01")
    });
    rows.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollup_is_read() {
        let text = "55d0-7ffc ---p 00 00:00 0 [rollup]\nRss:  2000 kB\nPss:  1000 kB\nPss_Dirty:  500 kB\n";
        assert_eq!(parse_rollup(text), Some(Memory { proportional: 1_024_000, resident: 2_048_000 }));
        assert_eq!(parse_rollup("Rss: 1 kB\n"), None);
    }

    #[test]
    fn established_connections_of_the_server_are_counted() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:1F90 00000000:0000 0A 0\n\
            1: 0100007F:1F90 0101017F:8000 01 0\n\
            2: 0101017F:8000 0100007F:1F90 01 0\n\
            3: 0100007F:1F90 0101017F:8001 06 0\n";
        assert_eq!(count_established(table, 8080), 1);
        assert_eq!(count_established(table, 32768), 1);
        assert_eq!(count_established(table, 80), 0);
    }

    #[test]
    fn the_memory_of_this_process_can_be_read() {
        let memory = memory(std::process::id()).unwrap();
        assert!(memory.proportional > 0 && memory.proportional <= memory.resident);
    }
}
