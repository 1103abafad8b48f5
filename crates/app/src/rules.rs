//! `rempart rules`: says why an expression holds for a request, which way a request would go, and what rules did or would have
//! done.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use api::analytics::{Item, Query};
use base::time::Timestamp;
use clap::{Args, Subcommand, ValueHint};
use edge::generation::{Generation, SiteRuntime};
use edge::rules::imagine::{self, Given, Imagined, Station};
use edge::telemetry::access_log::LogCounts;
use edge::telemetry::metrics::Metrics;
use expr::{Filter, Options, Truth};
use serde_json::json;
use snapshot::units::Period;
use snapshot::{Mode, command_line_config};

use crate::builder::{Builder, now};
use crate::cli::Place;
use crate::events::clean;
use crate::report::Terminal;
use crate::{EXIT_OK, EXIT_REFUSED, EXIT_UNREACHED, run, sources};

/// Largest file with a request, in bytes.
const MAX_REQUEST: u64 = 4 << 20;

/// Arguments of `rules`.
#[derive(Args, Debug)]
pub struct RulesArguments {
    /// What to do.
    #[command(subcommand)]
    command: RulesCommand,
    /// Where the running Rempart is found.
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum RulesCommand {
    /// Say of each part of an expression whether it holds for a request, and why.
    Test(TestArguments),
    /// Show the phases a request would go through, and what the rules in them would make of it.
    Trace(TraceArguments),
    /// Show how often each rule matched, those that are only noted included.
    Report {
        /// How far back, such as 1h or 7d.
        #[arg(long, default_value = "24h", value_parser = period)]
        since: Period,
        /// Only this site.
        #[arg(long)]
        site: Option<String>,
    },
}

#[derive(Args, Debug)]
struct TestArguments {
    /// The expression.
    #[arg(long, value_name = "EXPRESSION")]
    expr: String,
    /// File with the request, as it is sent: `GET /path HTTP/1.1`, fields, an empty line, the body.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    request: PathBuf,
    #[command(flatten)]
    about: About,
}

#[derive(Args, Debug)]
struct TraceArguments {
    /// The URL that is asked for.
    url: String,
    /// The method.
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// A header field, as `Name: value`.
    #[arg(long = "header", short = 'H', value_name = "FIELD")]
    headers: Vec<String>,
    /// The body.
    #[arg(long, default_value = "")]
    body: String,
    #[command(flatten)]
    about: About,
}

/// What else is known of a request nobody has sent.
#[derive(Args, Debug)]
struct About {
    /// Whose request it is.
    #[arg(long, default_value = "192.0.2.1")]
    ip: IpAddr,
    /// The status the origin would answer with.
    #[arg(long, default_value_t = 200)]
    status: u16,
    /// The value of a field, such as ip.src.country=FR or cf.bot_management.score=unknown.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// Configuration file [default: rempart.toml here, else /etc/rempart/rempart.toml, else none].
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

fn period(text: &str) -> Result<Period, String> {
    Period::parse(text).map_err(|error| format!("it {error}"))
}

/// Runs one of the commands.
pub fn run(arguments: &RulesArguments, terminal: &Terminal) -> anyhow::Result<u8> {
    match &arguments.command {
        RulesCommand::Test(test) => self::test(test, &arguments.place, terminal),
        RulesCommand::Trace(trace) => self::trace(trace, &arguments.place, terminal),
        RulesCommand::Report { since, site } => report(*since, site.as_deref(), &arguments.place, terminal),
    }
}

fn test(arguments: &TestArguments, place: &Place, terminal: &Terminal) -> anyhow::Result<u8> {
    let size = std::fs::metadata(&arguments.request).map(|found| found.len());
    let file = arguments.request.display();
    if size.with_context(|| format!("{file} cannot be read"))? > MAX_REQUEST {
        bail!("{file} is larger than {MAX_REQUEST} bytes");
    }
    let bytes = std::fs::read(&arguments.request).with_context(|| format!("{file} cannot be read"))?;
    let imagined = request(&bytes, &arguments.about).with_context(|| format!("{file} holds no request"))?;
    let filter = match Filter::parse(&arguments.expr, &Options::default()) {
        Ok(filter) => filter,
        Err(error) => {
            terminal.complain(&error.to_string());
            return Ok(EXIT_REFUSED);
        }
    };
    let generation = generation(&arguments.about, place, false)?;
    let site = site_of(&generation, &imagined.authority)?;
    let lines = imagine::explain(&filter, &generation, site, &imagined);
    if terminal.json {
        let lines: Vec<_> = lines
            .iter()
            .map(|line| {
                json!({ "depth": line.depth, "text": line.text, "truth": word(line.truth), "value": line.value })
            })
            .collect();
        terminal.print_json(&json!({ "explained": lines }));
        return Ok(EXIT_OK);
    }
    let mut text = String::new();
    for line in &lines {
        let value = line.value.as_ref().map(|value| format!("   [{}]", clean(value))).unwrap_or_default();
        let front = "  ".repeat(line.depth);
        // Writing to a `String` cannot fail.
        let _written = writeln!(text, "{:<8}{front}{}{value}", word(line.truth), one_line(&line.text));
    }
    terminal.print(&text);
    Ok(EXIT_OK)
}

fn trace(arguments: &TraceArguments, place: &Place, terminal: &Terminal) -> anyhow::Result<u8> {
    let (scheme, rest) = arguments.url.split_once("://").context("a URL begins with https:// or http://")?;
    let https = match scheme {
        "https" => true,
        "http" => false,
        other => bail!("{other} is neither http nor https"),
    };
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let target = target.split('#').next().unwrap_or_default();
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let fields = arguments.headers.iter().map(|line| field(line)).collect::<anyhow::Result<_>>()?;
    let imagined = Imagined {
        method: arguments.method.parse().context("that is no method")?,
        https,
        authority: authority.to_owned(),
        target,
        fields,
        body: arguments.body.clone().into_bytes(),
        ..imagined(&arguments.about)?
    };
    let generation = generation(&arguments.about, place, true)?;
    let site = site_of(&generation, &imagined.authority)?;
    let stations = imagine::trace(&generation, site, &imagined);
    if terminal.json {
        let stations: Vec<_> = stations.iter().map(station_json).collect();
        terminal.print_json(&json!({ "site": &*site.site.name, "phases": stations }));
    } else {
        terminal.print(&shown(site, &stations));
    }
    Ok(EXIT_OK)
}

fn station_json(station: &Station) -> serde_json::Value {
    let rules: Vec<_> = station
        .rules
        .iter()
        .map(|rule| json!({ "id": rule.id, "action": rule.action, "place": rule.place, "fate": rule.fate }))
        .collect();
    json!({ "phase": station.phase.name(), "skipped": station.skipped, "rules": rules, "target": station.target, "end": station.end })
}

fn shown(site: &SiteRuntime, stations: &[Station]) -> String {
    let mut text = format!("site {}\n", clean(&site.site.name));
    // Writing to a `String` cannot fail.
    for station in stations {
        let skipped = if station.skipped { " (skipped by a rule)" } else { "" };
        let _written = writeln!(text, "{}{skipped}", station.phase.name());
        for rule in &station.rules {
            let _written = writeln!(text, "  {:<24} {:<18} {}", clean(&rule.id), rule.action, rule.fate);
        }
        if let Some(target) = &station.target {
            let _written = writeln!(text, "  now {}", clean(target));
        }
        if let Some(end) = &station.end {
            let _written = writeln!(text, "  answered: {}", clean(end));
        }
    }
    let ended = stations.iter().any(|station| station.end.is_some());
    text.push_str(match (stations.is_empty(), ended) {
        (true, _) => "no rule matches: the origin is asked\n",
        (false, false) => "the origin is asked\n",
        (false, true) => "",
    });
    text
}

/// How often each rule matched, by what is kept of events.
fn report(since: Period, site: Option<&str>, place: &Place, terminal: &Terminal) -> anyhow::Result<u8> {
    let seconds = std::time::Duration::from(since).as_secs();
    let from = Timestamp(now().0.saturating_sub(seconds.saturating_mul(1_000_000)));
    let query = Query::Minutes { since: from, site: site.map(str::to_owned) };
    let mut asked = match crate::events::ask(place, &query) {
        Ok(asked) => asked,
        Err(error) => {
            terminal.complain(&format!("rempart: {error:#}"));
            return Ok(EXIT_UNREACHED);
        }
    };
    let mut counts: BTreeMap<(String, String, String, String), u64> = BTreeMap::new();
    while let Some(item) = asked.next()? {
        match item {
            Item::Minute(minute) => {
                let site = minute.site.clone().unwrap_or_default();
                for verdict in &minute.details.verdicts {
                    let mut words = verdict.name.splitn(3, ' ');
                    if let (Some(module), Some(outcome), Some(rule)) =
                        (words.next(), words.next(), words.next())
                        && module.ends_with("-rules")
                    {
                        let key = (site.clone(), rule.to_owned(), module.to_owned(), outcome.to_owned());
                        *counts.entry(key).or_default() += verdict.count;
                    }
                }
            }
            Item::Caught => break,
            _ => {}
        }
    }
    if terminal.json {
        let rules: Vec<_> = counts
            .iter()
            .map(|((site, rule, module, outcome), count)| {
                json!({ "site": site, "rule": rule, "module": module, "outcome": outcome, "requests": count })
            })
            .collect();
        terminal.print_json(&json!({ "since": from.seconds(), "rules": rules }));
        return Ok(EXIT_OK);
    }
    let mut text = format!("{:<16} {:<24} {:<18} requests, last {since}\n", "site", "rule", "what");
    for ((site, rule, _, outcome), count) in &counts {
        // Writing to a `String` cannot fail.
        let _written = writeln!(text, "{:<16} {:<24} {outcome:<18} {count}", clean(site), clean(rule));
    }
    if counts.is_empty() {
        text.push_str("no rule matched\n");
    }
    terminal.print(&text);
    Ok(EXIT_OK)
}

fn word(truth: Truth) -> &'static str {
    match truth {
        Truth::True => "true",
        Truth::False => "false",
        Truth::Unknown => "unknown",
    }
}

fn one_line(text: &str) -> String {
    clean(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn imagined(about: &About) -> anyhow::Result<Imagined> {
    let given = about.set.iter().map(|text| given(text)).collect::<anyhow::Result<_>>()?;
    Ok(Imagined {
        method: "GET".parse().context("GET is a method")?,
        https: false,
        authority: String::new(),
        target: "/".to_owned(),
        fields: Vec::new(),
        body: Vec::new(),
        address: about.ip,
        at: now(),
        status: about.status,
        given,
    })
}

fn given(text: &str) -> anyhow::Result<(expr::FieldId, Given)> {
    let (name, value) = text.split_once('=').with_context(|| format!("{text:?}: write FIELD=VALUE"))?;
    let Some(field) = expr::fields::find(name) else {
        let near =
            expr::fields::suggest(name).map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        bail!("there is no field {name:?}{near}");
    };
    let kind = field.field().kind;
    let given = Given::parse(field, value)
        .with_context(|| format!("{name} is of type {kind}, and {value:?} is none; `unknown` always is"))?;
    Ok((field, given))
}

fn field(line: &str) -> anyhow::Result<(String, String)> {
    let (name, value) =
        line.split_once(':').with_context(|| format!("{line:?}: a field is `Name: value`"))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A request as it is sent.
fn request(bytes: &[u8], about: &About) -> anyhow::Result<Imagined> {
    let end = |mark: &[u8]| {
        bytes.windows(mark.len()).position(|window| window == mark).map(|at| (at, at + mark.len()))
    };
    let (head_end, body_start) =
        end(b"\r\n\r\n").or_else(|| end(b"\n\n")).unwrap_or((bytes.len(), bytes.len()));
    let head = String::from_utf8_lossy(bytes.get(..head_end).unwrap_or_default());
    let mut lines = head.lines().skip_while(|line| line.trim().is_empty());
    let start = lines.next().context("it is empty")?;
    let mut words = start.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        bail!("the first line is {start:?}, and should be like: GET /path HTTP/1.1");
    };
    let (mut authority, mut fields) = (String::new(), Vec::new());
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let (name, value) = field(line)?;
        if name.eq_ignore_ascii_case("host") {
            authority = value;
        } else {
            fields.push((name, value));
        }
    }
    Ok(Imagined {
        method: method.parse().with_context(|| format!("{method:?} is no method"))?,
        authority,
        target: target.to_owned(),
        fields,
        body: bytes.get(body_start..).unwrap_or_default().to_vec(),
        ..imagined(about)?
    })
}

/// The generation of the configuration; without one, and where none is needed, a site for every host.
fn generation(about: &About, place: &Place, needed: bool) -> anyhow::Result<Generation> {
    let path = about.config.clone().unwrap_or_else(run::default_config);
    let wanted = needed || about.config.is_some() || Path::new(&path).exists();
    let sources = if wanted {
        let (state, _) = run::places(place, false);
        sources::read_file(Path::new(&path), &sources::certificates(&state))
    } else {
        let text =
            command_line_config(&["http://127.0.0.1:1".to_owned()], &["http://127.0.0.1:80".to_owned()]);
        Ok(sources::gather("", text.into_bytes().into(), Path::new("")))
    };
    let metrics = Arc::new(Metrics::new(1, Arc::new(LogCounts::default())));
    let builder = Builder::new(metrics, None)?;
    let built = sources.and_then(|sources| builder.build(&sources, 0, Mode::Stored));
    built.map(|built| built.generation).map_err(|findings| {
        let texts: Vec<_> =
            findings.iter().map(|finding| snapshot::diagnostic::render(finding, false)).collect();
        anyhow::anyhow!("the configuration cannot be used:\n{}", texts.join("\n"))
    })
}

fn site_of<'g>(generation: &'g Generation, authority: &str) -> anyhow::Result<&'g SiteRuntime> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { host } else { authority }
    });
    let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
    let hosts = &generation.snapshot.hosts;
    let found = hosts.find(&host).and_then(|index| generation.sites.get(index));
    let only = generation.sites.first().filter(|_| host.is_empty() && generation.sites.len() == 1);
    found.or(only).map(|site| &**site).with_context(|| format!("no site is for the host {host:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(set: &[&str]) -> About {
        let set = set.iter().map(|text| (*text).to_owned()).collect();
        About { ip: [192, 0, 2, 7].into(), status: 200, set, config: None }
    }

    #[test]
    fn requests_are_read_with_either_line_end() {
        for text in [
            "POST /a?b HTTP/1.1\r\nHost: a.test\r\nX-A: 1\r\n\r\nbody\n",
            "POST /a?b HTTP/1.1\nhost: a.test\nX-A: 1\n\nbody\n",
        ] {
            let found = request(text.as_bytes(), &about(&[])).unwrap();
            assert_eq!(
                (found.method.as_str(), &*found.target, &*found.authority),
                ("POST", "/a?b", "a.test")
            );
            assert_eq!(found.fields, [("X-A".to_owned(), "1".to_owned())]);
            assert_eq!(found.body, b"body\n");
        }
        assert!(request(b"GET\n", &about(&[])).is_err());
        assert!(request(b"", &about(&[])).is_err());
    }

    #[test]
    fn values_that_do_not_fit_their_field_are_refused_by_name() {
        assert!(
            imagined(&about(&["ip.src.country=FR", "cf.bot_management.score=unknown", "ssl=true"])).is_ok()
        );
        for (text, part) in [
            ("ip.src.contry=FR", "did you mean ip.src.country?"),
            ("cf.bot_management.score=low", "Int"),
            ("ssl", "FIELD=VALUE"),
        ] {
            let error = imagined(&about(&[text])).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
