//! Desired state in, checked and immutable generation out. Pure: files come in as a `SourceTree`, time as an argument.

pub mod generation;
