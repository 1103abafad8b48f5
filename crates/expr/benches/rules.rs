//! What one request costs against 1,000 and 10,000 rules evaluated together: `cargo bench -p expr`.
//!
//! Rules as operators write them, from a seed; one request as a browser sends it. Prints medians, checks the truths.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::panic,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use base::random::Random;
use expr::{
    Array, Context, Fetched, FieldId, Filter, List, Map, Options, RuleSet, Steps, Truth, Type, Value,
};

/// Calls in one measurement, and measurements of which the median is taken.
const CALLS: u32 = 200;
const MEASUREMENTS: usize = 101;
/// Steps of each rule.
const STEPS: usize = Steps::USUAL;
const LISTS: &[(&str, Type)] = &[("office", Type::Ip), ("partners", Type::Int)];

enum Fact {
    Bytes(&'static str),
    Int(i64),
    Bool(bool),
    Ip(IpAddr),
    Strings(Vec<&'static str>),
    Pairs(Vec<(&'static str, &'static str)>),
}

/// The request, its facts by the number of their field.
struct Browser(Vec<Option<Fact>>);

struct Office;

impl List for Office {
    fn contains_ip(&self, address: IpAddr) -> Truth {
        Truth::from(address.to_string() == "192.0.2.1")
    }

    fn contains_int(&self, number: i64) -> Truth {
        Truth::from(number == 64_500)
    }
}

impl Context for Browser {
    fn field(&self, field: FieldId) -> Fetched<'_> {
        Fetched::Value(match self.0.get(field.index()) {
            Some(Some(Fact::Bytes(value))) => Value::text(value),
            Some(Some(Fact::Int(value))) => Value::Int(*value),
            Some(Some(Fact::Bool(value))) => Value::Bool(*value),
            Some(Some(Fact::Ip(value))) => Value::Ip(*value),
            Some(Some(Fact::Strings(value))) => Value::Array(Array::Kept(value)),
            Some(Some(Fact::Pairs(value))) => Value::Map(Map::Grouped(value)),
            _ => return Fetched::Missing,
        })
    }

    fn list(&self, _: &str) -> Option<&dyn List> {
        Some(&Office)
    }
}

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36";

fn browser() -> Browser {
    let headers = vec![
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7"),
        ("cache-control", "max-age=0"),
        ("cookie", "session=5f1c9a0e7b; consent=all; _ga=GA1.2.1184.1731"),
        ("priority", "u=0, i"),
        ("referer", "https://shop.example/products/garden"),
        ("sec-ch-ua", "\"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\""),
        ("sec-ch-ua-mobile", "?0"),
        ("sec-ch-ua-platform", "\"Windows\""),
        ("sec-fetch-dest", "document"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-site", "same-origin"),
        ("upgrade-insecure-requests", "1"),
        ("user-agent", AGENT),
    ];
    let mut facts: Vec<Option<Fact>> = (0..expr::fields::FIELDS.len()).map(|_| None).collect();
    let names = headers.iter().map(|(name, _)| *name).collect();
    for (name, fact) in [
        ("http.host", Fact::Bytes("shop.example")),
        ("http.request.method", Fact::Bytes("GET")),
        ("http.request.uri", Fact::Bytes("/products/garden/chairs?page=3&sort=price")),
        ("http.request.uri.path", Fact::Bytes("/products/garden/chairs")),
        ("http.request.uri.query", Fact::Bytes("page=3&sort=price")),
        ("http.user_agent", Fact::Bytes(AGENT)),
        ("http.referer", Fact::Bytes("https://shop.example/products/garden")),
        ("http.cookie", Fact::Bytes("session=5f1c9a0e7b; consent=all; _ga=GA1.2.1184.1731")),
        ("http.request.headers", Fact::Pairs(headers)),
        ("http.request.headers.names", Fact::Strings(names)),
        ("ip.src", Fact::Ip(IpAddr::from([203, 0, 113, 77]))),
        ("ip.src.country", Fact::Bytes("DE")),
        ("ip.src.asnum", Fact::Int(3320)),
        ("ssl", Fact::Bool(true)),
    ] {
        let field = expr::fields::find(name).unwrap_or_else(|| panic!("no field {name}"));
        facts[field.index()] = Some(fact);
    }
    Browser(facts)
}

/// The same with a path and an agent of 8,000 bytes each, in which automata find much that is nearly right.
fn hostile() -> Browser {
    let mut request = browser();
    for (name, piece) in
        [("http.request.uri.path", "/admin-/wp-login.php-/old-"), ("http.user_agent", "sqlmap/nikto/zgrab ")]
    {
        let field = expr::fields::find(name).unwrap_or_else(|| panic!("no field {name}"));
        request.0[field.index()] = Some(Fact::Bytes(piece.repeat(8_000 / piece.len()).leak()));
    }
    request
}

fn pick<'t>(random: &mut Random, of: &[&'t str]) -> &'t str {
    of[random.below(of.len() as u32) as usize]
}

fn network(random: &mut Random) -> String {
    match random.below(4) {
        0 => format!("2001:db8:{:x}::/48", random.below(65_536)),
        1 => format!(
            "{}.{}.{}.{}",
            1 + random.below(200),
            random.below(256),
            random.below(256),
            random.below(256)
        ),
        2 => format!("{}.{}.0.0/16", 1 + random.below(200), random.below(256)),
        _ => format!("{}.{}.{}.0/24", 1 + random.below(200), random.below(256), random.below(256)),
    }
}

