//! edge

pub mod forwarded;
pub mod hop;
pub mod upstream;
