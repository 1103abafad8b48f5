//! What is compared, and the explicit list of what a proxy may, or must, change.

use std::collections::BTreeMap;

use harness::client::Response;
use harness::http2::Answer;
use harness::origin::Seen;
use harness::wire::Field;

use super::cases::Case;

/// Fields that belong to one connection and may not be passed on (RFC 9110 section 7.6.1), and those of framing,
/// which are compared by what they frame. `Content-Length` is no such field: where it is told it must stay.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
/// Fields a proxy adds for the origin.
const ADDED_TO_REQUEST: [&str; 8] = [
    "via",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-request-id",
    "cdn-loop",
];
/// Fields a proxy adds for the client.
const ADDED_TO_RESPONSE: [&str; 2] = ["via", "rempart-request-id"];
/// Fields a proxy may add for the client, but not change: RFC 9110 section 6.6.1 wants a Date from it if none is there.
const ADDED_IF_ABSENT: [&str; 1] = ["date"];

/// Values by lower-case name, in the order of the values.
pub type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub target: String,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

/// A response as the client got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
}

/// Both sides of one exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub asked: Option<Asked>,
    pub got: Got,
}

impl From<&Seen> for Asked {
    fn from(seen: &Seen) -> Self {
        let (method, target) = (seen.method(), seen.target());
        let (fields, trailers) = (gather(&seen.head.fields), gather(&seen.body.trailers));
        Self { method, target, fields, body: seen.body.bytes.clone(), trailers }
    }
}

impl From<Response> for Got {
    fn from(response: Response) -> Self {
        let (fields, trailers) = (gather(&response.head.fields), gather(&response.body.trailers));
        Self { status: response.status, fields, body: response.body.bytes, trailers }
    }
}

impl From<Answer> for Got {
    fn from(answer: Answer) -> Self {
        let list = |map: &http::HeaderMap| -> Vec<Field> {
            map.iter().map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec())).collect()
        };
        let trailers = answer.trailers.as_ref().map(list).unwrap_or_default();
        Self {
            status: answer.status,
            fields: gather(&list(&answer.fields)),
            body: answer.body,
            trailers: gather(&trailers),
        }
    }
}

fn gather(fields: &[Field]) -> Fields {
    let mut gathered = Fields::new();
    for (name, value) in fields {
        gathered.entry(String::from_utf8_lossy(name).to_lowercase()).or_default().push(value.clone());
    }
    gathered
}

/// What differs between a direct exchange and one through a proxy beyond what may; empty when nothing does.
pub fn differences(case: &Case, direct: &Exchange, through: &Exchange) -> Vec<String> {
    let mut found = Vec::new();
    match (&direct.asked, &through.asked) {
        (Some(direct), Some(through)) => {
            differs(&mut found, "method", &direct.method, &through.method);
            differs(&mut found, "target", &direct.target, &through.target);
            let (left, right) = (end_to_end(direct.fields.clone()), end_to_end(through.fields.clone()));
            fields_differ(&mut found, "request", left, right, &ADDED_TO_REQUEST, &bodiless_length(direct));
            bodies_differ(&mut found, "request", &direct.body, &through.body);
            fields_differ(
                &mut found,
                "request trailer",
                direct.trailers.clone(),
                through.trailers.clone(),
                &[],
                &[],
            );
        }
        (_, None) => found.push(format!("the origin never saw it; the client got {}", through.got.status)),
        (None, _) => found.push("the origin did not see it directly".into()),
    }
    let (direct, through) = (&direct.got, &through.got);
    differs(&mut found, "status", &direct.status.to_string(), &through.status.to_string());
    let (left, right) = (end_to_end(direct.fields.clone()), end_to_end(through.fields.clone()));
    let framing: &[&str] =
        if case.reply.body.is_empty() { &["date", "content-length"] } else { &ADDED_IF_ABSENT };
    fields_differ(&mut found, "response", left, right, &ADDED_TO_RESPONSE, framing);
    bodies_differ(&mut found, "response", &direct.body, &through.body);
    fields_differ(
        &mut found,
        "response trailer",
        direct.trailers.clone(),
        through.trailers.clone(),
        &[],
        &[],
    );
    found
}

/// `Content-Length: 0` may be spelled out for a request whose body is empty anyway.
fn bodiless_length(asked: &Asked) -> Vec<&'static str> {
    if asked.body.is_empty() { vec!["content-length"] } else { Vec::new() }
}

/// Takes out what belongs to one connection only, the fields named by `Connection` included.
fn end_to_end(mut fields: Fields) -> Fields {
    for value in fields.get("connection").cloned().unwrap_or_default() {
        for name in String::from_utf8_lossy(&value).split(',') {
            fields.remove(&name.trim().to_lowercase());
        }
    }
    fields.retain(|name, _| !HOP_BY_HOP.contains(&name.as_str()));
    // HTTP/2 may send cookies one by one; before they go to HTTP/1.1 they become one field (RFC 9113 section 8.2.3).
    if let Some(cookies) = fields.get_mut("cookie") {
        *cookies = vec![cookies.join(&b"; "[..])];
    }
    fields
}

fn fields_differ(
    found: &mut Vec<String>,
    place: &str,
    mut direct: Fields,
    mut through: Fields,
    replaceable: &[&str],
    addable: &[&str],
) {
    for name in replaceable {
        direct.remove(*name);
        through.remove(*name);
    }
    for name in addable {
        if !direct.contains_key(*name) {
            through.remove(*name);
        }
    }
    let names: std::collections::BTreeSet<_> = direct.keys().chain(through.keys()).cloned().collect();
    for name in names {
        let show = |values: Option<&Vec<Vec<u8>>>| {
            values.map_or("absent".into(), |list| {
                list.iter().map(|v| format!("\"{}\"", v.escape_ascii())).collect::<Vec<_>>().join(" | ")
            })
        };
        let (left, right) = (direct.get(&name), through.get(&name));
        differs(found, &format!("{place} field {name}"), &show(left), &show(right));
    }
}

fn bodies_differ(found: &mut Vec<String>, place: &str, direct: &[u8], through: &[u8]) {
    if direct != through {
        let at =
            direct.iter().zip(through).position(|(a, b)| a != b).unwrap_or(direct.len().min(through.len()));
        found.push(format!(
            "{place} body: {} and {} bytes, first difference at {at}",
            direct.len(),
            through.len()
        ));
    }
}

fn differs(found: &mut Vec<String>, what: &str, direct: &str, through: &str) {
    if direct != through {
        found.push(format!("{what}: {direct} directly, {through} through the proxy"));
    }
}

/// One way to spoil an exchange.
pub type Meddler = (&'static str, fn(&mut Exchange));

/// Things a proxy could do that must be noticed in every case.
pub const MEDDLERS: [Meddler; 9] = [
    ("a lost request", |exchange| exchange.asked = None),
    ("a rewritten target", |exchange| asked(exchange).target.push('/')),
    ("a changed method", |exchange| asked(exchange).method.push('X')),
    ("a dropped request field", |exchange| drop(asked(exchange).fields.remove("x-case"))),
    ("a longer request body", |exchange| asked(exchange).body.push(0)),
    ("an added request trailer", |exchange| drop(asked(exchange).trailers.insert("x".into(), vec![]))),
    ("another status", |exchange| exchange.got.status += 1),
    ("an added response field", |exchange| {
        drop(exchange.got.fields.insert("x-cache".into(), vec![b"MISS".into()]))
    }),
    ("a longer response body", |exchange| exchange.got.body.push(0)),
];

fn asked(exchange: &mut Exchange) -> &mut Asked {
    exchange.asked.as_mut().expect("the origin saw it")
}
