//! One run: load from wrk or h2load, the server's CPU time around it, and the premises that make the figure mean something.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cases::{Case, Traffic};
use super::output::{Load, parse_h2load, parse_wrk};
use super::{LOAD_CORE, Sample, cpu};
use crate::peers::{Name, Origin, RULES, Server, blocked_path};
use crate::shell::{Workspace, output, shown};

/// Seconds of one measured run.
const SECONDS: u32 = 1;
/// Seconds of the run before the first measured one.
const WARM_UP_SECONDS: u32 = 1;
/// A run whose origin saw more new connections than one in this many requests did not reuse them.
const REQUESTS_PER_NEW_CONNECTION: u64 = 20;
/// New connections per second where handshakes are measured: what the slowest server and the load core both keep up with.
const HANDSHAKES_PER_SECOND: u32 = 500;
/// How often they come in each second.
const HANDSHAKE_BATCHES_PER_SECOND: u32 = 100;

/// What `clients.cnf` pins, and what each TLS connection must show.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";
const GROUP: &str = "X25519";

/// Bound to the load core, and to the one choice of TLS parameters.
fn client(workspace: &Workspace, program: &str) -> Command {
    let mut command = workspace.command("taskset");
    command.args(["--cpu-list", LOAD_CORE, program]);
    command.env("OPENSSL_CONF", workspace.root.join("benches/peers/clients.cnf"));
    command
}

fn url(case: &Case, server: &Server) -> String {
    let (scheme, port) =
        if case.traffic.tls() { ("https", server.tls_port) } else { ("http", server.plain_port) };
    format!("{scheme}://127.0.0.1:{port}{}", case.path)
}

/// One request by curl: status, version and size are what the case says; for TLS, one handshake by openssl as well.
pub fn probe(workspace: &Workspace, folder: &Path, case: &Case, server: &Server) -> Result<()> {
    let http2 = case.traffic == Traffic::Http2Tls;
    let version = if http2 { "--http2" } else { "--http1.1" };
    let format = "%{http_code} %{http_version} %{size_download}";
    let mut curl = client(workspace, "curl");
    curl.args(["-sSk", "--max-time", "10", "-o", "/dev/null", version, "-w", format, &url(case, server)]);
    let seen = output(&mut curl).with_context(|| format!("{} does not answer", server.name.shown()))?;
    let expected = format!("200 {} {}", if http2 { "2" } else { "1.1" }, case.body_bytes);
    let place = format!("{}, {}", case.name, server.name.shown());
    if seen != expected {
        bail!("{place}: expected `{expected}`, curl saw `{seen}`");
    }
    if !case.traffic.tls() {
        return Ok(());
    }
    let mut openssl = client(workspace, "openssl");
    openssl.args(["s_client", "-connect", &format!("127.0.0.1:{}", server.tls_port)]);
    openssl.args(["-servername", "localhost", "-alpn", case.traffic.protocol()]);
    let text = output(&mut openssl).with_context(|| format!("{place}: no handshake"))?;
    let certificate = fs::read_to_string(folder.join("chain.pem"))?;
    for expected in [
        certificate.trim(),
        &format!("New, TLSv1.3, Cipher is {CIPHER}"),
        &format!("Server Temp Key: {GROUP}, "),
        &format!("ALPN protocol: {}", case.traffic.protocol()),
        "Peer signature type: ECDSA",
    ] {
        if !text.contains(expected) {
            bail!("{place}: openssl did not see `{expected}`, but:\n{text}");
        }
    }
    Ok(())
}

/// The first and the last rule of their kind do what they say, and name themselves in the log; so all between them are there.
pub fn probe_rules(workspace: &Workspace, case: &Case, server: &Server) -> Result<()> {
    for number in [1, RULES - 9] {
        let url = format!("{}{}", url(case, server).trim_end_matches(case.path), blocked_path(number));
        let mut curl = client(workspace, "curl");
        curl.args(["-sS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", &url]);
        let seen = output(&mut curl)?;
        if seen != "403" {
            bail!("rule {number} of {RULES} is not carried out: {url} is answered with {seen}");
        }
    }
    Ok(())
}

/// Fills pools and caches.
pub fn warm_up(workspace: &Workspace, case: &Case, server: &Server) -> Result<()> {
    generate(workspace, case, server, WARM_UP_SECONDS).map(drop)
}

/// One measured run; an error when a premise does not hold.
pub fn sample(
    workspace: &Workspace,
    case: &Case,
    server: &Server,
    origin: &Origin,
    round: usize,
) -> Result<Sample> {
    let before = origin.counted()?;
    let cpu_before = cpu::spent(server.id())?;
    let load = generate(workspace, case, server, SECONDS)?;
    let cpu_after = cpu::spent(server.id())?;
    let after = origin.counted()?;
    let (requests, connections) = (after.requests - before.requests, after.connections - before.connections);
    believable(case, server.name, &load, requests, connections)
        .with_context(|| format!("{}, {}", case.name, server.name.shown()))?;
    Ok(Sample {
        case: case.name,
        server: server.name,
        round,
        requests: load.good,
        seconds: load.seconds,
        cpu_seconds: cpu::seconds(cpu_before, cpu_after, cpu::ticks_per_second()?),
    })
}

