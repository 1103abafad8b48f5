//! What rules see of a request: every field of the language, worked out when it is asked for, and once.
//!
//! Plain header fields that were not sent are empty strings, keys of maps that were not sent are Missing, and what nobody here
//! can know is Unknown (decision 0017).

mod body;
mod client;
mod multipart;
mod parse;
mod response;
mod table;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use base::event::Ja4;
use base::id::RequestId;
use base::time::Timestamp;
use expr::{Context, Fetched, FieldId, List, Value};
use snapshot::geo::PlaceText;

pub use self::body::Inspected;
pub use self::response::{Announced, Answered, Timings};
use crate::connection::Connection;
use crate::forwarded::{Client, Scheme};
use crate::generation::{Generation, SiteRuntime};
use crate::h1::syntax;
use crate::lists::Lists;
use crate::message::{BodyLength, HeaderList, RequestHead};
use crate::modules::RequestView;
use crate::normalise;
use crate::path::Path;
use crate::tls::{ClientHello, TlsFacts};
use crate::worker::Worker;

/// Where a request came from and to.
#[derive(Clone, Copy)]
pub struct Surroundings<'r> {
    /// What it came on.
    pub link: Link<'r>,
    /// Who asks.
    pub client: &'r Client,
    /// How the visitor came.
    pub scheme: Scheme,
    /// The site asked.
    pub site: &'r SiteRuntime,
    /// The generation it is served by.
    pub generation: &'r Generation,
    /// When its head was complete.
    pub at: Timestamp,
    /// Its id.
    pub id: Option<RequestId>,
    /// The same moment, by a clock that does not jump.
    pub started: Instant,
}

/// What a request came on.
#[derive(Clone, Copy)]
pub enum Link<'r> {
    /// A connection, on a thread that serves.
    Live(&'r Connection, &'r Worker),
    /// None: somebody wants to know what would become of such a request. Where it would have come in is this.
    Imagined(SocketAddr),
}

impl<'r> Link<'r> {
    /// What the handshake settled; `None` on a plain connection.
    pub fn tls(self) -> Option<&'r TlsFacts> {
        match self {
            Self::Live(connection, _) => connection.tls.as_ref(),
            Self::Imagined(_) => None,
        }
    }

    /// The ClientHello, where it was kept.
    pub fn hello(self) -> Option<&'r ClientHello> {
        match self {
            Self::Live(connection, _) => connection.hello.as_ref(),
            Self::Imagined(_) => None,
        }
    }

    /// Its fingerprint.
    pub fn ja4(self) -> Option<&'r Ja4> {
        match self {
            Self::Live(connection, _) => connection.ja4_ref(),
            Self::Imagined(_) => None,
        }
    }

    /// This end of it.
    pub fn local(self) -> SocketAddr {
        match self {
            Self::Live(connection, _) => connection.local,
            Self::Imagined(local) => local,
        }
    }

    /// The way to the visitor.
    fn path(self) -> Path {
        match self {
            Self::Live(connection, _) => connection.path,
            Self::Imagined(_) => Path::default(),
        }
    }

    fn random(self) -> Option<[u64; 2]> {
        match self {
            Self::Live(_, worker) => {
                Some(worker.with_random(|random| [random.next_u64(), random.next_u64()]))
            }
            Self::Imagined(_) => None,
        }
    }

    fn is_golden(self) -> bool {
        matches!(self, Self::Live(connection, _) if connection.listener.rehearsal.is_some())
    }
}

/// A request as rules see it, and as rules have changed it so far.
pub struct Facts<'r> {
    head: RequestHead,
    surroundings: Surroundings<'r>,
    lists: Lists<'r>,
    /// The target in its one spelling, where that is another than what goes to the origin.
    spelled: Option<String>,
    /// The target as it came, once something has changed it.
    received_target: Option<String>,
    /// Likewise the header fields.
    received_headers: Option<HeaderList>,
    /// What is worked out of the head as it is now; forgotten when a rule changes it. Without rules nothing is.
    url: OnceCell<Box<Url>>,
    received_url: OnceCell<Box<Url>>,
    fields: OnceCell<Box<Fields>>,
    client: OnceCell<Box<client::ClientFacts>>,
    /// What is announced of the body: framing is no longer among the header fields.
    announced: BodyLength,
    body: Option<Inspected>,
    /// When that had come.
    inspected_at: Option<Instant>,
}

