//! What an operator has said about caching of a request: plain data, made from the rules of the cache settings phase.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Everything a rule can set; the default is a shared cache as RFC 9111 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether responses may be kept; `None` leaves it to the response.
    pub eligible: Option<bool>,
    /// Who says how long responses are kept here.
    pub edge: EdgeLifetime,
    /// Lifetimes by status, which go before all others; the first that has the status counts.
    pub by_status: Vec<(RangeInclusive<u16>, StatusLifetime)>,
    /// How long browsers may keep them.
    pub browser: BrowserLifetime,
    /// What tells two responses apart.
    pub key: KeyParts,
    /// Whether a lifetime is guessed where nobody has said any (RFC 9111 section 4.2.2).
    pub heuristics: bool,
    /// Whether stale responses may be served at all: while new ones are fetched, and when that fails.
    pub serve_stale: bool,
    /// Whether visitors' own `Cache-Control` is heeded (RFC 9111 section 5.2.1); it lets anybody have the origin asked. `only-if-cached` always
    /// is, since it spares the origin.
    pub heed_visitors: bool,
    /// Whether strong entity tags stay strong when a response is changed on its way.
    pub respect_strong_etags: bool,
    /// Whether what is named like a file but is none is not kept (cache deception).
    pub deception_armour: bool,
    /// Whether responses with `Set-Cookie` may be kept, without that field.
    pub strip_set_cookie: bool,
    /// Whether names and fields of Cloudflare are understood and sent.
    pub cloudflare: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            eligible: None,
            edge: EdgeLifetime::RespectOrigin { otherwise: None },
            by_status: Vec::new(),
            browser: BrowserLifetime::RespectOrigin,
            key: KeyParts::default(),
            heuristics: true,
            serve_stale: true,
            heed_visitors: false,
            respect_strong_etags: false,
            deception_armour: false,
            strip_set_cookie: false,
            cloudflare: false,
        }
    }
}

/// Who says how long a response is kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeLifetime {
    /// The origin; where it says nothing, this, and without that the heuristic.
    RespectOrigin {
        /// Where the origin says nothing.
        otherwise: Option<Duration>,
    },
    /// The origin; where it says nothing, the response is not kept.
    OriginOnly,
    /// This, whatever the origin says.
    Override(Duration),
}

/// How long responses of a status are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusLifetime {
    /// They are not.
    NotKept,
    /// This long; zero is asked anew each time.
    For(Duration),
}

/// How long browsers may keep a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrowserLifetime {
    /// As the origin says.
    RespectOrigin,
    /// As the origin says; where it says nothing, not at all.
    OriginOnly,
    /// This long.
    Override(Duration),
    /// Not at all.
    NotKept,
}

/// What tells two responses apart, beside scheme, host, path and query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyParts {
    /// Which arguments of the query count.
    pub query: QueryPart,
    /// Whether their order does not.
    pub sorted_query: bool,
    /// Header fields, in lower case, by their values.
    pub fields: Vec<Vec<u8>>,
    /// Header fields, in lower case, by whether they are there.
    pub fields_present: Vec<Vec<u8>>,
    /// Cookies by their values.
    pub cookies: Vec<Vec<u8>>,
    /// Cookies by whether they are there.
    pub cookies_present: Vec<Vec<u8>>,
    /// The visitor's kind of device.
    pub device: bool,
    /// The visitor's country.
    pub country: bool,
    /// The language the visitor likes best.
    pub language: bool,
    /// Whether HTTP and HTTPS are the same.
    pub any_scheme: bool,
}

/// Which arguments of a query count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryPart {
    /// All of it, as it was sent.
    #[default]
    All,
    /// None.
    None,
    /// These.
    Only(Vec<Vec<u8>>),
    /// All but these.
    Without(Vec<Vec<u8>>),
}
