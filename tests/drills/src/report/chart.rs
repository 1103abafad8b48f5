//! Timelines as SVG: visitors served and harmed, and how long they waited, with marks for what was done.

use maud::{Markup, html};

use crate::timeline::Slice;
use crate::verdict::Run;

/// Width and height of a drawing, and room for the axes, in its own units.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 22.0;
const BOTTOM: f64 = 24.0;
/// The waits drawn, in milliseconds: from the first to the last, each decade equally high.
const WAITS: [f64; 6] = [0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0];
/// Room for the number of a mark.
const NUMBER: f64 = 12.0;
/// Seconds between two numbers of the time axis, of which the first that leaves them room is taken.
const STEPS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Numbers on the time axis, at most.
const NUMBERS: f64 = 14.0;

/// From seconds to places.
struct Scale {
    end: f64,
}

impl Scale {
    fn of(run: &Run) -> Self {
        let slices = u32::try_from(run.timeline.slices.len()).unwrap_or(u32::MAX);
        Self { end: (f64::from(slices) * run.timeline.slice).max(0.1) }
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (at / self.end).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

/// How high on the drawing a share of the whole height lies.
fn y(share: f64) -> f64 {
    HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
}

/// Visitors served and harmed in each slice.
pub fn visitors(run: &Run) -> Markup {
    let scale = Scale::of(run);
    let slices = &run.timeline.slices;
    let most = slices.iter().map(|slice| slice.good + slice.harmed).max().unwrap_or(1).max(1);
    let share = |count: u32| f64::from(count) / f64::from(most);
    let width = scale.x(run.timeline.slice) - scale.x(0.0);
    let per_second = f64::from(most) / run.timeline.slice.max(0.001);
    html! {
        figure {
            figcaption {
                b { "Visitors per second" }
                span.key.served { "served" }
                span.key.harmed { "harmed" }
            }
            (drawing("Visitors served and harmed over time", html! {
                text x=(LEFT - 6.0) y=(y(1.0) + 4.0) text-anchor="end" { (format!("{per_second:.0}")) }
                text x=(LEFT - 6.0) y=(y(0.0) + 4.0) text-anchor="end" { "0" }
                @for (at, slice) in times(run).zip(slices) {
                    @let served = y(share(slice.good));
                    @if slice.good > 0 {
                        rect.good x=(place(scale.x(at))) y=(place(served)) width=(place(width)) height=(place(y(0.0) - served)) {}
                    }
                    @if slice.harmed > 0 {
                        // One in a thousand still has to be seen.
                        @let height = (y(0.0) - y(share(slice.harmed))).max(3.0);
                        rect.harmed x=(place(scale.x(at))) y=(place(served - height)) width=(place(width.max(2.0))) height=(place(height)) {}
                    }
                }
                (axis(&scale))
                (marks(run, &scale))
            }))
        }
    }
}

/// How long visitors waited in each slice.
pub fn waits(run: &Run) -> Markup {
    let scale = Scale::of(run);
    html! {
        figure {
            figcaption {
                b { "Wait in milliseconds, from the moment a visitor was due" }
                span.key.half { "half of them" }
                span.key.most { "99 %" }
            }
            (drawing("Waits of visitors over time", html! {
                @for wait in WAITS {
                    line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(place(y(height_of(wait)))) y2=(place(y(height_of(wait)))) {}
                    text x=(LEFT - 6.0) y=(place(y(height_of(wait)) + 4.0)) text-anchor="end" { (wait) }
                }
                polyline.most points=(line(run, &scale, |slice| slice.p99)) {}
                polyline.half points=(line(run, &scale, |slice| slice.p50)) {}
                (axis(&scale))
                (marks(run, &scale))
            }))
        }
    }
}

/// Where a wait lies between the least and the most drawn.
fn height_of(wait: f64) -> f64 {
    let [least, .., most] = WAITS;
    (wait.clamp(least, most) / least).log10() / (most / least).log10()
}

fn line(run: &Run, scale: &Scale, wait: fn(&Slice) -> Option<f64>) -> String {
    let points = times(run).zip(&run.timeline.slices).filter_map(|(at, slice)| {
        let x = scale.x(at + run.timeline.slice / 2.0);
        Some(format!("{x:.1},{:.1}", y(height_of(wait(slice)?))))
    });
    points.collect::<Vec<_>>().join(" ")
}

/// When each slice begins, in seconds.
fn times(run: &Run) -> impl Iterator<Item = f64> {
    let slice = run.timeline.slice;
    (0u32..).map(move |number| f64::from(number) * slice)
}

fn drawing(label: &str, content: Markup) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(label) { (content) }
    }
}

fn axis(scale: &Scale) -> Markup {
    let step = STEPS.into_iter().find(|step| scale.end / step <= NUMBERS).unwrap_or(scale.end / NUMBERS);
    let numbers = (0u32..).map(|number| f64::from(number) * step).take_while(|at| *at <= scale.end);
    html! {
        line.axis x1=(LEFT) x2=(WIDTH - RIGHT) y1=(y(0.0)) y2=(y(0.0)) {}
        @for at in numbers {
            text x=(place(scale.x(at))) y=(HEIGHT - 7.0) text-anchor="middle" { (at) " s" }
        }
    }
}

/// The marks carry the numbers of the list below the drawings.
fn marks(run: &Run, scale: &Scale) -> Markup {
    html! {
        @let shown = run.marks.iter().filter(|mark| mark.at <= scale.end);
        @let places: Vec<f64> = shown.map(|mark| scale.x(mark.at)).collect();
        @for (number, (at, name)) in (1u32..).zip(places.iter().zip(apart(&places))) {
            line.mark x1=(place(*at)) x2=(place(*at)) y1=(TOP - 6.0) y2=(y(0.0)) {}
            text.mark-name x=(place(name)) y=(TOP - 9.0) { (number) }
        }
    }
}

/// Where the numbers of marks stand: at their marks, unless that is too close to the one before.
fn apart(places: &[f64]) -> Vec<f64> {
    let mut last = f64::MIN;
    let next = |place: &f64| {
        last = place.max(last + NUMBER);
        last
    };
    places.iter().map(next).collect()
}

fn place(value: f64) -> String {
    format!("{value:.1}")
}
