//! The module `trial`: fails in every way a module can, when it is told to. Compiled in with the feature `faults` only.
//!
//! It is told by the request field `Rempart-Trial`, or by a site whose policy forbids a field of that name with a value: a
//! setting that is valid, does nothing wrong in any check, and meets a fault only visitors reach.

use std::time::Duration;

use base::module::{Outcome, OverBudget, Reason, Verdict};
use snapshot::generation::Policy;

use super::view::{Meter, RequestView};

/// The field.
const FIELD: &str = "rempart-trial";
/// A row of a table that no check has anything against, and that the module does not survive.
const PANIC: &str = "panic";
/// Requests with a lower score are turned away, where there is a score.
const PASSING_SCORE: u8 = 30;
/// Memory taken by `allocate`, in pieces of this size.
const PIECE: usize = 1 << 20;
/// How long `stall` stands still.
const STALL: Duration = Duration::from_millis(150);
/// More steps than the clock is read without.
const MANY_STEPS: usize = 1024;

/// Does as told.
pub fn judge(told: &str, view: &RequestView<'_>, meter: &mut Meter) -> Result<Outcome<Verdict>, OverBudget> {
    let (word, rest) = told.split_once(' ').unwrap_or((told, ""));
    carry_out(word, rest, view, meter)
}

/// What it is told to do with this request. The site's setting counts before the request's, and golden requests are let be.
pub fn command<'a>(view: &RequestView<'a>) -> Option<&'a str> {
    if view.golden {
        return None;
    }
    let asked = view.head.headers.get(FIELD.as_bytes());
    view.site.site.policy.as_ref().and_then(set).or_else(|| std::str::from_utf8(asked?).ok())
}

fn set(policy: &Policy) -> Option<&str> {
    policy.forbid.iter().find(|rule| &*rule.name == FIELD)?.value.as_deref()
}

#[expect(clippy::panic, reason = "the panic is what is asked for")]
fn carry_out(
    word: &str,
    rest: &str,
    view: &RequestView<'_>,
    meter: &mut Meter,
) -> Result<Outcome<Verdict>, OverBudget> {
    match word {
        "panic" => panic!("the trial module was told to panic"),
        "loop" => loop {
            meter.spend(1)?;
        },
        // Never looks at its budget.
        "hang" => loop {
            std::hint::spin_loop();
        },
        "allocate" => {
            let mut taken = Vec::new();
            loop {
                meter.spend(PIECE / MANY_STEPS)?;
                taken.push(std::hint::black_box(vec![1u8; PIECE]));
            }
        }
        "stall" => {
            std::thread::sleep(STALL);
            meter.spend(MANY_STEPS)?;
            Ok(Outcome::Verdict(Verdict::Pass))
        }
        "unknown" => Ok(Outcome::Unknown(Reason::NoData)),
        "score" => Ok(rest
            .parse()
            .map_or(Outcome::Unknown(Reason::NoData), |score| Outcome::Verdict(Verdict::Score(score)))),
        // Scores by a table: the feed, then the row.
        "table" => Ok(score_of(rest, view)),
        _ => Ok(Outcome::Verdict(Verdict::Pass)),
    }
}

#[expect(clippy::panic, reason = "the panic is what is asked for")]
fn score_of(wanted: &str, view: &RequestView<'_>) -> Outcome<Verdict> {
    let Some((feed, row)) = wanted.split_once(' ') else { return Outcome::Unknown(Reason::NoData) };
    let Some(table) = view.generation.artefacts.table(feed) else {
        return Outcome::Unknown(Reason::NotLoaded);
    };
    if table.get().is_some_and(|table| table.number(PANIC, "score").is_some()) {
        panic!("the trial module met the row {PANIC}");
    }
    let score = table.get().and_then(|table| table.number(row, "score"));
    match score {
        Some(score) if (1.0..=99.0).contains(&score) => Outcome::Verdict(Verdict::Score(score as u8)),
        _ => Outcome::Unknown(Reason::NoData),
    }
}

/// The rule on the score: low ones are turned away. Without a score it does not fire.
pub fn rule(outcome: Outcome<Verdict>) -> Outcome<Verdict> {
    let outcome = match outcome {
        // What an unknown score was taken for on 18 November 2025.
        Outcome::Unknown(_) if crate::fault::without("unknown-is-no-score") => {
            Outcome::Verdict(Verdict::Score(0))
        }
        other => other,
    };
    match outcome {
        Outcome::Verdict(Verdict::Score(score)) if score < PASSING_SCORE => {
            Outcome::Verdict(Verdict::Block { status: 403, reason: "low_score" })
        }
        other => other,
    }
}
