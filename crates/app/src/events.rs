//! `rempart events`: asks analytics, and shows what it tells line by line.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use api::analytics::{Filter, Item, MAX_ITEM_BYTES, Query, RequestView};
use base::happening::{Happening, Severity};
use base::time::Timestamp;
use clap::Args;

use crate::builder::now;
use crate::cli::Place;
use crate::report::Terminal;
use crate::{EXIT_OK, EXIT_UNREACHED, run, state};

/// Events shown unless told otherwise, and before those that follow.
const LIMIT: u32 = 100;
const LIMIT_BEFORE_FOLLOWING: u32 = 10;
/// Time an answer may take that does not follow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `events`.
#[derive(Args, Debug)]
pub struct EventsArguments {
    /// Show new events as they come, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// Only events of this site.
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Only requests with this status: 404, 5xx or 500-504. Operational events are left out.
    #[arg(long, value_name = "STATUS", value_parser = statuses)]
    status: Option<(u16, u16)>,
    /// Only events of this kind.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Only events that are younger, such as 90s, 10m or 2h. Of longer ago there are samples only.
    #[arg(long, value_name = "DURATION", value_parser = snapshot::units::Period::parse)]
    since: Option<snapshot::units::Period>,
    /// The last so many [default: 100, with --follow 10 before those that come].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    limit: Option<u32>,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

/// A kind of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Requests that have ended.
    Requests,
    /// What happened to Rempart itself.
    Operations,
}

/// `404`, `5xx` or `500-504`.
fn statuses(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|status| *status <= 999);
    let class = text.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok()).filter(|it| *it <= 9);
    let range = match (class, text.split_once('-')) {
        (Some(class), _) => Some((class * 100, class * 100 + 99)),
        (None, Some((from, to))) => number(from).zip(number(to)),
        (None, None) => number(text).map(|status| (status, status)),
    };
    range.filter(|(from, to)| from <= to).ok_or_else(|| "write 404, 5xx or 500-504".to_owned())
}

/// A connection to analytics with a question asked.
pub struct Asked(BufReader<UnixStream>);

impl Asked {
    /// The next item; `None` at the end. A question that is refused is an error.
    pub fn next(&mut self) -> anyhow::Result<Option<Item>> {
        let mut line = Vec::new();
        let read = io::Read::take(&mut self.0, MAX_ITEM_BYTES as u64).read_until(b'\n', &mut line);
        if read.context("analytics does not answer")? == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&line).context("analytics answered what cannot be read")? {
            Item::End => Ok(None),
            Item::Refused { message } => bail!(message),
            item => Ok(Some(item)),
        }
    }

    fn wait(&self, limit: Option<Duration>) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(limit)
    }
}

/// Asks the analytics that is meant: of the Rempart named, else of the usual one, else of the demo.
pub fn ask(place: &Place, query: &Query) -> anyhow::Result<Asked> {
    let (usual, demo) = (run::places(place, false).0, run::places(place, true).0);
    let [usual, demo]: [PathBuf; 2] = [state::analytics(&usual), state::analytics(&demo)];
    let socket = if usual.exists() || !demo.exists() { usual } else { demo };
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!(
            "no analytics answers at {}; `rempart status` shows whether Rempart runs, and [analytics] in its \
             configuration whether events are on",
            socket.display()
        )
    })?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(query)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(Asked(BufReader::new(stream)))
}

/// `rempart events`.
pub fn events(arguments: &EventsArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    let requests = arguments.kind != Some(Kind::Operations);
    let operations = arguments.kind != Some(Kind::Requests) && arguments.status.is_none();
    if !requests && arguments.status.is_some() {
        bail!("--status is about requests; leave out --kind operations");
    }
    let since = arguments.since.map(|period| {
        let micros = u64::try_from(Duration::from(period).as_micros()).unwrap_or(u64::MAX);
        Timestamp(now().0.saturating_sub(micros))
    });
    let filter =
        Filter { requests, operations, site: arguments.site.clone(), status: arguments.status, since };
    let limit = arguments.limit.unwrap_or(if arguments.follow { LIMIT_BEFORE_FOLLOWING } else { LIMIT });
    let query = Query::Events { filter, limit, follow: arguments.follow };
    let mut asked = match ask(&arguments.place, &query) {
        Ok(asked) => asked,
        Err(error) => {
            terminal.complain(&format!("rempart: {error:#}"));
            return Ok(EXIT_UNREACHED);
        }
    };
    let mut out = Out { json: terminal.json, colour: terminal.colour, day: String::new(), shown: 0 };
    while let Some(item) = asked.next()? {
        if item == Item::Caught {
            asked.wait(None)?;
        }
        // Who reads this has seen enough.
        if out.show(&item).is_err() {
            return Ok(EXIT_OK);
        }
    }
    if out.shown == 0 && !terminal.json && !arguments.follow && io::stdout().is_terminal() {
        terminal.complain("no such events");
    }
    Ok(EXIT_OK)
}

/// Lines for people, or JSON for scripts.
struct Out {
    json: bool,
    colour: bool,
    /// The day of the last line.
    day: String,
    shown: u64,
}

