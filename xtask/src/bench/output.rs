//! What the load generators print, as figures.

/// What a load generator reports.
#[derive(Debug, PartialEq)]
pub struct Load {
    /// Answers with status 2xx.
    pub good: u64,
    /// Other statuses, errors and timeouts.
    pub bad: u64,
    pub seconds: f64,
    /// Bytes received: with h2load those of bodies alone, with wrk all, rounded to two decimals of its unit.
    pub bytes: u64,
    /// Version, cipher suite, group and protocol; only h2load says them.
    pub tls: Option<String>,
}

/// wrk: the count line, and lines that are only there when something went wrong.
pub fn parse_wrk(text: &str) -> Option<Load> {
    let line = text.lines().find(|line| line.contains(" requests in "))?.trim();
    let (requests, rest) = line.split_once(" requests in ")?;
    let (seconds, read) = rest.split_once("s, ")?;
    let total: u64 = requests.parse().ok()?;
    let statuses = text.lines().find_map(|line| line.trim().strip_prefix("Non-2xx or 3xx responses: "));
    let statuses: u64 = statuses.map_or(Some(0), |count| count.parse().ok())?;
    let errors: u64 = match text.lines().find_map(|line| line.trim().strip_prefix("Socket errors: ")) {
        Some(counts) => counts.split([',', ' ']).filter_map(|word| word.parse::<u64>().ok()).sum(),
        None => 0,
    };
    Some(Load {
        good: total.checked_sub(statuses)?,
        bad: statuses + errors,
        seconds: seconds.parse().ok()?,
        bytes: parse_size(read.strip_suffix(" read")?)?,
        tls: None,
    })
}

/// `7.91MB`, of 1024 bytes a KB.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let power =
        ["B", "KB", "MB", "GB", "TB"].iter().position(|unit| text.strip_prefix(digits) == Some(unit))?;
    let value: f64 = digits.parse().ok()?;
    Some((value * 1024_f64.powi(i32::try_from(power).ok()?)) as u64)
}

/// h2load: `finished in`, `requests:`, `status codes:` and `traffic:`, and what it says about TLS.
pub fn parse_h2load(text: &str) -> Option<Load> {
    let line = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    let (time, _) = line("finished in ")?.split_once(',')?;
    let seconds = match time.strip_suffix("ms") {
        Some(milliseconds) => milliseconds.parse::<f64>().ok()? / 1000.0,
        None => time.strip_suffix('s')?.parse().ok()?,
    };
    let of = |list: &str, name: &str| -> Option<u64> {
        list.split(", ").find_map(|part| part.strip_suffix(name)?.trim().parse().ok())
    };
    let (requests, statuses) = (line("requests: ")?, line("status codes: ")?);
    let good = of(statuses, "2xx")?;
    let others = of(statuses, "3xx")? + of(statuses, "4xx")? + of(statuses, "5xx")?;
    let failed = of(requests, "failed")? + of(requests, "errored")? + of(requests, "timeout")?;
    let (_, bytes) = line("traffic: ")?.strip_suffix(" data")?.rsplit_once('(')?;
    let parts = ["TLS Protocol: ", "Cipher: ", "Server Temp Key: ", "Application protocol: "].map(line);
    let tls: Option<Vec<&str>> = parts.into_iter().collect();
    Some(Load {
        good,
        bad: others.max(failed),
        seconds,
        bytes: bytes.strip_suffix(')')?.parse().ok()?,
        tls: tls.map(|parts| parts.join(" ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read() {
        let good = "  Latency 121us\n  49386 requests in 1.00s, 7.50MB read\nRequests/sec:  49352.79\n";
        let expected = Load { good: 49386, bad: 0, seconds: 1.0, bytes: 7_864_320, tls: None };
        assert_eq!(parse_wrk(good), Some(expected));
        let bad = "  30 requests in 2.50s, 8.00B read\n  Socket errors: connect 0, read 3, write 0, timeout 2\n  Non-2xx or 3xx responses: 10\n";
        assert_eq!(parse_wrk(bad), Some(Load { good: 20, bad: 15, seconds: 2.5, bytes: 8, tls: None }));
        assert_eq!(parse_wrk("unable to connect"), None);
        assert_eq!(parse_wrk("  30 requests in 2.50s, 8.00XB read\n"), None);
    }

    #[test]
    fn h2load_is_read() {
        let text = |statuses: &str, failed: u32| {
            format!(
                "finished in 1.00s, 51760.00 req/s, 8.28MB/s\nrequests: 60 total, 64 started, 60 done, 50 succeeded, \
                 {failed} failed, 0 errored, 0 timeout\nstatus codes: {statuses}\n\
                 traffic: 1.5KB (1536) total, 512B (512) headers (space savings 0.00%), 1.0KB (1024) data\n"
            )
        };
        let plain = parse_h2load(&text("60 2xx, 0 3xx, 0 4xx, 0 5xx", 0));
        assert_eq!(plain, Some(Load { good: 60, bad: 0, seconds: 1.0, bytes: 1024, tls: None }));
        let bad = parse_h2load(&text("50 2xx, 0 3xx, 0 4xx, 10 5xx", 10)).unwrap();
        assert_eq!((bad.good, bad.bad), (50, 10));
        let tls =
            "TLS Protocol: TLSv1.3\nCipher: A\nServer Temp Key: X25519 253 bits\nApplication protocol: h2\n";
        let seen = parse_h2load(&format!("{tls}{}", text("1 2xx, 0 3xx, 0 4xx, 0 5xx", 0))).unwrap();
        assert_eq!(seen.tls.as_deref(), Some("TLSv1.3 A X25519 253 bits h2"));
        assert_eq!(parse_h2load("nothing"), None);
    }
}
