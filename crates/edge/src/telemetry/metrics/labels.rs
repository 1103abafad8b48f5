//! Label values that are known beforehand, each with its place in a counter array.

use std::sync::OnceLock;

use base::event::{Completion, Fault, Protocol};

/// Status codes with a label of their own: those that origins and the edge commonly send.
const EXACT_STATUSES: [u16; 52] = [
    101, 200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410,
    411, 412, 413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451, 500, 501, 502, 503, 504, 505,
    508, 520, 521, 522, 523, 524, 525, 526, 527, 530,
];
/// What the others are counted under; `none` is for a client that left before there was a status.
const STATUS_FAMILIES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// Counters per protocol: one per family, then one per exact status.
pub(super) const STATUS_SLOTS: usize = STATUS_FAMILIES.len() + EXACT_STATUSES.len();
/// Statuses the table covers; RFC 9110 section 15 ends at 599.
const STATUS_LIMIT: usize = 600;

/// Slot of every status, so that counting is one look-up.
static SLOT_OF_STATUS: [u8; STATUS_LIMIT] = slots_of_statuses();

const fn slots_of_statuses() -> [u8; STATUS_LIMIT] {
    let mut slots = [0; STATUS_LIMIT];
    let mut status = 100;
    while status < STATUS_LIMIT {
        slots[status] = (status / 100) as u8;
        status += 1;
    }
    let mut i = 0;
    while i < EXACT_STATUSES.len() {
        slots[EXACT_STATUSES[i] as usize] = (STATUS_FAMILIES.len() + i) as u8;
        i += 1;
    }
    slots
}

/// The counter of a status; anything that is no status counts as `none`.
pub(super) fn status_slot(status: u16) -> usize {
    SLOT_OF_STATUS.get(usize::from(status)).copied().unwrap_or(0).into()
}

/// The label of a counter.
pub(super) fn status_label(slot: usize) -> String {
    match slot.checked_sub(STATUS_FAMILIES.len()).and_then(|i| EXACT_STATUSES.get(i)) {
        Some(status) => status.to_string(),
        None => STATUS_FAMILIES.get(slot).copied().unwrap_or("none").to_owned(),
    }
}

/// Every protocol, at the index that `protocol_slot` gives.
pub(super) const PROTOCOLS: [Protocol; 3] = [Protocol::Http10, Protocol::Http11, Protocol::Http2];

pub(super) fn protocol_slot(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Http10 => 0,
        Protocol::Http11 => 1,
        Protocol::Http2 => 2,
    }
}

/// Every way of not completing, at the index that `incomplete_slot` gives.
pub(super) const INCOMPLETE: [Completion; 3] =
    [Completion::ClientGone, Completion::OriginCut, Completion::TimedOut];

pub(super) fn incomplete_slot(completion: Completion) -> Option<usize> {
    INCOMPLETE.iter().position(|&other| other == completion)
}