/// What must hold for a figure to mean anything; `requests` and new `connections` as the origin counted them.
fn believable(case: &Case, server: Name, load: &Load, requests: u64, connections: u64) -> Result<()> {
    if load.bad > 0 || load.good == 0 {
        bail!("{} answers with status 200, {} others or errors", load.good, load.bad);
    }
    if requests < load.good {
        bail!("{} answers, but only {requests} requests reached the origin", load.good);
    }
    // wrk rounds what it says it read.
    let bytes = load.good * case.body_bytes;
    if load.bytes < bytes - bytes / 100 {
        bail!("{} answers with {} bytes, fewer than {bytes}", load.good, load.bytes);
    }
    // The floor has one connection to the origin for each of its clients.
    let open = 2 + u64::from(case.connections * case.streams);
    if connections > open + load.good / REQUESTS_PER_NEW_CONNECTION {
        bail!("{connections} new connections to the origin for {} requests; they are not reused", load.good);
    }
    if case.traffic == Traffic::Handshakes && load.good != u64::from(HANDSHAKES_PER_SECOND * SECONDS) {
        bail!("{} answers on {} connections", load.good, HANDSHAKES_PER_SECOND * SECONDS);
    }
    let by_h2load = matches!(case.traffic, Traffic::Http2Tls | Traffic::Handshakes);
    let expected = by_h2load.then(|| expected_tls(case));
    if load.tls != expected {
        bail!("TLS of {} is {:?}, not {expected:?}", server.shown(), load.tls);
    }
    Ok(())
}

/// What h2load must say about its TLS connections.
fn expected_tls(case: &Case) -> String {
    format!("TLSv1.3 {CIPHER} {GROUP} 253 bits {}", case.traffic.protocol())
}

fn generate(workspace: &Workspace, case: &Case, server: &Server, seconds: u32) -> Result<Load> {
    let url = url(case, server);
    let connections = format!("-c{}", case.connections);
    let mut command = match case.traffic {
        Traffic::Http1 | Traffic::Http1Tls => {
            let mut wrk = client(workspace, "wrk");
            wrk.args(["-t1", &connections, &format!("-d{seconds}s"), "--timeout", "10s", &url]);
            wrk
        }
        Traffic::Http2Tls => {
            let mut h2load = h2load(workspace);
            h2load.args([&connections, &format!("-m{}", case.streams), &format!("-D{seconds}")]);
            h2load.args(["--warm-up-time=0", &url]);
            h2load
        }
        // As many connections as requests. wrk is of no use here: it resumes sessions when it connects again.
        Traffic::Handshakes => {
            let mut h2load = h2load(workspace);
            let total = HANDSHAKES_PER_SECOND * seconds;
            h2load.args(["--h1", &format!("-n{total}"), &format!("-c{total}")]);
            h2load.arg(format!("-r{}", HANDSHAKES_PER_SECOND / HANDSHAKE_BATCHES_PER_SECOND));
            h2load.arg(format!("--rate-period={}ms", 1000 / HANDSHAKE_BATCHES_PER_SECOND)).arg(&url);
            h2load
        }
    };
    let text = output(&mut command)?;
    let load = match case.traffic {
        Traffic::Http1 | Traffic::Http1Tls => parse_wrk(&text),
        Traffic::Http2Tls | Traffic::Handshakes => parse_h2load(&text),
    };
    load.with_context(|| format!("cannot read what `{}` printed:\n{text}", shown(&command)))
}

fn h2load(workspace: &Workspace) -> Command {
    let mut h2load = client(workspace, "h2load");
    // It sets its own list of suites and groups over those of clients.cnf.
    h2load.args(["-t1", &format!("--tls13-ciphers={CIPHER}"), &format!("--groups={GROUP}")]);
    h2load
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::cases::CASES;

    /// A run of as many requests as handshakes are asked for, and whether it counts.
    fn check(traffic: Traffic, change: fn(&mut Load, &mut u64, &mut u64), expected: &str) {
        let case = CASES.iter().find(|case| case.traffic == traffic).unwrap();
        let tls = (traffic != Traffic::Http1).then(|| expected_tls(case));
        let good = u64::from(HANDSHAKES_PER_SECOND * SECONDS);
        let mut load = Load { good, bad: 0, seconds: 1.0, bytes: good * 1_100, tls };
        let (mut requests, mut connections) = (good + 1, 33);
        change(&mut load, &mut requests, &mut connections);
        let result = believable(case, Name::Rempart, &load, requests, connections);
        match (result, expected) {
            (Ok(()), "") => {}
            (Err(error), part) if !part.is_empty() => {
                assert!(error.to_string().contains(part), "{error}, not {part}");
            }
            (result, part) => panic!("{result:?}, not {part}"),
        }
    }

    #[test]
    fn a_run_without_its_premise_does_not_count() {
        check(Traffic::Http1, |_, _, _| {}, "");
        check(Traffic::Http1, |load, _, _| load.bad = 1, "1 others or errors");
        check(Traffic::Http1, |load, _, _| load.good = 0, "0 answers");
        check(Traffic::Http1, |load, requests, _| *requests = load.good - 1, "requests reached the origin");
        check(Traffic::Http1, |load, _, _| load.bytes = load.good * 900, "fewer than");
        check(Traffic::Http1, |_, _, connections| *connections = 900, "not reused");
        check(Traffic::Handshakes, |_, _, _| {}, "");
        check(Traffic::Handshakes, |load, _, _| load.good -= 2, "answers on");
        check(Traffic::Handshakes, |load, _, _| load.tls = None, "TLS of Rempart");
        check(
            Traffic::Http2Tls,
            |load, _, _| load.tls = Some("TLSv1.3 TLS_AES_256_GCM_SHA384 X25519 253 bits h2".to_owned()),
            "TLS_AES_256_GCM_SHA384",
        );
    }
}
