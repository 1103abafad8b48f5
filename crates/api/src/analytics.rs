//! What analytics answers: JSON lines over a unix socket, one question per connection, then items until `End`.

use base::happening::Happening;
use base::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest question, in bytes.
pub const MAX_QUERY_BYTES: usize = 64 * 1024;
/// Longest item, in bytes.
pub const MAX_ITEM_BYTES: usize = 4 << 20;
/// Most events one answer holds, unless it follows.
pub const MAX_EVENTS: u32 = 100_000;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
pub enum Query {
    /// Events, oldest first: `Item::Request` and `Item::Happening`.
    Events {
        /// Which.
        filter: Filter,
        /// The last so many of those there are; at most `MAX_EVENTS`.
        limit: u32,
        /// Then those that come, until the connection is closed.
        follow: bool,
    },
    /// How it goes at present: one `Item::Top`.
    Top,
    /// Figures per minute and site, oldest first: `Item::Minute`.
    Minutes {
        /// From this time on.
        since: Timestamp,
        /// Of this site only.
        #[serde(default)]
        site: Option<String>,
    },
}

/// Which events are meant. Whatever is left out does not restrict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Requests are meant.
    pub requests: bool,
    /// Operational events are meant.
    pub operations: bool,
    /// Of this site only. Operational events that concern no site in particular are left out too.
    #[serde(default)]
    pub site: Option<String>,
    /// Requests with a status from the first to the second only.
    #[serde(default)]
    pub status: Option<(u16, u16)>,
    /// From this time on.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { requests: true, operations: true, site: None, status: None, since: None }
    }
}

impl Filter {
    /// Whether a request of this site and status, at this time, is meant.
    pub fn takes_request(&self, site: Option<&str>, status: u16, at: Timestamp) -> bool {
        let of_site = self.site.as_deref().is_none_or(|wanted| site == Some(wanted));
        let of_status = self.status.is_none_or(|(from, to)| (from..=to).contains(&status));
        self.requests && of_site && of_status && self.since.is_none_or(|since| at >= since)
    }

    /// Whether an operational event is meant.
    pub fn takes_happening(&self, happening: &Happening) -> bool {
        let of_site = self.site.as_ref().is_none_or(|wanted| happening.site.as_ref() == Some(wanted));
        self.operations && of_site && self.since.is_none_or(|since| happening.at >= since)
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "snake_case")]
pub enum Item {
    /// A request.
    Request(Box<RequestView>),
    /// An operational event.
    Happening(Box<Happening>),
    /// How it goes at present.
    Top(Box<Top>),
    /// A minute of a site.
    Minute(Box<Minute>),
    /// Requests that are not told of here: whoever follows read too slowly, or analytics was not told itself.
    Missed {
        /// How many.
        requests: u64,
    },
    /// What there was has been told; whoever follows is told what comes from now on.
    Caught,
    /// There is no more.
    End,
    /// The question cannot be answered.
    Refused {
        /// Why, in words.
        message: String,
    },
}

/// A request event as people and scripts see it (`base::event::RequestEvent`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestView {
    /// Receipt.
    pub id: String,
    /// When the head was complete.
    pub at: Timestamp,
    /// The client's network: its address without host bits (/24, /48).
    pub network: String,
    /// `http/1.0`, `http/1.1`, `h2`.
    pub protocol: String,
    /// `TLSv1.2`, `TLSv1.3`; none on a plain connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<String>,
    /// JA4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ja4: Option<String>,
    /// How an HTTP/2 client introduced itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub introduction: Option<String>,
    /// Method.
    pub method: String,
    /// Host.
    pub host: String,
    /// Path and query.
    pub target: String,
    /// Name of the site; none when no site has that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Generation it was served by.
    pub generation: u64,
    /// What modules said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<VerdictView>,
    /// Status; 0 when the client left before there was one.
    pub status: u16,
    /// Whose fault a failure was: `visitor`, `edge`, `origin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// Name of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The origin asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Protocol it answered in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_protocol: Option<String>,
    /// Attempts made at origins.
    pub attempts: u8,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
    /// Microseconds until the origin's response head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_wait_us: Option<u64>,
    /// Microseconds until the end of the response.
    pub duration_us: u64,
    /// `complete`, `client_gone`, `origin_cut`, `timed_out`.
    pub completion: String,
    /// User-Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Referer without query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub referer: Option<String>,
    /// Requests this one stands for.
    pub weight: u32,
}

/// What a module said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictView {
    /// The module.
    pub module: String,
    /// What it said.
    pub outcome: String,
    /// Why.
    pub reason: String,
}