/// What is worked out of a target.
#[derive(Default)]
struct Url {
    full: OnceCell<String>,
    extension: OnceCell<String>,
    args: OnceCell<parse::Arguments>,
}

/// What is worked out of header fields.
#[derive(Default)]
struct Fields {
    headers: OnceCell<parse::Headers>,
    cookies: OnceCell<Vec<(Vec<u8>, Vec<u8>)>>,
    cookie: OnceCell<Vec<u8>>,
    forwarded_for: OnceCell<Vec<u8>>,
    languages: OnceCell<Vec<Vec<u8>>>,
    mime: OnceCell<Vec<u8>>,
}

impl<'r> Facts<'r> {
    /// A request that no rule has changed yet.
    pub fn new(head: RequestHead, surroundings: Surroundings<'r>) -> Self {
        let lists = Lists::new(surroundings.generation);
        let mut facts = Self {
            head,
            surroundings,
            lists,
            spelled: None,
            received_target: None,
            received_headers: None,
            url: OnceCell::new(),
            received_url: OnceCell::new(),
            fields: OnceCell::new(),
            client: OnceCell::new(),
            announced: BodyLength::Absent,
            body: None,
            inspected_at: None,
        };
        facts.spell();
        facts
    }

    /// Brings the target into its one spelling, for rules, and where that is wanted for the origin.
    fn spell(&mut self) {
        self.spelled = None;
        let site = &self.surroundings.site.site;
        let Some(normalize) =
            site.normalize.filter(|normalize| normalize.for_origin || !site.rules.is_empty())
        else {
            return;
        };
        let Some(spelled) = normalise::target(&self.head.target, normalize.way) else { return };
        if normalize.for_origin {
            let before = std::mem::replace(&mut self.head.target, spelled);
            self.received_target.get_or_insert(before);
        } else {
            self.spelled = Some(spelled);
        }
    }

    /// Path and query as rules see them.
    fn target(&self) -> &str {
        self.spelled.as_deref().unwrap_or(&self.head.target)
    }

    /// The head as it is now.
    pub fn head(&self) -> &RequestHead {
        &self.head
    }