/// Declares an enum whose variants are label values: `ALL`, `name` and a dense index come from one list.
macro_rules! label_values {
    ($(#[$about:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$of])* $variant,)+ }

        impl $name {
            /// Every value, in the order of its index.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The label value.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            pub(super) const fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label_values! {
    /// How a TLS handshake with a client ended.
    Handshake {
        /// With a full key exchange and certificate.
        Full = "full",
        /// With a session ticket.
        Resumed = "resumed",
        /// Not at all: refused, timed out or broken off.
        Failed = "failed",
    }
}

label_values! {
    /// What there was too much of when a connection was refused.
    ConnectionRefused {
        /// Connections on the thread, and none that could make room.
        Connections = "connections",
        /// Connections for the file descriptors there are.
        Descriptors = "descriptors",
        /// Memory or descriptors in use.
        Pressure = "pressure",
        /// Unfinished handshakes on the thread.
        Handshakes = "handshakes",
        /// Connections of one client network.
        AddressConnections = "address_connections",
        /// New connections of one client network in a short time.
        AddressRate = "address_rate",
        /// Unfinished handshakes of one client network.
        AddressHandshakes = "address_handshakes",
        /// None: the client's network is banned.
        Banned = "banned",
    }
}

label_values! {
    /// Why a client was cut off, or asked to leave.
    ClientCut {
        /// A request head did not come in time.
        SlowHead = "slow_head",
        /// Its request body came too slowly.
        SlowBody = "slow_body",
        /// It took a response too slowly.
        SlowReader = "slow_reader",
        /// It was idle, and another connection needed the room.
        Idle = "idle",
        /// It had not sent a whole request, and another connection needed the room.
        Unused = "unused",
        /// It did not read its response, nor did many others.
        Stalled = "stalled",
        /// The process was short of memory or descriptors.
        Pressure = "pressure",
    }
}

label_values! {
    /// How one attempt at an origin ended.
    OriginResult {
        /// A response head below 500 came.
        Answered = "answered",
        /// A response head with a 5xx status came: the origin can be reached but does badly.
        ServerError = "server_error",
        /// No connection: refused, unreachable, name not resolved, TLS failed.
        ConnectFailed = "connect_failed",
        /// A time limit passed before the response head was complete.
        TimedOut = "timed_out",
        /// The connection broke, or what came was not HTTP that can be passed on.
        Broken = "broken",
    }
}

impl OriginResult {
    /// Whether the exchange itself failed; an answer with a 5xx status is an answer.
    pub fn is_failure(self) -> bool {
        !matches!(self, Self::Answered | Self::ServerError)
    }
}

label_values! {
    /// Where the connection for an attempt came from.
    OriginConnection {
        /// It was made for this attempt.
        New = "new",
        /// It was in the pool, or has room for another stream.
        Reused = "reused",
        /// It could not be made.
        Failed = "failed",
    }
}

label_values! {
    /// What happened when a request could have been tried again.
    Retry {
        /// It was tried again.
        Made = "made",
        /// It was not, because too large a share of requests had been tried again already.
        BudgetExhausted = "budget_exhausted",
    }
}

label_values! {
    /// What an HTTP/2 peer sent too much of.
    Flood {
        /// Requests given up or made to fail (CVE-2023-44487, CVE-2025-8671).
        Resets = "resets",
        /// Requests, or interim responses, that never came to an answer.
        Headers = "headers",
        /// CONTINUATION.
        Continuations = "continuations",
        /// DATA with no or next to no bytes.
        Data = "data",
        /// PING.
        Pings = "pings",
        /// SETTINGS.
        Settings = "settings",
        /// PRIORITY and PRIORITY_UPDATE.
        Priorities = "priorities",
        /// WINDOW_UPDATE.
        Windows = "windows",
        /// GOAWAY.
        Goaways = "goaways",
        /// Frames of types nobody knows.
        Unknown = "unknown",
        /// What a bound of the protocol library is for: unread resets, field lists, fragments, empty DATA.
        Limits = "limits",
    }
}

label_values! {
    /// How a request's wait for a connection to an origin ended.
    Wait {
        /// It got one.
        Served = "served",
        /// It did not even begin: as many as may wait did.
        Full = "full",
        /// Its time was over.
        Late = "late",
        /// Its client went away.
        Left = "left",
    }
}

/// Failures (fault and reason) told apart at most; the last place is shared by all further ones.
pub(super) const MAX_FAILURES: usize = 64;

/// Gives each pair of fault and reason a dense index, without a lock; the pairs are constants of the program, so few.
#[derive(Debug)]
pub(super) struct Failures([OnceLock<(Fault, &'static str)>; MAX_FAILURES]);

impl Failures {
    pub(super) fn new() -> Self {
        Self([const { OnceLock::new() }; MAX_FAILURES])
    }

    /// The index of a pair, given out on first sight.
    pub(super) fn index(&self, fault: Fault, reason: &'static str) -> usize {
        let (distinct, last) = self.0.split_at(MAX_FAILURES - 1);
        for (index, place) in distinct.iter().enumerate() {
            // Two threads may want this place at once: whoever comes second reads what the first has put there.
            if *place.get_or_init(|| (fault, reason)) == (fault, reason) {
                return index;
            }
        }
        for place in last {
            place.get_or_init(|| (Fault::Edge, "other"));
        }
        MAX_FAILURES - 1
    }

    pub(super) fn label(&self, index: usize) -> Option<(Fault, &'static str)> {
        self.0.get(index)?.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_counted_under_itself_or_its_family() {
        let exact = EXACT_STATUSES;
        assert!(exact.is_sorted() && STATUS_SLOTS < usize::from(u8::MAX));
        for status in 0..=u16::MAX {
            let expected = match status {
                _ if exact.contains(&status) => status.to_string(),
                100..=599 => format!("{}xx", status / 100),
                _ => "none".to_owned(),
            };
            assert_eq!(status_label(status_slot(status)), expected);
        }
    }

    #[test]
    fn protocols_sit_at_their_index() {
        for (index, &protocol) in PROTOCOLS.iter().enumerate() {
            assert_eq!(protocol_slot(protocol), index);
        }
        assert_eq!(incomplete_slot(Completion::Complete), None);
        assert!(OriginResult::ALL.iter().enumerate().all(|(index, result)| result.index() == index));
    }

    #[test]
    fn failures_keep_their_index_and_their_number_is_bounded() {
        let failures = Failures::new();
        let first = failures.index(Fault::Origin, "timed_out");
        assert_ne!(failures.index(Fault::Visitor, "timed_out"), first);
        assert_eq!(failures.index(Fault::Origin, "timed_out"), first);
        for i in 0..200 {
            let reason: &'static str = format!("reason_{i}").leak();
            assert!(failures.index(Fault::Edge, reason) < MAX_FAILURES);
        }
        assert_eq!(failures.index(Fault::Origin, "timed_out"), first);
        assert_eq!(failures.label(MAX_FAILURES - 1), Some((Fault::Edge, "other")));
    }
}
