//! What may be kept and reused: RFC 9111 and its family. Pure: time is an argument, nothing is read or written.
//!
//! A request has a `key`; of what is stored under it, `vary` says which response it selects and `reuse` whether that answers; if so,
//! `serve` makes the answer, and `status` says how it came about. If not, the origin is asked, and `keep` judges its answer; a 304
//! freshens what is stored. What changes something on the origin `invalidate`s.

pub mod directives;
pub mod invalidate;
pub mod keep;
pub mod key;
mod lifetime;
pub mod range;
pub mod reuse;
pub mod serve;
pub mod settings;
pub mod status;
pub mod stored;
#[cfg(test)]
mod tests;
pub mod validators;
pub mod vary;

use base::headers::HeaderList;

/// A request, as far as caching goes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// Its method.
    pub method: &'r [u8],
    /// `http` or `https`.
    pub scheme: &'r [u8],
    /// Its host, in lower case, with its port unless that is the scheme's own.
    pub host: &'r [u8],
    /// Path and query.
    pub target: &'r [u8],
    /// Its fields.
    pub fields: &'r HeaderList,
    /// What is known of the visitor.
    pub visitor: Visitor<'r>,
}

/// What is known of a visitor; `None` is not known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Visitor<'r> {
    /// Kind of device.
    pub device: Option<&'r str>,
    /// Country, two letters.
    pub country: Option<&'r str>,
    /// The language it likes best.
    pub language: Option<&'r str>,
}

/// A response, as far as caching goes.
#[derive(Clone, Copy, Debug)]
pub struct Response<'r> {
    /// Its status.
    pub status: u16,
    /// Its fields.
    pub fields: &'r HeaderList,
}