    /// What modules see of it.
    pub fn view(&self) -> RequestView<'_> {
        let Surroundings { link, client, scheme, site, generation, started, .. } = self.surroundings;
        let (golden, started) = (link.is_golden(), self.inspected_at.unwrap_or(started));
        RequestView { head: &self.head, client, scheme, site, generation, golden, started }
    }

    /// Where it came from and to.
    pub fn surroundings(&self) -> &Surroundings<'r> {
        &self.surroundings
    }

    /// Lists and places.
    pub fn lists(&self) -> &Lists<'r> {
        &self.lists
    }

    /// Gives it another path and query, in origin form; `raw.` fields keep the original.
    pub fn rewrite(&mut self, target: String) {
        let before = std::mem::replace(&mut self.head.target, target);
        self.received_target.get_or_insert(before);
        self.url = OnceCell::new();
        self.spell();
    }

    /// Path and query as the origin would get them.
    pub fn sent(&self) -> (&str, &str) {
        split(&self.head.target)
    }

    /// The header fields, to be changed.
    pub fn headers_mut(&mut self) -> &mut HeaderList {
        self.fields = OnceCell::new();
        self.received_headers.get_or_insert_with(|| self.head.headers.clone());
        &mut self.head.headers
    }

    /// The header fields as they came, if a rule has changed them.
    pub fn received_headers(&self) -> Option<&HeaderList> {
        self.received_headers.as_ref()
    }

    /// The first cookie of a name.
    pub fn cookie(&self, name: &[u8]) -> Option<&[u8]> {
        self.cookies().iter().find_map(|(found, value)| (found == name).then_some(&**value))
    }

    /// What its head announces of its body, before any rule asks.
    pub fn announces(&mut self, length: BodyLength) {
        self.announced = length;
    }

    /// What was seen of its body.
    pub fn inspected(&mut self, body: Inspected) {
        self.body = Some(body);
        // A visitor who takes long to send it uses up nobody's time.
        self.inspected_at = Some(Instant::now());
    }

    /// The path as it is now.
    pub fn path(&self) -> &str {
        split(self.target()).0
    }

    /// The query as it is now, without `?`; empty without one.
    pub fn query(&self) -> &str {
        split(self.target()).1
    }

    /// Scheme, host, path and query as they are now.
    pub fn full_uri(&self) -> &str {
        self.url().full.get_or_init(|| self.full(self.target()))
    }

    /// The host asked for, without port.
    pub fn host(&self) -> &str {
        let (host, _) = syntax::split_port(self.head.authority.as_bytes());
        std::str::from_utf8(host).unwrap_or_default()
    }

    /// The visitor's address.
    pub fn address(&self) -> IpAddr {
        self.surroundings.client.address
    }

    fn full(&self, target: &str) -> String {
        format!("{}://{}{target}", self.surroundings.scheme.name(), self.head.authority)
    }

    fn target_received(&self) -> &str {
        self.received_target.as_deref().unwrap_or(&self.head.target)
    }

    fn url(&self) -> &Url {
        self.url.get_or_init(Box::default)
    }

    /// The URL as it came: the same as now, unless a rule has changed it.
    fn url_received(&self) -> &Url {
        let same = self.received_target.is_none() && self.spelled.is_none();
        if same { self.url() } else { self.received_url.get_or_init(Box::default) }
    }

    fn client(&self) -> &client::ClientFacts {
        self.client.get_or_init(Box::default)
    }

    fn fields(&self) -> &Fields {
        self.fields.get_or_init(Box::default)
    }

    /// The first line of a field; empty when it was not sent.
    fn line(&self, name: &[u8]) -> Fetched<'_> {
        text(self.head.headers.get(name).unwrap_or_default())
    }

    /// All lines of a field in one.
    fn joined<'f>(&'f self, name: &[u8], separator: &[u8], kept: &'f OnceCell<Vec<u8>>) -> Fetched<'f> {
        let mut lines = self.head.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let first = lines.next().map(|(_, value)| value).unwrap_or_default();
        if lines.next().is_none() {
            return text(first);
        }
        let all = || {
            let lines: Vec<_> =
                self.head.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name)).collect();
            lines.iter().map(|(_, value)| *value).collect::<Vec<_>>().join(separator)
        };
        text(kept.get_or_init(all))
    }

    fn place(&self, what: PlaceText) -> Fetched<'_> {
        client::known(self.lists.place(self.address(), what))
    }

    fn headers(&self) -> &parse::Headers {
        self.fields().headers.get_or_init(|| {
            parse::Headers::of(
                self.head.headers.iter(),
                Some(self.head.authority.as_bytes()).filter(|host| !host.is_empty()),
                self.announced,
            )
        })
    }

    fn cookies(&self) -> &Vec<(Vec<u8>, Vec<u8>)> {
        self.fields().cookies.get_or_init(|| {
            let lines = self.head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"cookie"));
            lines.flat_map(|(_, value)| parse::cookies(value)).collect()
        })
    }

    fn languages(&self) -> &Vec<Vec<u8>> {
        self.fields().languages.get_or_init(|| {
            let lines =
                self.head.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"accept-language"));
            parse::languages(lines.map(|(_, value)| value))
        })
    }

    fn args<'f>(&'f self, url: &'f Url, target: &str) -> &'f parse::Arguments {
        url.args.get_or_init(|| parse::Arguments::of(split(target).1.as_bytes()))
    }

    fn extension<'f>(&'f self, url: &'f Url, target: &str) -> Fetched<'f> {
        text(url.extension.get_or_init(|| parse::extension(split(target).0)).as_bytes())
    }
}

impl Context for Facts<'_> {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        table::of(field).map_or(Fetched::Unknown, |read| read(self))
    }

    fn list(&self, name: &str) -> Option<&dyn List> {
        self.lists.find(name)
    }

    fn hmac_sha256(&self, key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
        #[cfg(feature = "faults")]
        crate::fault::in_rule_function(key, self.view().golden);
        crate::tls::hmac_sha256(key, message)
    }
}

/// Path and query of a target.
pub(super) fn split(target: &str) -> (&str, &str) {
    target.split_once('?').unwrap_or((target, ""))
}

fn text(bytes: &[u8]) -> Fetched<'_> {
    Fetched::Value(Value::text(bytes))
}
