//! Data files: fetched, checked, and the last good ones kept.

pub mod gate;
pub mod source;
pub mod store;
