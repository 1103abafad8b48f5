//! Who the client is when the peer is a proxy, and what the origin is told about it.
//!
//! Header fields are taken as (name, value) pairs, names in any case. Nothing a peer says is believed unless the peer
//! is in the configured set of trusted proxies; then exactly one kind of field is believed, the first present of:
//!
//! 1. `X-Forwarded-For` with `X-Forwarded-Proto` and `-Host`,
//! 2. `Forwarded` (RFC 7239),
//! 3. `CF-Connecting-IP`.
//!
//! The order is about forgery, not taste: most proxies, Cloudflare among them, append to `X-Forwarded-For` and pass a
//! visitor's own `Forwarded` or `CF-Connecting-IP` on unread, so these count only where the first is absent.
//! A list is walked from its end, past trusted proxies, to the first address that is not one.

use std::net::IpAddr;

use base::address::{PrefixSet, canonical};
use smallvec::SmallVec;
use snapshot::generation::Compatibility;

use self::grammar::{Element, Node, elements, loose_node};

pub mod cloudflare;
mod grammar;
mod path;

pub use self::path::{LoopError, check_loop, write_cdn_loop, write_via};

/// Hops of a chain of proxies that are looked at; a longer chain of trusted ones is taken for malformed.
pub const MAX_HOPS: usize = 32;
/// Lines of one of these fields that are read; more is taken for malformed.
pub const MAX_LINES: usize = 32;
/// Longest host believed or passed on in these fields: a DNS name, a colon and a port.
pub const MAX_HOST_BYTES: usize = 261;

type Lines<'a> = SmallVec<[&'a [u8]; 4]>;

/// The scheme of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        match text {
            _ if text.eq_ignore_ascii_case(b"http") || text.eq_ignore_ascii_case(b"ws") => Some(Self::Http),
            _ if text.eq_ignore_ascii_case(b"https") || text.eq_ignore_ascii_case(b"wss") => {
                Some(Self::Https)
            }
            _ => None,
        }
    }
}

