//! Rules as they are evaluated: phases, in them rules in their order, each a compiled expression and an action.

/// How a response may be compressed, in a rule's order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// Not at all.
    None,
    /// Whatever suits the visitor best.
    Auto,
    /// As without a rule.
    Default,
    /// `gzip` (RFC 1952).
    Gzip,
    /// `br` (RFC 7932).
    Brotli,
    /// `zstd` (RFC 8878).
    Zstd,
}
