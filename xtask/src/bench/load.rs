//! One run: load from wrk or h2load, the server's CPU time around it, and the premises that make the figure mean something.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cases::Case;
use super::{LOAD_CORE, Sample, cpu};
use crate::peers::{Origin, Server};
use crate::shell::{output, shown};

/// Seconds of one measured run.
const SECONDS: u32 = 3;
/// Seconds of the run before the first measured one.
const WARM_UP_SECONDS: u32 = 1;
/// A run whose origin saw more new connections than one in this many requests did not reuse them.
const REQUESTS_PER_NEW_CONNECTION: u64 = 20;

/// What a load generator reports.
#[derive(Debug, PartialEq)]
struct Load {
    /// Answers with status 2xx.
    good: u64,
    /// Other statuses, errors and timeouts.
    bad: u64,
    seconds: f64,
}

fn url(case: &Case, server: &Server) -> String {
    let (scheme, port) = if case.tls { ("https", server.tls_port) } else { ("http", server.plain_port) };
    format!("{scheme}://127.0.0.1:{port}{}", case.path)
}

/// One request by curl: status, version and size are what the case says.
pub fn probe(case: &Case, server: &Server) -> Result<()> {
    let version = if case.http2 { "--http2" } else { "--http1.1" };
    let format = "%{http_code} %{http_version} %{size_download}";
    let mut curl = Command::new("curl");
    curl.args(["-sSk", "--max-time", "10", "-o", "/dev/null", version, "-w", format, &url(case, server)]);
    let seen = output(&mut curl).with_context(|| format!("{} does not answer", server.name.shown()))?;
    let expected = format!("200 {} {}", if case.http2 { "2" } else { "1.1" }, case.body_bytes);
    if seen != expected {
        bail!("{}, {}: expected `{expected}`, curl saw `{seen}`", case.name, server.name.shown());
    }
    Ok(())
}

/// Fills pools and caches.
pub fn warm_up(case: &Case, server: &Server) -> Result<()> {
    generate(case, server, WARM_UP_SECONDS).map(drop)
}

/// One measured run; an error when a premise does not hold.
pub fn sample(case: &Case, server: &Server, origin: &Origin) -> Result<Sample> {
    let before = origin.counted()?;
    let cpu_before = cpu::ticks(server.id())?;
    let load = generate(case, server, SECONDS)?;
    let cpu_after = cpu::ticks(server.id())?;
    let after = origin.counted()?;
    let place = format!("{}, {}", case.name, server.name.shown());
    if load.bad > 0 || load.good == 0 {
        bail!("{place}: {} answers with status 200, {} others or errors", load.good, load.bad);
    }
    let reached = after.requests - before.requests;
    if reached < load.good {
        bail!("{place}: {} requests, but only {reached} reached the origin", load.good);
    }
    let connections = after.connections - before.connections;
    if connections > 2 + u64::from(case.connections * case.streams) + load.good / REQUESTS_PER_NEW_CONNECTION
    {
        bail!(
            "{place}: {connections} new connections to the origin for {} requests; they are not reused",
            load.good
        );
    }
    let cpu_seconds = (cpu_after - cpu_before) as f64 / cpu::ticks_per_second()?;
    Ok(Sample {
        case: case.name,
        server: server.name,
        requests: load.good,
        seconds: load.seconds,
        cpu_seconds,
    })
}

fn generate(case: &Case, server: &Server, seconds: u32) -> Result<Load> {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", LOAD_CORE]);
    let connections = format!("-c{}", case.connections);
    if case.http2 {
        let (streams, duration) = (format!("-m{}", case.streams), format!("-D{seconds}"));
        command.args([
            "h2load",
            "-t1",
            &connections,
            &streams,
            &duration,
            "--warm-up-time=0",
            &url(case, server),
        ]);
    } else {
        command.args([
            "wrk",
            "-t1",
            &connections,
            &format!("-d{seconds}s"),
            "--timeout",
            "10s",
            &url(case, server),
        ]);
    }
    let text = output(&mut command)?;
    let load = if case.http2 { parse_h2load(&text) } else { parse_wrk(&text) };
    load.with_context(|| format!("cannot read what `{}` printed:\n{text}", shown(&command)))
}

/// wrk: the count line, and lines that are only there when something went wrong.
fn parse_wrk(text: &str) -> Option<Load> {
    let line = text.lines().find(|line| line.contains(" requests in "))?.trim();
    let (requests, rest) = line.split_once(" requests in ")?;
    let (seconds, _) = rest.split_once("s,")?;
    let total: u64 = requests.parse().ok()?;
    let statuses = text.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let statuses: u64 = statuses.map_or(Some(0), |count| count.parse().ok())?;
    let errors: u64 = match text.lines().find_map(|line| line.trim().strip_prefix("Socket errors: ")) {
        Some(counts) => counts.split([',', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum(),
        None => 0,
    };
    Some(Load { good: total.checked_sub(statuses)?, bad: statuses + errors, seconds: seconds.parse().ok()? })
}

/// h2load: `finished in`, `requests:` and `status codes:`.
fn parse_h2load(text: &str) -> Option<Load> {
    let finished = text.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let (time, _) = finished.split_once(',')?;
    let seconds = match time.strip_suffix("ms") {
        Some(milliseconds) => milliseconds.parse::<f64>().ok()? / 1000.0,
        None => time.strip_suffix('s')?.parse().ok()?,
    };
    let requests = text.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let of = |list: &str, name: &str| -> Option<u64> {
        list.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok())
    };
    let statuses = text.lines().find_map(|line| line.strip_prefix("status codes: "))?;
    let good = of(statuses, "2xx")?;
    let others = of(statuses, "3xx")? + of(statuses, "4xx")? + of(statuses, "5xx")?;
    let failed = of(requests, "failed")? + of(requests, "errored")? + of(requests, "timeout")?;
    Some(Load { good, bad: others.max(failed), seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let good = "  Latency 121us\n  49386 requests in 1.00s, 7.91MB read\nRequests/sec:  49352.79\n";
        assert_eq!(parse_wrk(good), Some(Load { good: 49386, bad: 0, seconds: 1.0 }));
        let bad = "  30 requests in 2.50s, 8MB read\n  Socket errors: connect 0, read 3, write 0, timeout 2\n  Non-2xx or 3xx responses: 10\n";
        assert_eq!(parse_wrk(bad), Some(Load { good: 20, bad: 15, seconds: 2.5 }));
        assert_eq!(parse_wrk("unable to connect"), None);
    }

    #[test]
    fn h2load_is_read() {
        let text = |statuses: &str, failed: u32| {
            format!(
                "finished in 1.00s, 51760.00 req/s, 8.28MB/s\nrequests: 60 total, 64 started, 60 done, 50 succeeded, \
                 {failed} failed, 0 errored, 0 timeout\nstatus codes: {statuses}\n"
            )
        };
        let good = parse_h2load(&text("60 2xx, 0 3xx, 0 4xx, 0 5xx", 0));
        assert_eq!(good, Some(Load { good: 60, bad: 0, seconds: 1.0 }));
        let bad = parse_h2load(&text("50 2xx, 0 3xx, 0 4xx, 10 5xx", 10));
        assert_eq!(bad, Some(Load { good: 50, bad: 10, seconds: 1.0 }));
        assert_eq!(parse_h2load("nothing"), None);
    }
}
