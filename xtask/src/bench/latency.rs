//! What each server adds to the origin's latency: one connection to each, one request at a time, taking turns.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::LOAD_CORE;
use crate::peers::{Name, Origin, Server};

/// Requests in a row to the same server before the next one's turn.
const TURN_REQUESTS: usize = 100;
/// Measured turns of each server in one round, after one that is not measured.
const TURNS: usize = 30;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes an answer may have.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Bytes of the body asked for.
const BODY_BYTES: usize = 1024;
const REQUEST: &[u8] = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// One round's latency of the origin, straight or through a server.
#[derive(Clone, Debug)]
pub struct Delay {
    pub round: usize,
    /// `None`: straight to the origin.
    pub through: Option<Name>,
    /// Microseconds that half of the requests took at most.
    pub p50: f64,
    /// Microseconds that 99 of 100 requests took at most.
    pub p99: f64,
}

/// One connection and what was measured on it.
struct Target {
    through: Option<Name>,
    stream: TcpStream,
    micros: Vec<f64>,
}

/// One round over the origin itself and all servers.
pub fn round(round: usize, servers: &[Server], origin: &Origin) -> Result<Vec<Delay>> {
    let mut ports = vec![(None, origin.port)];
    ports.extend(servers.iter().map(|server| (Some(server.name), server.plain_port)));
    let before = origin.counted()?;
    // A thread of its own, because the core it is bound to is not given back.
    let measured = std::thread::scope(|scope| scope.spawn(|| measure(&ports)).join());
    let targets = measured.map_err(|_| anyhow!("the latency client came to an unexpected end"))??;
    let reached = origin.counted()?.requests - before.requests;
    let sent = targets.len() * TURN_REQUESTS * (TURNS + 1);
    if reached < sent as u64 {
        bail!("latency: {sent} requests, but only {reached} reached the origin");
    }
    targets
        .into_iter()
        .map(|mut target| {
            let of = |share| percentile(&mut target.micros, share).context("nothing was measured");
            let [p50, p99] = [0.5, 0.99].map(of);
            Ok(Delay { round, through: target.through, p50: p50?, p99: p99? })
        })
        .collect()
}

fn measure(ports: &[(Option<Name>, u16)]) -> Result<Vec<Target>> {
    let mut core = CpuSet::new();
    core.set(LOAD_CORE.parse()?);
    sched_setaffinity(None, &core).context("cannot bind the latency client to its core")?;
    let mut targets = Vec::new();
    for &(through, port) in ports {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        targets.push(Target { through, stream, micros: Vec::with_capacity(TURN_REQUESTS * TURNS) });
    }
    let mut buffer = vec![0; MAX_ANSWER_BYTES];
    for turn in 0..=TURNS {
        for target in &mut targets {
            for _ in 0..TURN_REQUESTS {
                let name = target.through.map_or("the origin", Name::shown);
                let time =
                    exchange(&mut target.stream, &mut buffer).with_context(|| format!("latency, {name}"))?;
                if turn > 0 {
                    target.micros.push(time.as_secs_f64() * 1e6);
                }
            }
        }
    }
    Ok(targets)
}

/// One request and its whole answer, which must be a 200 of the right size on a connection that stays.
fn exchange(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<Duration> {
    let started = Instant::now();
    stream.write_all(REQUEST)?;
    let mut received = 0;
    loop {
        let room =
            buffer.get_mut(received..).filter(|room| !room.is_empty()).context("too long an answer")?;
        match stream.read(room)? {
            0 => bail!("the connection was closed"),
            count => received += count,
        }
        let answer = buffer.get(..received).unwrap_or_default();
        if let Some(expected) = answer_bytes(answer)? {
            if received > expected {
                bail!("{} bytes more than the answer has", received - expected);
            }
            if received == expected {
                return Ok(started.elapsed());
            }
        }
    }
}

/// Bytes of head and body together; `None` while the head is not complete.
fn answer_bytes(received: &[u8]) -> Result<Option<usize>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(received.get(..end).unwrap_or_default())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 200 ") {
        bail!("not a 200: {status}");
    }
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    match length {
        Some(Ok(BODY_BYTES)) => Ok(Some(end + 4 + BODY_BYTES)),
        _ => bail!("not an answer of {BODY_BYTES} bytes: {head}"),
    }
}

/// The smallest value that the share of all does not exceed (nearest rank).
fn percentile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.max(1) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut hundred, 0.5), Some(50.0));
        assert_eq!(percentile(&mut hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&mut [7.0], 0.99), Some(7.0));
        assert_eq!(percentile(&mut [], 0.5), None);
    }

    #[test]
    fn only_a_200_of_the_right_size_is_an_answer() {
        let head = "HTTP/1.1 200 OK\r\ncontent-LENGTH: 1024\r\n\r\n";
        assert_eq!(answer_bytes(head.as_bytes()).unwrap(), Some(head.len() + 1024));
        assert_eq!(answer_bytes(&head.as_bytes()[..20]).unwrap(), None);
        assert!(answer_bytes(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1024\r\n\r\n").is_err());
        assert!(answer_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").is_err());
        assert!(answer_bytes(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
