//! What every other crate shares: ids, time as a value, seeded random, addresses, and the schema of events. Pure:
//! no sockets, files, ambient clock or ambient randomness; the caller passes time and seeds in.

pub mod address;
pub mod event;
pub mod happening;
pub mod headers;
pub mod id;
pub mod module;
pub mod random;
pub mod time;
