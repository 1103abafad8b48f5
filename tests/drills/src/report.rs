//! What is kept of drills: a page with timelines for each, and a summary in Markdown.

mod chart;

use std::fs;
use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::error::DrillError;
use crate::verdict::{Assertion, Run};

/// The look of a page: its own colours in light and in dark, readable on a phone and on paper.
const STYLE: &str = include_str!("report/style.css");

/// Writes a page for each drill and `summary.md`; the folder is made when it is not there.
pub fn write(folder: &Path, runs: &[Run]) -> Result<(), DrillError> {
    let failed = || DrillError::system(format!("the report in {} could not be written", folder.display()));
    fs::create_dir_all(folder).map_err(failed())?;
    for of_one in by_drill(runs) {
        let Some(first) = of_one.first() else { continue };
        fs::write(folder.join(file_name(first)), page(of_one)).map_err(failed())?;
    }
    fs::write(folder.join("summary.md"), summary(runs)).map_err(failed())
}

/// Runs of the same drill stand side by side.
fn by_drill(runs: &[Run]) -> impl Iterator<Item = &[Run]> {
    runs.chunk_by(|a, b| a.number == b.number)
}

fn file_name(run: &Run) -> String {
    format!("{:02}-{}.html", run.number, run.name)
}

/// Passed, failed, or failed as it has to.
pub fn outcome(run: &Run) -> &'static str {
    match (run.without, run.is_as_it_should_be()) {
        (None, true) => "passed",
        (None, false) => "FAILED",
        (Some(_), true) => "failed, as it must",
        (Some(_), false) => "DID NOT FAIL where it must",
    }
}

/// A table of all runs, and under it every claim of each.
pub fn summary(runs: &[Run]) -> String {
    let mut text =
        "# Drills: the last runs kept\n\n<!-- Written by `rempart drill --report`; do not edit. -->\n\n"
            .to_owned();
    text +=
        "| drill | what it re-enacts | without | outcome | claims | visitors |\n|---|---|---|---|---|---|\n";
    for run in runs {
        let held = run.assertions.iter().filter(|assertion| assertion.passed).count();
        text += &format!(
            "| [{} {}]({}) | {} | {} | {} | {held} of {} held | {} |\n",
            run.number,
            run.title,
            file_name(run),
            run.outage,
            run.without.map_or("-", |(without, _)| without),
            outcome(run),
            run.assertions.len(),
            visitors(run),
        );
    }
    for run in runs {
        text += &format!("\n## {} {}{}\n\n", run.number, run.title, without(run));
        text += &format!("{}\n\n", run.story);
        text += "| claim | limit | measured | |\n|---|---|---|---|\n";
        for Assertion { claim, limit, measured, passed, key } in &run.assertions {
            let verdict = if *passed { "held" } else { "**failed**" };
            let (limit, measured) = (cell(limit), cell(measured));
            text += &format!("| {claim} (`{key}`) | {limit} | {measured} | {verdict} |\n");
        }
        for figure in &run.figures {
            text += &format!("| {} | | {} | |\n", figure.name, cell(&figure.value));
        }
    }
    text
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn without(run: &Run) -> String {
    run.without.map_or_else(String::new, |(without, _)| format!(", without `{without}`"))
}

fn visitors(run: &Run) -> u32 {
    run.timeline.slices.iter().map(|slice| slice.good + slice.harmed).sum()
}

/// The page of one drill: all its runs, the one with every safeguard first.
pub fn page(runs: &[Run]) -> String {
    let title = runs.first().map(|run| format!("Drill {}: {}", run.number, run.title)).unwrap_or_default();
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    @if let Some(run) = runs.first() {
                        p.outage { "Re-enacts: " (run.outage) }
                        p { (run.story) }
                    }
                }
                main {
                    @for run in runs { (section(run)) }
                }
                footer {
                    p {
                        "Visitors arrive at a fixed rate, whatever became of those before; their wait counts from the \
                         moment they were due. A run without a safeguard has to fail: that is what shows that the drill can."
                    }
                }
            }
        }
    };
    page.into_string()
}

