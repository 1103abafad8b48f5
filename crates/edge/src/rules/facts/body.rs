//! What rules see of a request's body: a bounded beginning of it.

use std::cell::OnceCell;

use bytes::Bytes;
use expr::{Fetched, Value};

use super::multipart::Multipart;
use super::{Facts, parse, text};

/// Fields of a form that are read; what a form with more of them holds is not known.
const FORM_FIELDS_MOST: usize = 4096;

/// The beginning of a body.
#[derive(Default)]
pub struct Inspected {
    /// Its first bytes.
    pub prefix: Bytes,
    /// Whether there are more.
    pub truncated: bool,
    /// Its whole length, where that is known.
    pub size: Option<u64>,
    form: OnceCell<Option<parse::Arguments>>,
    multipart: OnceCell<Option<Multipart>>,
}

impl Inspected {
    /// The beginning of a body, and what is known of the rest.
    pub fn new(prefix: Bytes, truncated: bool, size: Option<u64>) -> Self {
        Self { prefix, truncated, size, form: OnceCell::new(), multipart: OnceCell::new() }
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

    /// In lower case, without parameters.
    pub(super) fn body_mime(&self) -> Fetched<'_> {
        let kept = &self.fields().mime;
        text(kept.get_or_init(|| parse::media_type(self.content_type())))
    }

    fn content_type(&self) -> &[u8] {
        self.head.headers.get(b"content-type").unwrap_or_default()
    }

    /// Of a form; empty for other media types.
    pub(super) fn body_form(&self) -> Option<&parse::Arguments> {
        let body = self.body.as_ref()?;
        let read = || {
            if parse::media_type(self.content_type()) != b"application/x-www-form-urlencoded" {
                return Some(parse::Arguments::default());
            }
            let fields = 1 + memchr::memchr_iter(b'&', &body.prefix).count();
            (fields <= FORM_FIELDS_MOST).then(|| parse::Arguments::decoded(&body.prefix))
        };
        body.form.get_or_init(read).as_ref()
    }

    /// Of a form in parts; empty for other media types.
    pub(super) fn body_multipart(&self) -> Option<&Multipart> {
        let body = self.body.as_ref()?;
        let read = || {
            let kind = self.content_type();
            if !parse::media_type(kind).starts_with(b"multipart/") {
                return Some(Multipart::default());
            }
            Multipart::read(&body.prefix, kind, body.truncated)
        };
        body.multipart.get_or_init(read).as_ref()
    }
}
