//! Data files: fetched, checked, and the last good ones kept.

pub mod clickhouse;
pub mod gate;
pub mod source;
pub mod store;
