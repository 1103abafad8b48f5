//! What happened to one request, from head to the end of its body; becomes one event, whoever hangs up first.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base::event::{Completion, RequestEvent, Verdicts};
use base::id::RequestId;
use base::time::Timestamp;
use http::Method;

use crate::connection::Connection;
use crate::failure::Verdict;
use crate::message::RequestHead;
use crate::telemetry::bounded_text;
use crate::telemetry::metrics::SiteMetrics;
use crate::upstream::health::InFlight;
use crate::worker::Worker;

/// Longest User-Agent and Referer kept, in bytes.
const MAX_TEXT: usize = 256;
/// Longest method and host kept, in bytes.
const MAX_NAME: usize = 255;
/// Longest target kept, in bytes.
const MAX_TARGET: usize = 2048;

/// The trail of one request. Dropped without `finish`, it tells that the client left, or that its time was over.
pub struct Trail {
    worker: Rc<Worker>,
    started: Instant,
    event: Option<Box<RequestEvent>>,
    /// Counters of the site, once it is known.
    site: Option<Arc<SiteMetrics>>,
    received: Option<Rc<Cell<u64>>>,
    /// Counts as load on the origin until the end.
    load: Option<InFlight>,
    /// A golden request leaves no trace.
    rehearsal: bool,
}

impl Trail {
    /// Begins with a complete head. `client` is refined once trusted proxies have been asked.
    pub fn start(worker: &Rc<Worker>, connection: &Connection, head: Option<&RequestHead>) -> Self {
        let id = worker.next_request_id();
        let text =
            |name: &[u8]| head.and_then(|head| head.headers.get(name)).map(|v| bounded_text(v, MAX_TEXT));
        let referer = text(b"referer").map(|referer| match referer.split_once('?') {
            Some((before, _)) => Box::from(before),
            None => referer,
        });
        let started = Instant::now();
        let event = RequestEvent {
            id,
            at: worker.wall_clock_at(started),
            client: base::address::canonical(connection.peer.ip()),
            protocol: head.map_or(base::event::Protocol::Http11, |head| head.protocol),
            tls: connection.tls.is_some(),
            tls_version: connection.tls.as_ref().map(|tls| tls.version.of_event()),
            ja4: connection.ja4(),
            introduction: connection.introduction(),
            method: head.map(|head| method_name(&head.method)).unwrap_or_default(),
            host: head.map(|head| bounded_text(head.authority.as_bytes(), MAX_NAME)).unwrap_or_default(),
            target: head.map(|head| bounded_text(head.target.as_bytes(), MAX_TARGET)).unwrap_or_default(),
            site: None,
            generation: worker.generation().number,
            verdicts: Verdicts::default(),
            fields: Vec::new(),
            status: 0,
            fault: None,
            reason: None,
            origin: None,
            origin_protocol: None,
            attempts: 0,
            bytes_in: 0,
            bytes_out: 0,
            origin_wait_us: None,
            duration_us: 0,
            completion: Completion::ClientGone,
            user_agent: text(b"user-agent"),
            referer,
            weight: 1,
        };
        worker.request_began();
        Self {
            worker: worker.clone(),
            started,
            event: Some(Box::new(event)),
            site: None,
            received: None,
            load: None,
            rehearsal: connection.listener.rehearsal.is_some(),
        }
    }

    /// When the request's head was complete.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The same moment by the wall clock.
    pub fn at(&self) -> Timestamp {
        self.event.as_ref().map(|event| event.at).unwrap_or_default()
    }

    /// How long the origin's first byte took, once it is here.
    pub fn origin_wait(&self) -> Option<Duration> {
        self.event.as_ref().and_then(|event| event.origin_wait_us).map(Duration::from_micros)
    }

    /// The request's id and receipt.
    pub fn id(&self) -> Option<RequestId> {
        self.event.as_ref().map(|event| event.id)
    }

    /// When the request came, for the `Date` of an answer (RFC 9110 section 5.6.7).
    pub fn http_date(&self) -> String {
        let at = self.event.as_ref().map(|event| event.at).unwrap_or_default();
        http_date(at.seconds())
    }

    /// When the request came, as Unix seconds with milliseconds.
    pub fn timestamp(&self) -> String {
        let at = self.event.as_ref().map(|event| event.at).unwrap_or_default();
        format!("{}.{:03}", at.seconds(), at.0 / 1000 % 1000)
    }

    /// Adds to what is known.
    pub fn note(&mut self, change: impl FnOnce(&mut RequestEvent)) {
        if let Some(event) = &mut self.event {
            change(event);
        }
    }

    /// Notes the site.
    pub fn at_site(&mut self, name: &Arc<str>, metrics: &Arc<SiteMetrics>) {
        self.site = Some(metrics.clone());
        self.note(|event| event.site = Some(name.clone()));
    }

    /// Holds the origin's load up until the end; a retry lets go of the origin tried before.
    pub fn hold(&mut self, load: InFlight) {
        self.load = Some(load);
    }

    /// Notes where received body bytes are counted.
    pub fn count_received(&mut self, counter: Rc<Cell<u64>>) {
        self.received = Some(counter);
    }

    /// Notes that the origin's response head is here.
    pub fn origin_answered(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.started);
        self.note(|event| event.origin_wait_us = u64::try_from(waited.as_micros()).ok());
    }

    /// Notes a failure that the edge answers.
    pub fn failed(&mut self, verdict: &Verdict) {
        self.note(|event| {
            event.fault = Some(verdict.fault);
            event.reason = Some(verdict.reason);
            event.status = verdict.status;
        });
    }

    /// The response's body has ended like this, after so many bytes.
    pub fn finish(&mut self, completion: Completion, bytes_out: u64) {
        let Some(mut event) = self.event.take() else { return };
        if self.rehearsal {
            return self.worker.rehearsal_ended();
        }
        event.completion = completion;
        event.bytes_out = bytes_out;
        event.bytes_in = self.received.as_ref().map_or(0, |counter| counter.get());
        event.duration_us = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        #[cfg(feature = "faults")]
        if crate::fault::without("monotonic") {
            event.duration_us = crate::fault::by_wall_clock(event.at);
        }
        self.worker.request_ended(self.site.as_deref(), &event);
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let cut = self.worker.is_cutting();
        self.finish(if cut { Completion::TimedOut } else { Completion::ClientGone }, 0);
    }
}

/// A method's name; those that nearly all requests have cost no memory.
fn method_name(method: &Method) -> Cow<'static, str> {
    match *method {
        Method::GET => "GET".into(),
        Method::HEAD => "HEAD".into(),
        Method::POST => "POST".into(),
        Method::PUT => "PUT".into(),
        Method::DELETE => "DELETE".into(),
        Method::OPTIONS => "OPTIONS".into(),
        _ => Cow::Owned(bounded_text(method.as_str().as_bytes(), MAX_NAME).into_string()),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`; empty for a clock beyond the year 9999.
fn http_date(seconds: u64) -> String {
    let zoned = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    zoned.map(|at| at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_imf_fixdate() {
        assert_eq!(super::http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }
}