/// One rule; the number makes its names its own, as every operator has other ones.
fn rule(random: &mut Random, number: u32) -> String {
    let host =
        pick(random, &["shop.example", "www.shop.example", "api.example", "blog.example", "cdn.example"]);
    let part = pick(
        random,
        &["admin", "wp-login.php", "xmlrpc.php", ".env", ".git/", "cgi-bin", "backup", "export"],
    );
    let agent =
        pick(random, &["sqlmap", "nikto", "python-requests", "masscan", "zgrab", "semrushbot", "ahrefsbot"]);
    let country =
        pick(random, &["\"CN\" \"RU\"", "\"KP\"", "\"BR\" \"IN\" \"VN\"", "\"US\"", "\"FR\" \"IT\""]);
    match random.below(20) {
        0 => format!("http.host eq \"{host}\" and http.request.uri.path eq \"/{part}/{number}\""),
        1 => format!("http.host eq \"site-{number}.example\" and not ip.src in $office"),
        2 | 3 => format!("http.request.uri.path contains \"/{part}-{number}\" and not ip.src in $office"),
        4 => format!(
            "starts_with(http.request.uri.path, \"/v{number}/\") and http.request.method in {{\"POST\" \"PUT\"}}"
        ),
        5 => format!("http.request.uri.path matches \"^/(old|legacy)-{number}/[0-9]+[.]php$\""),
        6 => format!("http.request.uri.query matches \"(?i)union[^a-z]+select.{{0,9}}{number}\""),
        7 => format!("lower(http.user_agent) contains \"{agent}/{number}\" or http.user_agent eq \"\""),
        8 => format!("http.user_agent contains \"{agent}\" and ip.src.country in {{{country}}}"),
        9 | 10 => {
            let networks: Vec<String> = (0..1 + random.below(12)).map(|_| network(random)).collect();
            format!("ip.src in {{{}}} and not http.request.uri.path contains \"/status\"", networks.join(" "))
        }
        11 => format!("ip.src.country in {{{country}}} and http.request.uri.path contains \"/{part}\""),
        12 => format!(
            "not ip.src.country in {{\"DE\" \"AT\" \"CH\"}} and http.host eq \"intern-{number}.example\""
        ),
        13 => format!("ip.src.asnum in {{{} {}}} and not ssl", 60_000 + number, 4_000 + random.below(50_000)),
        14 => format!("any(http.request.headers[\"x-api-key\"][*] eq \"key-{number}\")"),
        15 => format!("any(lower(http.request.headers.names[*])[*] contains \"x-hidden-{number}\")"),
        16 => format!(
            "http.request.uri.path wildcard \"/{part}/*/{number}/*\" and http.request.method ne \"GET\""
        ),
        17 => format!(
            "(http.request.uri.query contains \"token={number}\" or http.cookie contains \"legacy={number}\") and ssl"
        ),
        18 => format!(
            "http.referer contains \"spam-{number}.example\" or http.referer matches \"(?i)casino-{number}|pills{number}\""
        ),
        _ => format!(
            "http.host in {{\"{host}\" \"m.{host}\"}} and ends_with(http.request.uri.path, \".{number}\") and not ip.src.asnum in $partners"
        ),
    }
}

fn median(mut run: impl FnMut() -> usize) -> f64 {
    let mut each: Vec<f64> = (0..MEASUREMENTS)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..CALLS {
                black_box(run());
            }
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS)
        })
        .collect();
    each.sort_by(f64::total_cmp);
    each[MEASUREMENTS / 2]
}

/// How many of so many rules are evaluated and hold, and how long that takes.
fn measure(count: u32, evaluated_most: usize) {
    let mut random = Random::seeded(12);
    let options = Options { lists: LISTS, ..Options::default() };
    let mut filters: Vec<Arc<Filter>> = (0..count)
        .map(|number| rule(&mut random, number))
        .map(|source| Arc::new(Filter::parse(&source, &options).unwrap_or_else(|error| panic!("{error}"))))
        .collect();
    // One that holds, among the others.
    let holds = "http.host eq \"shop.example\" and starts_with(http.request.uri.path, \"/products/\")";
    let holds = Filter::parse(holds, &options).unwrap_or_else(|error| panic!("{error}"));
    filters[count as usize / 2] = Arc::new(holds);
    let request = browser();
    let begun = Instant::now();
    let rules = RuleSet::new(filters);
    let built = begun.elapsed().as_secs_f64() * 1e3;
    let one_by_one = || {
        let truths = rules.filters().iter().map(|filter| filter.evaluate(&request, &mut Steps::new(STEPS)));
        truths.filter(|truth| *truth != Truth::False).count()
    };
    let mut shown = 0;
    let evaluated = rules.matches(&request, STEPS, &mut |_, _, _| {
        shown += 1;
        true
    });
    assert_eq!(shown, one_by_one(), "rules that hold");
    assert!(shown == 1 && evaluated <= evaluated_most, "{evaluated} evaluated, {shown} hold");
    let together = median(|| rules.matches(&request, STEPS, &mut |_, _, _| true));
    let alone =
        if count > 1_000 { String::new() } else { format!(" ({:.1} us one by one)", median(one_by_one)) };
    let (long, memory) = (hostile(), rules.memory());
    let attacked = median(|| rules.matches(&long, STEPS, &mut |_, _, _| true));
    let looked_at = rules.matches(&long, STEPS, &mut |_, _, _| true);
    println!("{count} rules, path and agent of 8,000 bytes: {attacked:.1} us, {looked_at} evaluated");
    println!(
        "{count} rules: {together:.2} us together{alone}, {evaluated} evaluated, {shown} hold; built in \
         {built:.1} ms, {} KiB; regexes at most {} MiB a thread",
        memory.index >> 10,
        memory.regexes_a_thread >> 20
    );
}

fn main() {
    measure(1_000, 20);
    measure(10_000, 120);
}