fn section(run: &Run) -> Markup {
    let good = run.is_as_it_should_be();
    html! {
        section {
            h2 {
                @match run.without {
                    None => "With every safeguard",
                    Some((without, _)) => { "Without the safeguard " code { (without) } }
                }
                span.badge.good[good].bad[!good] { (outcome(run)) }
            }
            @if let Some((_, key)) = run.without {
                p { "The claim " code { (key) } " has to fail here." }
            }
            p.facts {
                (run.rate) " requests/s for " (format!("{:.0} s", run.seconds)) ", " (visitors(run))
                " visitors; one second of the drill is " (run.factor) " s of an outage."
            }
            @if !run.timeline.slices.is_empty() {
                (chart::visitors(run))
                (chart::waits(run))
            }
            @if !run.marks.is_empty() {
                ol.marks {
                    @for mark in &run.marks {
                        li.injected[mark.injected] { span.at { (format!("{:.1} s", mark.at)) } " " (mark.what) }
                    }
                }
            }
            (verdicts(run))
        }
    }
}

fn verdicts(run: &Run) -> Markup {
    html! {
        div.table {
            table {
                thead { tr { th { "Claim" } th { "Limit" } th { "Measured" } th { "Verdict" } } }
                tbody {
                    @for Assertion { key, claim, limit, measured, passed } in &run.assertions {
                        tr.failed[!passed] {
                            td { (claim) " " code { (key) } }
                            td { (limit) }
                            td { (measured) }
                            td.verdict { (if *passed { "held" } else { "failed" }) }
                        }
                    }
                    @for figure in &run.figures {
                        tr.figure { td { (figure.name) } td {} td { (figure.value) } td {} }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use crate::timeline::{Slice, Timeline};
    use crate::verdict::Mark;

    fn run(without: Option<usize>, passed: bool) -> Run {
        let drill = crate::find("9").unwrap();
        let options = Options { program: "rempart".into(), faulty: true, rate: 200, factor: 360.0 };
        let control = without.map(|index| &drill.controls[index]);
        let error = DrillError::Unexpected("<script>alert(1)</script> | \n".to_owned());
        let mut run = Run::that_never_began(drill, &options, control, &error);
        run.assertions[0].passed = passed;
        run.assertions[0].key = drill.controls[0].fails;
        run.marks.push(Mark { at: 1.0, what: "something <b>".to_owned(), injected: true });
        run.timeline = Timeline {
            slice: 0.1,
            slices: vec![Slice { good: 20, harmed: 1, p50: Some(1.0), p99: Some(2.5) }, Slice::default()],
        };
        run
    }

    #[test]
    fn a_page_says_what_came_of_each_run_and_escapes_what_it_quotes() {
        let page = page(&[run(None, true), run(Some(0), false)]);
        for text in
            ["With every safeguard", "Without the safeguard", "failed, as it must", "<svg", "color-scheme"]
        {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("<script") && !page.contains("something <b>"));
    }

    #[test]
    fn a_control_that_does_not_fail_where_it_must_is_told() {
        for (without, passed, outcome_is, fine) in [
            (None, true, "passed", true),
            (None, false, "FAILED", false),
            (Some(0), false, "failed, as it must", true),
            (Some(0), true, "DID NOT FAIL where it must", false),
        ] {
            let run = run(without, passed);
            assert_eq!((outcome(&run), run.is_as_it_should_be()), (outcome_is, fine));
        }
        // Failing on another claim is not enough.
        let mut other = run(Some(0), false);
        other.assertions[0].key = "completed";
        assert!(!other.is_as_it_should_be());
    }

    #[test]
    fn a_summary_is_a_table_whatever_is_quoted_in_it() {
        let text = summary(&[run(None, true)]);
        let row = text.lines().find(|line| line.contains("script")).unwrap();
        assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
    }

    #[test]
    fn reports_are_files_named_after_their_drills() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("new"), &[run(None, true), run(Some(0), false)]).unwrap();
        let mut names: Vec<_> = fs::read_dir(folder.path().join("new"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["09-control-plane-lost.html", "summary.md"]);
    }
}
