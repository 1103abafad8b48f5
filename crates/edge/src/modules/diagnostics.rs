//! What is said of failing modules, on a budget of its own: a few reports a second for the whole process, the rest is counted.
//!
//! On 18 November 2025 error reporting took the processor time that visitors needed. A panic here costs one message at most, and
//! never a backtrace.

use std::cell::Cell;
use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Once};
use std::time::{Duration, Instant, SystemTime};

use base::module::Module;

/// Reports a second.
pub const REPORTS_PER_SECOND: u32 = 10;
/// Longest message of a panic that is reported, in bytes.
const MAX_MESSAGE: usize = 512;

/// Lets so many reports a second through, and counts the others.
#[derive(Debug, Default)]
pub struct Limiter {
    /// The second, and how many reports it has had: 32 bits each.
    window: AtomicU64,
    left_out: AtomicU64,
}

impl Limiter {
    /// Whether a report may be made in this second; if so, how many were left out before it.
    pub fn admit(&self, second: u32) -> Option<u64> {
        let fresh = u64::from(second) << 32;
        let moved = self.window.fetch_update(Relaxed, Relaxed, |window| {
            let (current, used) = (window >> 32, window as u32);
            match u64::from(second).cmp(&current) {
                std::cmp::Ordering::Greater => Some(fresh | 1),
                // A thread that was held up belongs to the second that is running.
                _ if used < REPORTS_PER_SECOND => Some(window + 1),
                _ => None,
            }
        });
        if moved.is_ok() {
            Some(self.left_out.swap(0, Relaxed))
        } else {
            self.left_out.fetch_add(1, Relaxed);
            None
        }
    }
}

static REPORTS: LazyLock<(Instant, Limiter)> = LazyLock::new(|| (start(), Limiter::default()));

/// Seconds are counted from where one of the wall clock began, so that no second of a log has more reports than the budget. The
/// clock may be set later on; the budget goes by the other one.
fn start() -> Instant {
    let (now, wall) = (Instant::now(), SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default());
    now.checked_sub(Duration::from_nanos(wall.subsec_nanos().into())).unwrap_or(now)
}

/// The budget of this process: whether something may be reported now, and how much was left out before.
pub fn admit() -> Option<u64> {
    let (start, limiter) = &*REPORTS;
    #[cfg(feature = "faults")]
    if crate::fault::without("diagnostics-budget") {
        return Some(0);
    }
    // From the second second on, so that the first one is a new one too.
    limiter.admit(u32::try_from(start.elapsed().as_secs()).unwrap_or(u32::MAX).saturating_add(1))
}

thread_local! {
    /// The module this thread is in.
    static INSIDE: Cell<Option<Module>> = const { Cell::new(None) };
}

/// Notes which module this thread is in, and which it was in before.
pub fn enter(module: Option<Module>) -> Option<Module> {
    INSIDE.replace(module)
}

/// From now on panics are told in the program's log, within the budget and without a backtrace. To be called once or more.
pub fn install_panic_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| std::panic::set_hook(Box::new(report)));
}

fn report(panic: &PanicHookInfo<'_>) {
    let Some(left_out) = admit() else { return };
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let message = panic.payload_as_str().unwrap_or("something that is no text");
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    match INSIDE.get() {
        Some(module) => {
            tracing::error!(module = module.name(), place, left_out, "a module panicked: {message}")
        }
        None => tracing::error!(place, left_out, "a thread panicked: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_a_second_and_the_rest_is_counted() {
        let limiter = Limiter::default();
        let admitted = |second| (0..1000).filter_map(|_| limiter.admit(second)).collect::<Vec<_>>();
        assert_eq!(admitted(1), [0; 10]);
        assert_eq!(limiter.admit(0), None, "a second that is over has nothing left");
        assert_eq!(admitted(2), [991, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(admitted(u32::MAX)[0], 990);
    }

    #[test]
    fn threads_share_the_budget() {
        let limiter = Limiter::default();
        let count = || (0..10_000).filter(|_| limiter.admit(7).is_some()).count();
        let admitted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(count)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(admitted, 10);
        assert_eq!(limiter.admit(8), Some(39_990));
    }
}
