//! One picture of how it goes, as lines for a width and a height; pure, so that it can be looked at in tests.

use api::analytics::{Anomaly, Figures, Named, SiteFigures, Top};

use crate::events::{bytes, clean, day_and_time, duration, paint};

/// Narrowest list of names and counts.
const LIST_WIDTH: usize = 38;
/// Lines of a list at least, its heading included.
const LIST_LINES: usize = 4;
/// Anomalies and changes shown at most.
const MAX_ANOMALIES: usize = 3;
const MAX_CHANGES: usize = 5;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// For whom the picture is.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Characters of a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// Whether there are colours.
    pub colour: bool,
    /// Whether it is shown again and again until a key ends it.
    pub live: bool,
}

/// Something to write on, line by line.
struct Page {
    width: usize,
    colour: bool,
    lines: Vec<String>,
}

impl Page {
    fn line(&mut self, text: &str) {
        self.lines.push(fit(text, self.width));
    }

    fn painted(&mut self, code: &str, text: &str) {
        let text = fit(text, self.width);
        self.lines.push(paint(self.colour, code, text.trim_end()));
    }

    /// A bar with colour, a rule without.
    fn heading(&mut self, text: &str) {
        let text = fit(text, self.width);
        let rest = self.width - text.chars().count();
        self.lines.push(if self.colour {
            paint(true, "7", &format!("{text}{}", " ".repeat(rest)))
        } else {
            format!("{text} {}", "-".repeat(rest.saturating_sub(1))).trim_end().to_owned()
        });
    }
}

/// At most so many characters; what is cut off ends in an ellipsis.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// At most so many characters, filled with blanks.
fn cell(text: &str, width: usize) -> String {
    let text = fit(text, width);
    format!("{text:<width$}")
}

/// The picture. It never has more lines than `height`, nor longer ones than `width` (colours not counted).
pub fn frame(top: &Top, look: Look) -> Vec<String> {
    let Look { width, height, colour, live } = look;
    let mut page = Page { width: width.max(20), colour, lines: Vec::new() };
    summary(&mut page, top, if live { "q ends" } else { "" });
    anomalies(&mut page, &top.anomalies);
    changes(&mut page, top);
    let room = height.saturating_sub(page.lines.len());
    // Sites get what the lists of names do not need, and half at least.
    let lists = (room / 2).clamp(LIST_LINES, 13);
    sites(&mut page, top, room.saturating_sub(lists));
    lists_of_names(&mut page, top, height);
    page.lines.truncate(height);
    page.lines
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// `1234`, `12.3`, `0.4`: as many digits as help.
fn short(rate: f64) -> String {
    if rate >= 100.0 || rate == 0.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

/// A share in per cent; `-` of nothing.
fn share(part: u64, whole: u64) -> String {
    match (part, whole) {
        (_, 0) => "-".to_owned(),
        (0, _) => "0 %".to_owned(),
        _ => {
            let share = part as f64 / whole as f64 * 100.0;
            if share >= 10.0 { format!("{share:.0} %") } else { format!("{share:.1} %") }
        }
    }
}

fn latency(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), duration)
}

fn summary(page: &mut Page, top: &Top, right: &str) {
    let (_, time) = day_and_time(top.at);
    let time = time.get(..8).unwrap_or_default();
    let left = format!("Rempart  {time} UTC  the last {:.0} s", top.seconds);
    let gap = page.width.saturating_sub(left.chars().count() + right.len());
    page.painted("1", &format!("{left}{}{right}", " ".repeat(gap)));
    let figures = &top.figures;
    let Figures { requests, by_class, faults: [visitor, edge, origin], .. } = figures;
    let line = format!(
        "{} requests/s  5xx {}  p50 {}  p95 {}  p99 {}  out {}/s",
        short(rate(*requests, top.seconds)),
        share(figures.errors(), *requests),
        latency(figures.p50_us),
        latency(figures.p95_us),
        latency(figures.p99_us),
        bytes(rate(figures.bytes_out, top.seconds) as u64),
    );
    // What comes in is told where there is room for it.
    let uploads = format!("  in {}/s", bytes(rate(figures.bytes_in, top.seconds) as u64));
    let fits = line.chars().count() + uploads.chars().count() <= page.width;
    page.line(&if fits { line + &uploads } else { line });
    let mut classes = Vec::new();
    for (class, count) in by_class.iter().enumerate().filter(|(_, count)| **count > 0) {
        let name = if class == 0 { "none".to_owned() } else { format!("{class}xx") };
        classes.push(format!("{name} {}", share(*count, *requests)));
    }
    classes
        .extend(top.details.protocols.iter().map(|it| format!("{} {}", it.name, share(it.count, *requests))));
    let faults = [("visitor", visitor), ("edge", edge), ("origin", origin)];
    let faults: Vec<_> = faults
        .into_iter()
        .filter(|(_, count)| **count > 0)
        .map(|(name, count)| format!("{name} {}", share(*count, *requests)))
        .collect();
    let faults = if faults.is_empty() { String::new() } else { format!("   faults: {}", faults.join("  ")) };
    page.line(&format!("{}{faults}", classes.join("  ")));
    page.line(&graph(&top.per_second, page.width));
    if let Some(problem) = &top.store.problem {
        let waiting = top.store.waiting;
        page.painted(
            "33",
            &format!("! the database takes nothing ({waiting} entries wait): {}", clean(problem)),
        );
    }
    if top.lost > 0 {
        page.painted("33", &format!("! {} more requests of the last minute are in no figure here", top.lost));
    }
}