/// Counts of a stretch of time. Sampled requests count with their weight.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Requests that ended.
    pub requests: u64,
    /// Of those, by first digit of the status; `[0]` are those without one.
    pub by_class: [u64; 6],
    /// Failures that were the visitor's, the edge's and the origin's fault.
    pub faults: [u64; 3],
    /// Requests whose origin answered 5xx or failed.
    pub origin_errors: u64,
    /// Request body bytes.
    pub bytes_in: u64,
    /// Response body bytes.
    pub bytes_out: u64,
    /// Half of the requests took at most this many microseconds; none without requests. Right to 7 %.
    #[serde(default)]
    pub p50_us: Option<u64>,
    /// 95 of 100 did.
    #[serde(default)]
    pub p95_us: Option<u64>,
    /// 99 of 100 did.
    #[serde(default)]
    pub p99_us: Option<u64>,
}

impl Figures {
    /// Requests answered with 5xx.
    pub fn errors(&self) -> u64 {
        self.by_class[5]
    }
}

/// A name and how often it occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// The name.
    pub name: String,
    /// How often, at most: where few counters count many names, it may be less.
    pub count: u64,
}

/// What is known of one site in one stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteFigures {
    /// The site; none for hosts that no site has.
    #[serde(default)]
    pub site: Option<String>,
    /// Counts.
    pub figures: Figures,
}

/// A minute of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Minute {
    /// Its beginning.
    pub at: Timestamp,
    /// The site; none for hosts that no site has.
    #[serde(default)]
    pub site: Option<String>,
    /// Counts.
    pub figures: Figures,
    /// Details.
    pub details: Details,
}

/// What was seen most.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Requests by protocol.
    pub protocols: Vec<Named>,
    /// Verdicts, as `module outcome`.
    pub verdicts: Vec<Named>,
    /// Requests by origin.
    pub origins: Vec<Named>,
    /// Requests by path.
    pub paths: Vec<Named>,
    /// Requests by client network.
    pub networks: Vec<Named>,
    /// Client networks, about.
    pub distinct_networks: u64,
}

/// How it goes at present.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// Now.
    pub at: Timestamp,
    /// Seconds that the figures are about, up to now.
    pub seconds: f64,
    /// Requests in each of the last seconds, oldest first; the last one is complete.
    pub per_second: Vec<u64>,
    /// Of all sites.
    pub figures: Figures,
    /// Of all sites.
    pub details: Details,
    /// Each site, busiest first.
    pub sites: Vec<SiteFigures>,
    /// What is unlike it was.
    pub anomalies: Vec<Anomaly>,
    /// Changes of the last 30 minutes, newest first.
    pub changes: Vec<Happening>,
    /// Requests that analytics was not told of, in the last minute.
    pub lost: u64,
    /// The database.
    pub store: StoreStatus,
}

/// How the database does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreStatus {
    /// What is wrong with it now; none while it takes what it is given.
    #[serde(default)]
    pub problem: Option<String>,
    /// Entries waiting to be written.
    pub waiting: u64,
    /// Entries given up because too many were waiting.
    pub dropped: u64,
}

/// Something is unlike it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Anomaly {
    /// Since when.
    pub since: Timestamp,
    /// The site; none for hosts that no site has.
    #[serde(default)]
    pub site: Option<String>,
    /// What: `request-rate`, `error-share`, `latency`, `verdict-share`.
    pub signal: String,
    /// What it is.
    pub value: f64,
    /// What it usually is: the median of the last hour.
    pub usual: f64,
    /// What speaks for an attack and what for a fault of one's own.
    pub evidence: Evidence,
    /// What it looks like.
    pub judgement: Judgement,
    /// All of that as a sentence.
    pub sentence: String,
}

/// What came in when an anomaly was noticed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Requests per second, compared with the usual; none when the usual is not known.
    #[serde(default)]
    pub rate_factor: Option<f64>,
    /// Client networks, about.
    pub distinct_networks: u64,
    /// Share of requests from networks not seen before within the hour, 0 to 1; none without requests.
    #[serde(default)]
    pub new_networks_share: Option<f64>,
    /// Share of requests of the busiest network.
    #[serde(default)]
    pub busiest_network_share: Option<f64>,
    /// Busiest paths.
    pub paths: Vec<Named>,
    /// Busiest networks.
    pub networks: Vec<Named>,
    /// Changes of the 30 minutes before, newest first.
    pub changes: Vec<Happening>,
}

/// What an anomaly looks like. Nothing more than that: nobody knows from figures alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// Much more comes in than usual, from few or from new networks, and nothing was changed.
    LooksLikeAttack,
    /// Something was changed not long before, and what comes in is as usual.
    LooksLikeOwnFault,
    /// Neither, or both.
    CannotTell,
}
