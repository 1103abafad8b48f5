//! Drill 26: the wall clock steps back and forth; durations, order and processor time must not notice.

use std::fs;
use std::time::Duration;

use serde::Deserialize;

use super::{QUIET, codes, counted, edge_of};
use crate::cluster::fake_time_library;
use crate::{Control, Drill, DrillError, Need, Stage, pids};

/// File of the offset that the processes read once a second.
const OFFSET: &str = "clock";
/// Offsets against true time, in seconds: steps of -1 s, +1 s and -1 h.
const STEPS: [(&str, &str); 3] = [("-1", "-1 s"), ("+0", "+1 s"), ("-3600", "-1 h")];
/// Sites that are added, one after each step.
const ADDED: [&str; STEPS.len()] = ["after-first", "after-second", "after-third"];
/// A request that takes longer than this was measured with a clock that jumped: visitors do not wait that long.
const LONGEST_US: u64 = 60_000_000;
/// Seconds that the log has to step back at least: an hour, but for the time the drill takes.
const STEPPED: u32 = 3000;
const HALF_A_DAY: u32 = 12 * 3600;
/// Processor time per second beyond twice what it was before that counts as spinning.
const SPIN: f64 = 0.25;
/// Each step is looked at for so long; the offset is read once a second.
const WATCH: Duration = Duration::from_secs(4);

/// Drill 26.
pub const DRILL: Drill = Drill {
    number: 26,
    name: "time",
    title: "Time",
    outage: "Leap seconds of 2012 and 2017",
    story: "The wall clock of every process steps by -1 s, +1 s and -1 h under load; after each step a change is made. The \
            monotonic clock is left alone, as it is when a real clock is set.",
    needs: &[Need::FakeTime],
    controls: &[Control { without: "monotonic", fails: "durations" }],
    play,
};

fn play(stage: &mut Stage) -> Result<(), DrillError> {
    let library = fake_time_library().map(|path| path.display().to_string()).unwrap_or_default();
    stage.cluster.write(OFFSET, "+0\n")?;
    let file = stage.cluster.path(OFFSET).display().to_string();
    for (name, value) in [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", &file),
        ("FAKETIME_CACHE_DURATION", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DISABLE_SHM", "1"),
        // What lies on a disk keeps its times when a clock is set.
        ("NO_FAKE_STAT", "1"),
    ] {
        stage.cluster.set_variable(name, value);
    }
    let before = stage.cluster.start_and_wait()?;
    let edge = edge_of(&before)?;
    stage.begin_traffic()?;
    let usual = busy(stage, edge, QUIET);
    stage.figure("processor time of the edge per second, before", format!("{usual:.2} s"));
    let (mut busiest, mut refused, mut uptimes) = (0.0_f64, Vec::new(), vec![before.uptime_seconds]);
    for (number, (offset, shown)) in STEPS.into_iter().enumerate() {
        stage.inject(format!("the wall clock steps by {shown}"));
        stage.cluster.write(OFFSET, &format!("{offset}\n"))?;
        busiest = busiest.max(busy(stage, edge, WATCH));
        let text = stage.cluster.config_with(ADDED.get(..=number).unwrap_or_default());
        let outcome = stage.cluster.configure(&text)?;
        if !outcome.active || !outcome.changed {
            refused.push(format!("after {shown}: {}", codes(&outcome)));
        }
        uptimes.extend(stage.cluster.status().map(|status| status.uptime_seconds));
    }
    stage.pass(QUIET);
    let limit = usual * 2.0 + SPIN;
    let (limited, measured) = (format!("<= {limit:.2} s"), format!("{busiest:.2} s"));
    stage.expect(
        "spin",
        "Processor time of the edge per second, at most",
        &limited,
        measured,
        busiest <= limit,
    );
    let (measured, taken) = (counted(&refused, "refused"), refused.is_empty());
    stage.expect("changes", "A change is made after each step", "0 refused", measured, taken);
    let ordered =
        uptimes.windows(2).all(|pair| matches!(pair, [a, b] if a <= b)) && uptimes.len() == STEPS.len() + 1;
    stage.expect("uptime", "The uptime never steps", "in order", format!("{uptimes:?} s"), ordered);
    let after = stage.cluster.status().ok_or_else(|| stage.late("the status"))?;
    let panics = stage.cluster.log().matches("panicked").count();
    let calm = after.supervision.crashes == 0 && after.supervision.hangs == 0 && panics == 0;
    let measured =
        format!("{} crashes, {} hangs, {panics} panics", after.supervision.crashes, after.supervision.hangs);
    stage.expect("calm", "No process crashes, hangs or panics", "0, 0, 0", measured, calm);
    stage.end_traffic();
    judge_log(stage)
}

/// Processor time the process uses per second, measured over a while.
fn busy(stage: &Stage, pid: u32, span: Duration) -> f64 {
    let before = pids::processor_time(pid).unwrap_or_default();
    stage.pass(span);
    let used = pids::processor_time(pid).unwrap_or_default().saturating_sub(before);
    used.as_secs_f64() / span.as_secs_f64()
}

/// Seconds from a time of day back to another, however late in the day that is.
fn back(from: u32, to: u32) -> u32 {
    (from + 2 * HALF_A_DAY - to) % (2 * HALF_A_DAY)
}

/// The second of its day of a time as RFC 3339 has it, in UTC: `2026-11-23T02:41:28.9Z`.
fn second_of_day(at: &str) -> Option<u32> {
    let mut parts = at.get(11..19)?.split(':').map(str::parse::<u32>);
    let (hour, minute, second) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(hour * 3600 + minute * 60 + second)
}

/// What is read of a line of the access log.
#[derive(Deserialize)]
struct Line {
    at: String,
    duration_us: u64,
    origin_wait_us: Option<u64>,
}

fn judge_log(stage: &mut Stage) -> Result<(), DrillError> {
    let text = fs::read_to_string(stage.cluster.path("access.log"));
    let text = text.map_err(DrillError::system("the access log cannot be read"))?;
    let read: Vec<Option<Line>> = text.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let lines: Vec<&Line> = read.iter().flatten().collect();
    let first = lines.first().and_then(|line| second_of_day(&line.at));
    let steps = lines.iter().filter_map(|line| Some(back(first?, second_of_day(&line.at)?)));
    let furthest = steps.filter(|step| *step < HALF_A_DAY).max().unwrap_or(0);
    let measured = format!("{furthest} s back");
    let stepped = furthest >= STEPPED;
    stage.expect(
        "stepped",
        "The clock did step back: premise",
        &format!(">= {STEPPED} s"),
        measured,
        stepped,
    );
    let long = |us: u64| us > LONGEST_US;
    let impossible =
        lines.iter().filter(|line| long(line.duration_us) || line.origin_wait_us.is_some_and(long)).count()
            + read.iter().filter(|line| line.is_none()).count();
    let measured = format!("{impossible} of {}", read.len());
    stage.expect(
        "durations",
        "Requests with a negative or impossible duration",
        "0",
        measured,
        impossible == 0 && !lines.is_empty(),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_back_is_an_hour_also_over_midnight() {
        let second = |at| second_of_day(at).unwrap();
        let first = second("2026-11-23T00:10:00.000001Z");
        assert_eq!(back(first, second("2026-11-22T23:10:00.5Z")), 3600);
        // What came later is no step back.
        assert!(back(first, second("2026-11-23T00:10:01Z")) > HALF_A_DAY);
        assert_eq!(second_of_day("now"), None);
    }
}