/// Which statement about the client was believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// None: the peer is not trusted, says nothing, or says something malformed.
    Peer,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded`.
    Forwarded,
    /// `CF-Connecting-IP`.
    CfConnectingIp,
}

/// Whom a request is attributed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Canonical address (never an IPv4-mapped one).
    pub address: IpAddr,
    /// Scheme the client used towards the first trusted proxy, if that was said.
    pub scheme: Option<Scheme>,
    /// Host the client asked that proxy for, if that was said: visible ASCII, at most `MAX_HOST_BYTES`.
    pub host: Option<Box<str>>,
    /// Whether the peer is a trusted proxy, believed or not.
    pub via_trusted: bool,
    /// What the address comes from.
    pub source: Source,
}

/// Finds out who made a request that came from `peer`.
///
/// A malformed field is as good as none and the request is the peer's own: a forger gains nothing by breaking it.
/// Behind `unknown` or an obfuscated identifier nobody is known, so the last known proxy stands for the client.
pub fn client_of<'a, H>(peer: IpAddr, trusted: &PrefixSet, headers: H) -> Client
where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let peer = canonical(peer);
    let via_trusted = trusted.contains(peer);
    let direct = Client { address: peer, scheme: None, host: None, via_trusted, source: Source::Peer };
    if !via_trusted {
        return direct;
    }
    let Some(chain) = collect(headers.clone(), b"x-forwarded-for") else { return direct };
    if newest_first(&chain).next().is_some() {
        return from_x_forwarded(&direct, trusted, &chain, headers).unwrap_or(direct);
    }
    let Some(chain) = collect(headers.clone(), b"forwarded") else { return direct };
    if !chain.is_empty() {
        return from_forwarded(&direct, trusted, &chain).unwrap_or(direct);
    }
    let address = cf_connecting_ip(headers.clone());
    let (scheme, host) = x_forwarded_at(headers, 0);
    let source = if address.is_some() { Source::CfConnectingIp } else { Source::Peer };
    Client { address: address.unwrap_or(peer), scheme, host, via_trusted, source }
}

/// Whether an incoming request field is copied to the origin, as far as this module is concerned.
///
/// Not copied: what the edge writes itself, and, from peers that are not trusted, everything by which a proxy asserts
/// something about its client. `_` counts as `-`, since CGI-like origins cannot tell `X_Forwarded_For` from the real one.
/// `Via` and `CDN-Loop` are rewritten too; their old values go into `write_via` and `write_cdn_loop`.
pub fn passes(name: &[u8], via_trusted: bool, compatibility: Compatibility) -> bool {
    const ALWAYS_WRITTEN: [&str; 6] =
        ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "via", "cdn-loop"];
    const CLOUDFLARE_WRITTEN: [&str; 3] = ["cf-connecting-ip", "cf-ray", "cf-visitor"];
    const ASSERTED: [&str; 2] = ["true-client-ip", "x-real-ip"];
    const ASSERTED_PREFIXES: [&str; 2] = ["cf-", "x-forwarded-"];
    // All of the above begin with one of these; most fields do not, and this runs for every field.
    if !matches!(name.first(), Some(b'c' | b'C' | b'f' | b'F' | b't' | b'T' | b'v' | b'V' | b'x' | b'X')) {
        return true;
    }
    let is = |list: &[&str]| list.iter().any(|entry| name.len() == entry.len() && begins(name, entry));
    if is(&ALWAYS_WRITTEN) || (compatibility == Compatibility::Cloudflare && is(&CLOUDFLARE_WRITTEN)) {
        return false;
    }
    via_trusted || !(is(&ASSERTED) || ASSERTED_PREFIXES.iter().any(|prefix| begins(name, prefix)))
}

/// What the edge knows of one request when it writes the forwarding fields for the origin.
#[derive(Clone, Copy, Debug)]
pub struct Visit<'a> {
    /// From `client_of`.
    pub client: &'a Client,
    /// The other end of the connection the request came on.
    pub peer: IpAddr,
    /// Scheme of that connection.
    pub scheme: Scheme,
    /// Host of the request (`Host` or `:authority`, with the port if it had one), empty if none.
    pub host: &'a [u8],
}

impl Visit<'_> {
    /// Scheme the client used, as far as known: the value of `X-Forwarded-Proto`.
    pub fn client_scheme(&self) -> Scheme {
        self.client.scheme.unwrap_or(self.scheme)
    }

    /// Host the client asked for, as far as known: the value of `X-Forwarded-Host`, `None` to leave it out.
    pub fn client_host(&self) -> Option<&str> {
        self.client.host.as_deref().or_else(|| checked_host(self.host))
    }

    /// Writes the value of `Forwarded` (RFC 7239): the believed chain, then an element for the peer.
    ///
    /// `headers` are those given to `client_of`. A chain believed from another field is translated (section 7.4); one
    /// that was not believed is dropped, so the origin can never read a different client than the edge did.
    pub fn write_forwarded<'h, H>(&self, headers: H, out: &mut Vec<u8>)
    where
        H: Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    {
        if self.client.source == Source::Forwarded {
            append_lines(headers, b"forwarded", out);
        } else {
            for node in self.believed(headers) {
                out.extend_from_slice(b"for=");
                write_node(node, out);
                out.extend_from_slice(b", ");
            }
        }
        out.extend_from_slice(b"for=");
        write_node(Node::Address(canonical(self.peer)), out);
        out.extend_from_slice(b";proto=");
        out.extend_from_slice(self.scheme.name().as_bytes());
        if let Some(host) = checked_host(self.host) {
            out.extend_from_slice(b";host=");
            write_value(host, out);
        }
    }

    /// Writes the value of `X-Forwarded-For`: the believed chain, then the peer.
    pub fn write_x_forwarded_for<'h, H>(&self, headers: H, out: &mut Vec<u8>)
    where
        H: Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    {
        if self.client.source == Source::XForwardedFor {
            append_lines(headers, b"x-forwarded-for", out);
        } else {
            for node in self.believed(headers) {
                match node {
                    Node::Address(address) => write_address(address, out),
                    Node::Hidden => out.extend_from_slice(b"unknown"),
                }
                out.extend_from_slice(b", ");
            }
        }
        write_address(canonical(self.peer), out);
    }

    /// The believed chain without the peer, oldest first, at most `MAX_HOPS`.
    fn believed<'h, H>(&self, headers: H) -> SmallVec<[Node; 4]>
    where
        H: Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
    {
        let lines = |name| collect(headers.clone(), name).unwrap_or_default();
        match self.client.source {
            Source::Peer => SmallVec::new(),
            Source::CfConnectingIp => SmallVec::from_slice(&[Node::Address(self.client.address)]),
            // Beyond the client a chain is hearsay: what cannot be read there is somebody unknown.
            Source::XForwardedFor => {
                let chain = lines(b"x-forwarded-for".as_slice());
                let mut nodes: SmallVec<[Node; 4]> = newest_first(&chain)
                    .take(MAX_HOPS)
                    .map(|item| loose_node(item).unwrap_or(Node::Hidden))
                    .collect();
                nodes.reverse();
                nodes
            }
            Source::Forwarded => elements(&lines(b"forwarded".as_slice()))
                .unwrap_or_default()
                .iter()
                .map(|element| element.node().unwrap_or(Node::Hidden))
                .collect(),
        }
    }
}

fn from_x_forwarded<'a, H>(
    direct: &Client,
    trusted: &PrefixSet,
    chain: &Lines<'a>,
    headers: H,
) -> Option<Client>
where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let (address, hop) = walk(direct.address, trusted, newest_first(chain).map(loose_node))?;
    let (scheme, host) = x_forwarded_at(headers, hop);
    Some(Client { address, scheme, host, via_trusted: true, source: Source::XForwardedFor })
}

fn from_forwarded(direct: &Client, trusted: &PrefixSet, chain: &Lines<'_>) -> Option<Client> {
    let elements = elements(chain)?;
    let (address, hop) = walk(direct.address, trusted, elements.iter().rev().map(Element::node))?;
    let said = elements.iter().rev().nth(hop);
    let scheme = said.and_then(|element| Scheme::parse(element.proto.as_deref()?));
    let host = said.and_then(|element| checked_host(element.host.as_deref()?)).map(Box::from);
    Some(Client { address, scheme, host, via_trusted: true, source: Source::Forwarded })
}

/// Walks a chain, newest hop first, to the client; answers its address and the hop whose statements are about it.
fn walk(
    peer: IpAddr,
    trusted: &PrefixSet,
    nodes: impl Iterator<Item = Option<Node>>,
) -> Option<(IpAddr, usize)> {
    let mut found = (peer, 0);
    for (hop, node) in nodes.enumerate() {
        if hop == MAX_HOPS {
            return None;
        }
        match node? {
            Node::Hidden => return Some((found.0, hop)),
            Node::Address(address) => found = (address, hop),
        }
        if !trusted.contains(found.0) {
            break;
        }
    }
    Some(found)
}

/// `X-Forwarded-Proto` and `-Host` at a hop, counted from the end. Many proxies keep a single value for the whole
/// chain instead of a list, so where the list is shorter its oldest item counts.
fn x_forwarded_at<'a, H>(headers: H, hop: usize) -> (Option<Scheme>, Option<Box<str>>)
where
    H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
{
    let at = |name: &[u8]| {
        let lines = collect(headers.clone(), name)?;
        newest_first(&lines).take(hop + 1).last()
    };
    let scheme = at(b"x-forwarded-proto").and_then(Scheme::parse);
    (scheme, at(b"x-forwarded-host").and_then(checked_host).map(Box::from))
}

/// `CF-Connecting-IP`, if it is there exactly once and is an address.
fn cf_connecting_ip<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<IpAddr> {
    let lines = collect(headers, b"cf-connecting-ip")?;
    let [only] = lines.as_slice() else { return None };
    std::str::from_utf8(only.trim_ascii()).ok()?.parse().ok().map(canonical)
}

/// The values of a field, or `None` when there are more than `MAX_LINES`.
fn collect<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>, name: &[u8]) -> Option<Lines<'a>> {
    let mut lines = Lines::new();
    for (_, value) in headers.filter(|(other, _)| other.eq_ignore_ascii_case(name)) {
        if lines.len() == MAX_LINES {
            return None;
        }
        lines.push(value);
    }
    Some(lines)
}

/// The non-empty items of a list that has no quoted strings, the last one first.
fn newest_first<'s, 'a>(lines: &'s [&'a [u8]]) -> impl Iterator<Item = &'a [u8]> + use<'s, 'a> {
    let items = lines.iter().rev().flat_map(|line| line.rsplit(|&byte| byte == b','));
    items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// Writes the non-empty values of a field, each with `, ` behind it.
fn append_lines<'a>(headers: impl Iterator<Item = (&'a [u8], &'a [u8])>, name: &[u8], out: &mut Vec<u8>) {
    for (other, value) in headers {
        let value = value.trim_ascii();
        if !value.is_empty() && other.eq_ignore_ascii_case(name) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    }
}

/// A host as it may stand in these fields: bytes of a URI host (RFC 3986 section 3.2.2), brackets and a port.
fn checked_host(host: &[u8]) -> Option<&str> {
    let good = (1..=MAX_HOST_BYTES).contains(&host.len())
        && host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+=[]:".contains(byte));
    good.then(|| std::str::from_utf8(host).ok()).flatten()
}

fn write_node(node: Node, out: &mut Vec<u8>) {
    match node {
        Node::Hidden => out.extend_from_slice(b"unknown"),
        Node::Address(IpAddr::V6(v6)) => write_value(&format!("[{v6}]"), out),
        // A token, so nothing to quote.
        Node::Address(v4) => write_address(v4, out),
    }
}

/// An address in its usual form; IPv4, the common one, without the formatting machinery.
fn write_address(address: IpAddr, out: &mut Vec<u8>) {
    let IpAddr::V4(v4) = address else { return out.extend_from_slice(address.to_string().as_bytes()) };
    for (position, octet) in v4.octets().into_iter().enumerate() {
        if position > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
    }
}

/// `token / quoted-string`. Neither a checked host nor a node has anything in it that needs escaping.
fn write_value(text: &str, out: &mut Vec<u8>) {
    let quotes: &[u8] = if text.bytes().all(crate::hop::is_token_byte) { b"" } else { b"\"" };
    out.extend_from_slice(quotes);
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(quotes);
}

/// Whether a field name begins with `prefix` (lower case, `-`), `_` counting as `-`.
fn begins(name: &[u8], prefix: &str) -> bool {
    name.len() >= prefix.len()
        && name.iter().zip(prefix.bytes()).all(|(&byte, expected)| match byte {
            b'_' => expected == b'-',
            _ => byte.to_ascii_lowercase() == expected,
        })
}

#[cfg(test)]
mod tests;