/// Requests per second as bars; a bar of the full height is the busiest second.
fn graph(per_second: &[u64], width: usize) -> String {
    let peak = per_second.iter().copied().max().unwrap_or_default();
    let label = format!("  busiest second {peak}");
    let room = width.saturating_sub(label.chars().count());
    let skipped = per_second.len().saturating_sub(room);
    let bars: String = per_second
        .iter()
        .skip(skipped)
        .map(|count| match (count * 8).checked_div(peak) {
            None | Some(0) if *count == 0 => ' ',
            level => BARS.get(level.unwrap_or_default().min(7) as usize).copied().unwrap_or('█'),
        })
        .collect();
    format!("{bars}{label}")
}

fn anomalies(page: &mut Page, anomalies: &[Anomaly]) {
    if anomalies.is_empty() {
        return;
    }
    page.heading(&format!("UNLIKE IT WAS  {}", anomalies.len()));
    for anomaly in anomalies.iter().take(MAX_ANOMALIES) {
        let (_, since) = day_and_time(anomaly.since);
        let site = anomaly.site.as_deref().unwrap_or("(hosts of no site)");
        let text = format!("{} {site}: {}", since.get(..5).unwrap_or_default(), clean(&anomaly.sentence));
        for (index, line) in wrap(&text, page.width, 3).into_iter().enumerate() {
            page.painted(if index == 0 { "1;33" } else { "33" }, &line);
        }
    }
}

/// In lines of at most `width`, broken at blanks; lines after the first are indented. At most `limit` lines.
fn wrap(text: &str, width: usize, limit: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(last) = lines.last_mut() else { break };
        if !last.trim().is_empty() && last.chars().count() + 1 + word.chars().count() > width {
            lines.push(format!("      {word}"));
        } else {
            if !last.trim().is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    if lines.len() > limit {
        lines.truncate(limit);
        if let Some(last) = lines.last_mut() {
            *last = fit(&format!("{last} ……"), width);
        }
    }
    lines
}

fn changes(page: &mut Page, top: &Top) {
    if top.changes.is_empty() {
        return;
    }
    page.heading("CHANGES  of the last 30 minutes");
    // Beside anomalies they are what is looked for; otherwise they take little room.
    let shown = if top.anomalies.is_empty() { 2 } else { MAX_CHANGES };
    for change in top.changes.iter().take(shown) {
        let (_, time) = day_and_time(change.at);
        let by = change.by.as_ref().map(|by| format!("  by {}", clean(by))).unwrap_or_default();
        page.line(&format!("{} {}{by}", time.get(..8).unwrap_or_default(), clean(&change.message)));
    }
    if top.changes.len() > shown {
        page.line(&format!("and {} more: rempart events --kind operations", top.changes.len() - shown));
    }
}

fn sites(page: &mut Page, top: &Top, lines: usize) {
    let name = page.width.saturating_sub(50).max(10);
    page.heading(&format!(
        "{}{:>9}{:>8}{:>10}{:>10}{:>12}",
        cell("SITES", name),
        "req/s",
        "5xx",
        "p50",
        "p95",
        "out/s"
    ));
    let shown = lines.saturating_sub(1).max(1);
    for SiteFigures { site, figures } in top.sites.iter().take(shown) {
        let site = site.as_deref().map_or_else(|| "(hosts of no site)".to_owned(), clean);
        let line = format!(
            "{}{:>9}{:>8}{:>10}{:>10}{:>12}",
            cell(&site, name.saturating_sub(1)) + " ",
            short(rate(figures.requests, top.seconds)),
            share(figures.errors(), figures.requests),
            latency(figures.p50_us),
            latency(figures.p95_us),
            bytes(rate(figures.bytes_out, top.seconds) as u64),
        );
        if figures.errors() > 0 { page.painted("31", &line) } else { page.line(&line) }
    }
    if top.sites.is_empty() {
        page.line("no requests");
    }
}

/// Lists side by side, as many as the width has room for, in as many rows as the height has room for.
fn lists_of_names(page: &mut Page, top: &Top, height: usize) {
    let details = &top.details;
    let networks = format!("NETWORKS  about {}", details.distinct_networks);
    let mut lists: Vec<(&str, &[Named])> =
        vec![("PATHS", &details.paths), (&networks, &details.networks), ("ORIGINS", &details.origins)];
    if !details.verdicts.is_empty() {
        lists.insert(0, ("VERDICTS", &details.verdicts));
    }
    lists.retain(|(_, names)| !names.is_empty());
    let columns = (page.width / LIST_WIDTH).max(1);
    for row in lists.chunks(columns) {
        let room = height.saturating_sub(page.lines.len());
        if room < 2 {
            return;
        }
        let width = page.width / row.len();
        let headings: Vec<_> = row.iter().map(|(heading, _)| cell(heading, width)).collect();
        page.heading(headings.concat().trim_end());
        let longest = row.iter().map(|(_, names)| names.len()).max().unwrap_or_default();
        for index in 0..longest.min(room - 1) {
            let cells = row.iter().map(|(_, names)| match names.get(index) {
                None => " ".repeat(width),
                Some(named) => {
                    let count = share(named.count.min(top.figures.requests), top.figures.requests);
                    format!("{}{count:>7}  ", cell(&clean(&named.name), width.saturating_sub(10)) + " ")
                }
            });
            let line = cells.collect::<String>();
            page.line(line.trim_end());
        }
    }
}

#[cfg(test)]
mod tests;
