//! How fast the keeper may go: every bound and delay of the planner, with its reason.

use std::time::Duration;

/// Wait after a first failure; doubles with each further one.
pub const FIRST_RETRY: Duration = Duration::from_secs(60);
/// Longest wait between two attempts for a name.
pub const LONGEST_RETRY: Duration = Duration::from_secs(6 * 3_600);
/// Longest wait before an authority that is down is tried again; what it asks for itself may be longer.
pub const LONGEST_HOLD: Duration = Duration::from_secs(3_600);
/// Longest wait an authority can ask for: limits of public authorities look back a week.
pub const LONGEST_WAIT_ASKED_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Failures of a name with an authority before the next one of the list is asked.
pub const ATTEMPTS_PER_AUTHORITY: u32 = 3;
/// Failures in a row after which an authority, whatever the names, counts as down.
pub const FAILURES_UNTIL_DOWN: u32 = 3;
/// Orders and questions under way at once, so that slow ones do not delay the rest.
pub const ORDERS_AT_A_TIME: usize = 8;
/// New orders per authority within `ORDERS_PERIOD`; Let's Encrypt allows an account 300.
pub const ORDERS_PER_PERIOD: usize = 250;
/// See `ORDERS_PER_PERIOD`.
pub const ORDERS_PERIOD: Duration = Duration::from_secs(3 * 3_600);
/// Failed validations of a name within `FAILURES_PERIOD`; Let's Encrypt allows five.
pub const FAILURES_PER_PERIOD: usize = 5;
/// See `FAILURES_PER_PERIOD`.
pub const FAILURES_PERIOD: Duration = Duration::from_secs(3_600);
/// Renewal information is not asked for more often than this (RFC 9773 section 4.3.2).
pub const SHORTEST_WINDOW_CHECK: Duration = Duration::from_secs(60);
/// It is asked for at least this often (RFC 9773 section 4.3.2).
pub const LONGEST_WINDOW_CHECK: Duration = Duration::from_secs(86_400);
/// When the question failed, it is repeated after this (RFC 9773 section 4.3.3: within six hours).
pub const FAILED_WINDOW_CHECK: Duration = Duration::from_secs(6 * 3_600);
/// The keeper looks at the clock at least this often, so that a step of the wall clock is noticed.
pub const SLICE: Duration = Duration::from_secs(30);

/// The delays and bounds that a test makes smaller. `Pace::default()` is what runs in production.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// See [`FIRST_RETRY`].
    pub first_retry: Duration,
    /// See [`LONGEST_RETRY`].
    pub longest_retry: Duration,
    /// See [`LONGEST_HOLD`].
    pub longest_hold: Duration,
    /// See [`ORDERS_AT_A_TIME`].
    pub orders_at_a_time: usize,
    /// See [`ORDERS_PER_PERIOD`].
    pub orders_per_period: usize,
    /// See [`FAILURES_PER_PERIOD`].
    pub failures_per_period: usize,
    /// See [`SLICE`].
    pub slice: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first_retry: FIRST_RETRY,
            longest_retry: LONGEST_RETRY,
            longest_hold: LONGEST_HOLD,
            orders_at_a_time: ORDERS_AT_A_TIME,
            orders_per_period: ORDERS_PER_PERIOD,
            failures_per_period: FAILURES_PER_PERIOD,
            slice: SLICE,
        }
    }
}