impl Out {
    fn show(&mut self, item: &Item) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            if *item != Item::Caught {
                serde_json::to_writer(&mut out, item)?;
                writeln!(out)?;
            }
            return out.flush();
        }
        let (at, line) = match item {
            Item::Request(request) => (request.at, request_line(request, self.colour)),
            Item::Happening(happening) => (happening.at, happening_line(happening, self.colour)),
            Item::Missed { requests } => {
                (now(), format!("-- {requests} requests are not shown: too many at once"))
            }
            _ => return out.flush(),
        };
        self.shown += 1;
        let (day, time) = day_and_time(at);
        if day != self.day {
            writeln!(out, "{}", paint(self.colour, "2", &format!("{day}, times in UTC")))?;
            self.day = day;
        }
        writeln!(out, "{} {line}", paint(self.colour, "2", &time))?;
        out.flush()
    }
}

/// `2026-11-23` and `09:30:00.123`.
pub fn day_and_time(at: Timestamp) -> (String, String) {
    let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
    let Ok(time) = jiff::Timestamp::from_microsecond(micros) else {
        return ("in the far future".to_owned(), "--:--:--.---".to_owned());
    };
    (
        time.strftime("%Y-%m-%d").to_string(),
        format!("{}.{:03}", time.strftime("%H:%M:%S"), at.0 / 1000 % 1000),
    )
}

pub fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// What visitors send must not move the cursor.
pub fn clean(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn request_line(request: &RequestView, colour: bool) -> String {
    let code = match request.status {
        500.. => "31",
        400.. => "33",
        0 => "35",
        _ => "32",
    };
    let status = if request.status == 0 { "---".to_owned() } else { request.status.to_string() };
    let mut line = format!(
        "{} {:<4} {}{}  {}  {}  {}  {}",
        paint(colour, code, &status),
        clean(&request.method),
        clean(&request.host),
        clean(&request.target),
        duration(request.duration_us),
        bytes(request.bytes_out),
        request.network,
        request.protocol,
    );
    if let Some(site) = &request.site {
        line += &format!("  {site}");
    }
    if request.completion != "complete" {
        line += &format!("  {}", request.completion);
    }
    if let Some(reason) = &request.reason {
        let fault = request.fault.as_deref().unwrap_or("nobody");
        line += &paint(colour, code, &format!("  {fault}: {reason}"));
    }
    for verdict in &request.verdicts {
        line += &format!("  [{} {}: {}]", verdict.module, verdict.outcome, clean(&verdict.reason));
    }
    if request.weight > 1 {
        line += &format!("  (one of {})", request.weight);
    }
    line
}

/// One line for something that happened.
pub fn happening_line(happening: &Happening, colour: bool) -> String {
    let code = match happening.severity {
        Severity::Info => "1",
        Severity::Warning => "1;33",
        Severity::Critical => "1;31",
    };
    let mut line = paint(colour, code, &format!("** {}", clean(&happening.message)));
    let concerned = happening.site.iter().chain(&happening.subject);
    let named: Vec<_> =
        concerned.filter(|name| !happening.message.contains(*name)).map(|name| clean(name)).collect();
    if !named.is_empty() {
        line += &format!("  {}", named.join(", "));
    }
    if let Some(by) = &happening.by {
        line += &format!("  by {}", clean(by));
    }
    line
}

/// `850 us`, `2.3 ms`, `1.2 s`.
pub fn duration(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{:.0} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

/// `512 B`, `18.2 kB`, `3.4 MB`: decimal, as traffic is sold.
pub fn bytes(count: u64) -> String {
    let scaled = count as f64;
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", scaled / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", scaled / 1e6),
        _ => format!("{:.1} GB", scaled / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        for (text, expected) in [
            ("404", Some((404, 404))),
            ("5xx", Some((500, 599))),
            ("500-504", Some((500, 504))),
            ("0", Some((0, 0))),
            ("504-500", None),
            ("xx", None),
            ("77xx", None),
            ("1000", None),
            ("", None),
        ] {
            assert_eq!(statuses(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_line_tells_what_matters_and_cannot_move_the_cursor() {
        let request = RequestView {
            method: "GET".into(),
            host: "shop.example".into(),
            target: "/\u{1b}[2J\u{9b}?a=1".into(),
            network: "203.0.113.0".into(),
            protocol: "h2".into(),
            site: Some("shop".into()),
            status: 502,
            fault: Some("origin".into()),
            reason: Some("origin_connect_refused".into()),
            completion: "complete".into(),
            bytes_out: 18_234,
            duration_us: 2_311,
            weight: 4,
            ..RequestView::default()
        };
        assert_eq!(
            request_line(&request, false),
            "502 GET  shop.example/\u{fffd}[2J\u{fffd}?a=1  2.3 ms  18.2 kB  203.0.113.0  h2  shop  \
             origin: origin_connect_refused  (one of 4)"
        );
        let (day, time) = day_and_time(Timestamp(1_700_000_000_123_456));
        assert_eq!((day.as_str(), time.as_str()), ("2023-11-14", "22:13:20.123"));
    }
}
