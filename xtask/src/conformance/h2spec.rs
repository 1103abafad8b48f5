//! h2spec over TLS: Rempart and nginx in front of the same origin, and a control that never says a word.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use super::{Score, rempart};
use crate::peers::{Name, Origin, Place, Server};
use crate::shell::{Background, shown};
use crate::{ports, setup};

/// The newest edition the Go module proxy offers.
const MODULE: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";

/// Seconds h2spec waits for an answer.
const TIMEOUT: &str = "2";

/// Runs it against the three targets.
pub fn run(place: &Place) -> Result<Vec<Score>> {
    let program = setup::go_program(place.workspace, "h2spec", MODULE)?;
    let origin = Origin::start(place)?;
    let server = rempart(place, origin.port)?;
    let mut scores = vec![score(place, &program, server.name.shown(), server.tls_port)?];
    drop(server);
    let nginx = Server::start(place, Name::Nginx, origin.port)?;
    scores.push(score(place, &program, nginx.name.shown(), nginx.tls_port)?);
    drop(nginx);
    let (_silence, port) = silence(place)?;
    let control = score(place, &program, "control: TLS, then silence", port)?;
    scores.push(Score { control: true, ..control });
    Ok(scores)
}

/// openssl's test server: it finishes the handshake with ALPN h2 and then sends nothing.
fn silence(place: &Place) -> Result<(Background, u16)> {
    let port = ports::free()?;
    let mut openssl = place.workspace.command("openssl");
    openssl.current_dir(&place.folder).args([
        "s_server",
        "-quiet",
        "-alpn",
        "h2",
        "-cert",
        "chain.pem",
        "-key",
        "key.pem",
    ]);
    openssl.args(["-accept", &format!("127.0.0.1:{port}")]);
    // It ends when its input does, so the pipe stays open as long as the process is wanted.
    openssl.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Background::start("openssl s_server", &mut openssl)?;
    ports::wait_for(&mut server, port)?;
    Ok((server, port))
}

fn score(place: &Place, program: &Path, target: &str, port: u16) -> Result<Score> {
    println!("h2spec against {target}");
    let report = place.folder.join("h2spec.xml");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut command = place.workspace.command(program);
    command
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-t", "-k", "-P", "/1k", "-o", TIMEOUT, "-j"])
        .arg(&report);
    // Its exit code says whether all passed; the report says which did.
    let result = command.output().with_context(|| format!("cannot start `{}`", shown(&command)))?;
    let text = fs::read_to_string(&report).with_context(|| {
        format!("h2spec wrote no report about {target}: {}", String::from_utf8_lossy(&result.stdout))
    })?;
    let cases = parse(&text);
    if cases.is_empty() {
        bail!("h2spec ran no case against {target}");
    }
    let count = |outcome: Outcome| cases.iter().filter(|case| case.outcome == outcome).count();
    let missed = cases.iter().filter(|case| case.outcome != Outcome::Passed);
    Ok(Score {
        target: target.to_owned(),
        counts: vec![
            ("passed", count(Outcome::Passed)),
            ("failed", count(Outcome::Failed)),
            ("skipped", count(Outcome::Skipped)),
        ],
        misses: missed.map(|case| format!("{}: {} ({})", case.section, case.title, case.detail)).collect(),
        control: false,
        defects: 0,
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// One case of the report.
struct Case {
    /// `http2/5.1`: which part of which document.
    section: String,
    title: String,
    outcome: Outcome,
    /// What came instead, for a failed case.
    detail: String,
}

/// Reads the JUnit report; h2spec writes one element per line, and the lines of an `<error>` end with what really came.
fn parse(report: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for element in report.split("<testcase ").skip(1) {
        let element = element.split("</testcase>").next().unwrap_or_default();
        let attribute = |name: &str| {
            let (_, rest) = element.split_once(&format!("{name}=\""))?;
            rest.split_once('"').map(|(value, _)| unescape(value))
        };
        let Some((section, title)) = attribute("package").zip(attribute("classname")) else { continue };
        let error =
            ["<error>", "<failure>"].iter().find_map(|tag| element.split_once(tag)).map(|(_, text)| text);
        let outcome = match error {
            Some(_) => Outcome::Failed,
            None if element.contains("<skipped") => Outcome::Skipped,
            None => Outcome::Passed,
        };
        let came = error.and_then(|text| text.split("</").next()).and_then(|text| text.lines().last());
        let detail =
            came.map_or_else(|| "skipped".to_owned(), |came| format!("came: {}", unescape(came.trim())));
        cases.push(Case { section, title, outcome, detail });
    }
    cases
}

fn unescape(text: &str) -> String {
    let pairs =
        [("&#34;", "\""), ("&quot;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];
    pairs.iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let report = "<testsuites>\n<testsuite name=\"x\">\n\
            <testcase package=\"http2/4.2\" classname=\"Sends &#34;a&#34;\" time=\"1\"></testcase>\n\
            <testcase package=\"http2/5.1\" classname=\"idle\" time=\"1\">\n<error>GOAWAY Frame\nConnection closed\nTimeout</error>\n</testcase>\n\
            <testcase package=\"http2/6.9\" classname=\"window\" time=\"1\">\n<skipped></skipped></testcase>\n</testsuite></testsuites>";
        let seen: Vec<(String, Outcome, String)> =
            parse(report).into_iter().map(|case| (case.title, case.outcome, case.detail)).collect();
        assert_eq!(
            seen,
            [
                ("Sends \"a\"".to_owned(), Outcome::Passed, "skipped".to_owned()),
                ("idle".to_owned(), Outcome::Failed, "came: Timeout".to_owned()),
                ("window".to_owned(), Outcome::Skipped, "skipped".to_owned()),
            ]
        );
    }
}
