//! HTTP caching. `semantics` says what may be kept, reused, combined and invalidated, and with which fields; it is pure: time is an
//! argument. `memory` keeps objects, as many as fit; `marks` makes purges effective at once.

pub mod key;
pub mod marks;
pub mod memory;
pub mod semantics;
