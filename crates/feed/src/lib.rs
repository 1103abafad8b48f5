//! Data files from elsewhere: fetched, checked against the one in force, kept on disk.

pub mod store;
#[cfg(test)]
mod testing;
