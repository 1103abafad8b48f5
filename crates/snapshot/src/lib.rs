//! Desired state in, checked and immutable generation out. Pure: files come in as a `SourceTree`, time as an argument.

mod check;
mod compile;
pub mod desired;
pub mod diagnostic;
pub mod generation;
pub mod geo;
pub mod ids;
pub mod kind;
pub mod lists;
pub mod outline;
pub mod package;
pub mod policy;
mod reference;
mod review;
pub mod routes;
pub mod rules;
mod shape;
pub mod source;
pub mod units;

pub use compile::{Compiled, Input, Mode, command_line_config, compile, defaults, references, unreadable};
pub use reference::reference_markdown;
pub use review::Places;
pub use shape::json_schema;
