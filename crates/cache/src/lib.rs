//! HTTP caching. `semantics` says what may be kept, reused, combined and invalidated, and with which fields; it is pure: time is an
//! argument. `memory` keeps objects, as many as fit.

pub mod key;
pub mod memory;
pub mod semantics;
