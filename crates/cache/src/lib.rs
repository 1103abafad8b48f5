//! HTTP caching. `semantics` says what may be kept, reused, combined and invalidated, and with which fields; it is pure: time is an
//! argument. `memory` and `disk` keep objects; `marks` makes purges effective at once.

pub mod disk;
pub mod key;
pub mod marks;
pub mod memory;
pub mod semantics;
