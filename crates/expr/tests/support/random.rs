//! Random expressions and requests over a handful of fields, so that both truths are common.

use base::random::Random;

use super::{Fact, Request};

pub const FIELDS: &[&str] = &[
    "http.host",
    "http.request.uri.path",
    "ip.src",
    "tcp.dstport",
    "ssl",
    "http.request.headers",
    "http.request.headers.names",
];

fn pick<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len() as u32) as usize]
}

/// A comparison the whole language has; `plain` leaves out what the oracle does not know.
pub fn comparison(random: &mut Random, plain: bool) -> String {
    let text = pick(random, &["\"a\"", "\"ab\"", "\"\"", "61:62", "\"b\\x61\""]);
    let order = pick(random, &["eq", "ne", "<", "<=", "gt", "ge"]);
    let field = pick(random, &["http.host", "http.request.uri.path"]);
    match random.below(if plain { 7 } else { 20 }) {
        0 => format!("{field} {order} {text}"),
        1 => format!("{field} contains {text}"),
        2 => format!("{field} matches {}", pick(random, &["\"^a\"", "\"b+\"", "\"[^a]\""])),
        3 => format!("{field} in {{{text} \"b\"}}"),
        4 => format!("tcp.dstport {order} {}", pick(random, &["1", "0x2", "-3"])),
        5 => format!("tcp.dstport in {{{} 2..3}}", pick(random, &["0", "1..1"])),
        6 => {
            pick(random, &["ip.src in {10.0.0.0/8 ::1}", "ip.src == 10.0.0.1", "ip.src in {::/0}"]).to_owned()
        }
        7 => pick(random, &["ssl", "true", "false"]).to_owned(),
        8 => format!("{field} wildcard {}", pick(random, &["\"A*\"", "\"*b\"", "\"*\""])),
        9 => format!("len({field}) {order} 1"),
        10 => format!("http.request.headers[\"a\"][0] {order} {text}"),
        11 => format!("{}(http.request.headers[\"a\"][*] {order} {text})", pick(random, &["any", "all"])),
        12 => format!("any(lower(http.request.headers.names[*])[*] {order} {text})"),
        13 => format!(
            "{}(http.request.headers.names[*] contains {text} xor not http.request.headers.names[*] {order} {text})",
            pick(random, &["any", "all"])
        ),
        14 => format!(
            "{}_with({}, {text})",
            pick(random, &["starts", "ends"]),
            pick(random, &[field, &format!("lower({field})")])
        ),
        15 => format!("{}({field}) {order} \"AB\"", pick(random, &["lower", "upper"])),
        16 => format!(
            "{field} matches {}",
            pick(random, &["\"(?i)AB\"", "\"(a|bA)b?$\"", "\"a|\"", "\"^(ab)+$\""])
        ),
        17 => format!(
            "any({}) or ip.src == ::1",
            pick(
                random,
                &[
                    "http.request.headers[*][*] == \"ab\"",
                    "http.request.headers[*][1] contains \"b\"",
                    "lower(http.request.headers[\"a\"][*])[*] wildcard \"*a\"",
                    "http.request.headers.names[*] in {\"ab\" \"A\"}",
                    "len(http.request.headers.names[*])[*] == 1",
                ]
            )
        ),
        18 => format!("tcp.dstport in {{{}}} and {field} in {{}}", pick(random, &["-9..0", "2", ""])),
        _ => pick(
            random,
            &[
                "http.host in $names",
                "any(http.request.headers.names[*] in $names)",
                "http.request.headers.names[0] wildcard \"a\"",
                "len(http.host) == 2",
                "url_decode(http.host) == \"ab\"",
                "tcp.dstport & 1",
                "ip.src in {10.0.0.0..10.9.0.1 2001:db8::/32}",
                "ip.src in $office",
                "not ip.src in $gone",
                "concat(http.host, http.request.headers[\"a\"][1]) == \"ab\"",
                "starts_with(http.host, http.request.uri.path)",
                "lower(substring(http.host, 1)) != \"b\"",
            ],
        )
        .to_owned(),
    }
}

pub fn expression(random: &mut Random, depth: u32, plain: bool) -> String {
    if depth == 0 {
        return comparison(random, plain);
    }
    let left = expression(random, depth - 1, plain);
    match random.below(5) {
        0 => format!("not ({left})"),
        1 => format!("not {left}"),
        _ => {
            let right = expression(random, depth - 1, plain);
            let joint = pick(random, &["and", "or", "xor", "&&", "||", "^^"]);
            match random.below(2) {
                0 => format!("({left}) {joint} {right}"),
                _ => format!("{left} {joint} ({right})"),
            }
        }
    }
}

/// A concrete value of a field, or none.
pub fn fact(random: &mut Random, field: &str, may_miss: bool) -> Option<Fact> {
    if may_miss && random.below(4) == 0 {
        return None;
    }
    let text = |random: &mut Random| pick(random, &["", "a", "ab", "b", "ba", "A"]).as_bytes().to_vec();
    Some(match field {
        "http.host" | "http.request.uri.path" => Fact::Bytes(text(random)),
        "ip.src" => Fact::Ip(pick(random, &["10.0.0.1", "10.9.0.1", "::1", "2001:db8::1"]).parse().unwrap()),
        "tcp.dstport" => Fact::Int(i64::from(random.below(6)) - 3),
        "ssl" => Fact::Bool(random.below(2) == 0),
        "http.request.headers.names" => Fact::Strings((0..random.below(3)).map(|_| text(random)).collect()),
        _ => Fact::Pairs((0..random.below(4)).map(|_| (text(random), text(random))).collect()),
    })
}

pub fn request(random: &mut Random, may_miss: bool) -> Request {
    let mut request = Request::default();
    for field in FIELDS {
        if let Some(fact) = fact(random, field, may_miss) {
            request.facts.insert(expr::fields::find(field).unwrap(), fact);
        }
    }
    request
}
