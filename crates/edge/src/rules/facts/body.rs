//! What rules see of a request's body: a bounded beginning of it.

use std::cell::OnceCell;

use bytes::Bytes;
use expr::{Fetched, Value};

use super::{Facts, parse, text};

/// The beginning of a body.
#[derive(Default)]
pub struct Inspected {
    /// Its first bytes.
    pub prefix: Bytes,
    /// Whether there are more.
    pub truncated: bool,
    /// Its whole length, where that is known.
    pub size: Option<u64>,
    form: OnceCell<parse::Arguments>,
}

impl Inspected {
    /// The beginning of a body, and what is known of the rest.
    pub fn new(prefix: Bytes, truncated: bool, size: Option<u64>) -> Self {
        Self { prefix, truncated, size, form: OnceCell::new() }
    }
}

impl Facts<'_> {
    pub(super) fn body_raw(&self) -> Fetched<'_> {
        self.body.as_ref().map_or(Fetched::Unknown, |body| text(&body.prefix))
    }

    pub(super) fn body_truncated(&self) -> Fetched<'_> {
        self.body.as_ref().map_or(Fetched::Unknown, |body| Fetched::Value(Value::Bool(body.truncated)))
    }

    pub(super) fn body_size(&self) -> Fetched<'_> {
        let size = self.body.as_ref().and_then(|body| i64::try_from(body.size?).ok());
        size.map_or(Fetched::Unknown, |size| Fetched::Value(Value::Int(size)))
    }

    pub(super) fn body_mime(&self) -> Fetched<'_> {
        let kind = self.head.headers.get(b"content-type").unwrap_or_default();
        text(kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
    }

    /// Of a form; empty for other media types.
    pub(super) fn body_form(&self) -> Option<&parse::Arguments> {
        let body = self.body.as_ref()?;
        Some(body.form.get_or_init(|| {
            let kind = self.head.headers.get(b"content-type").unwrap_or_default();
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            if kind.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") {
                parse::Arguments::decoded(&body.prefix)
            } else {
                parse::Arguments::default()
            }
        }))
    }
}
