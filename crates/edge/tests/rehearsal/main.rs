//! What a taster does with a generation: deferred work, golden requests, and probes from outside, against a real edge.

mod deferred;
#[cfg(feature = "faults")]
mod faults;
mod golden;
mod probe;
mod stage;
