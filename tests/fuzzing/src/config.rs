//! `config` and `config_pieces`: any text at all, and texts made of pieces of configurations, through the compiler.

use std::sync::{Arc, LazyLock};

use api::diagnostic::{Diagnostic, Severity};
use base::time::Timestamp;
use snapshot::diagnostic::{MAXIMUM_FINDINGS, render};
use snapshot::outline::outline;
use snapshot::source::{SourceTree, Unreadable};
use snapshot::{Compiled, Input, Mode, compile, references};

/// 2026-06-01T00:00:00Z, the time at which all inputs are compiled.
const NOW: Timestamp = Timestamp(1_780_272_000 * 1_000_000);

/// What inputs may begin with.
const BASES: [&str; 4] = [
    "",
    "[[listen]]\naddress = ':80'\ntls = false\n[[site]]\nhosts = ['*']\n[[site.origin]]\nurl = 'http://10.0.0.1'\n",
    include_str!("../../../crates/snapshot/tests/compiler/with-files.toml"),
    include_str!("../../../packaging/rempart.toml"),
];

/// Tables, by an input's byte. New ones go to the end: the corpus counts on the order.
const TABLES: &[&str] = &[
    "[[listen]]",
    "[trust]",
    "[metrics]",
    "[log]",
    "[log.access]",
    "[limits]",
    "[drain]",
    "[acme]",
    "[[acme.authority]]",
    "[[site]]",
    "[site.tls]",
    "[site.tls.client]",
    "[site.tls.hsts]",
    "[[site.origin]]",
    "[site.origin.tls]",
    "[site.origin.timeouts]",
    "[site.health]",
    "[site.retry]",
    "[site.limits]",
    "[site]",
    "[site.origin]",
    "[listen]",
    "[unknown]",
    "[",
    "[[",
    "]]",
    "[a.b.c]",
    "[\"quoted\"]",
    "[[feeds]]",
    "[site.policy]",
    "[[site.policy.require]]",
    "[[site.policy.forbid]]",
    "[[lists]]",
    "[[rules]]",
    "[[rulesets]]",
    "[[rulesets.rules]]",
    "[[site.rules]]",
    "[site.normalize]",
];

/// Keys, by an input's byte. New ones go to the end.
const KEYS: &[&str] = &[
    "via",
    "standby",
    "listen",
    "trust",
    "metrics",
    "log",
    "limits",
    "drain",
    "acme",
    "site",
    "address",
    "tls",
    "proxies",
    "access",
    "to",
    "client_ip",
    "retention",
    "rotate",
    "file",
    "threads",
    "connections",
    "header_bytes",
    "header_count",
    "target_bytes",
    "streams",
    "handshake",
    "header",
    "keep_alive",
    "write",
    "idle",
    "requests",
    "tunnels",
    "contact",
    "agree_to_terms",
    "challenge",
    "dns_command",
    "on_demand",
    "authority",
    "directory",
    "roots",
    "eab_kid",
    "eab_key",
    "name",
    "hosts",
    "compatibility",
    "origin",
    "health",
    "retry",
    "certificate",
    "key",
    "ocsp",
    "policy",
    "redirect",
    "client",
    "hsts",
    "authorities",
    "required",
    "max_age",
    "include_subdomains",
    "preload",
    "url",
    "weight",
    "host",
    "http",
    "max_idle",
    "timeouts",
    "server_name",
    "verify",
    "connect",
    "response",
    "resolve",
    "failures",
    "ejection",
    "max_ejection",
    "attempts",
    "budget_percent",
    "body_bytes",
    "body",
    "tunnel",
    "",
    "a.b",
    "\"x y\"",
    "tls.acme",
    "tls.hsts.max_age",
    "proxy_protocol",
    "connections_per_address",
    "connection_rate_per_address",
    "handshakes",
    "handshakes_per_address",
    "memory",
    "write_rate",
    "max_connections",
    "queue",
    "body_rate",
    "bake",
    "analytics",
    "enabled",
    "keep_minutes",
    "keep_samples",
    "max_size",
    "feeds",
    "kind",
    "source",
    "every",
    "keys",
    "max_entries",
    "max_bytes",
    "policy",
    "methods",
    "require",
    "forbid",
    "value",
    "action",
    "watch",
    "listen",
    "title",
    "probe",
    "path",
    "notify",
    "webhook",
    "secret",
    "smtp",
    "port",
    "security",
    "user",
    "password",
    "from",
    "to",
    "file",
    "env",
    "lists",
    "rules",
    "rules_files",
    "rulesets",
    "description",
    "items",
    "redirects",
    "id",
    "phase",
    "expression",
    "action_parameters",
    "mode",
    "on_unknown",
    "logging",
    "categories",
    "ratelimit",
    "inspect_body",
    "normalize",
    "type",
    "scope",
];

/// Values, by an input's byte. New ones go to the end.
const VALUES: &[&str] = &[
    "true",
    "false",
    "0",
    "1",
    "-1",
    "65535",
    "65536",
    "9223372036854775807",
    "1e400",
    "nan",
    "0x7fff_ffff",
    "\"\"",
    "\"10s\"",
    "\"1h\"",
    "\"365d\"",
    "\"99999999999999999999d\"",
    "\"64KiB\"",
    "\"1TiB\"",
    "\"none\"",
    "\"off\"",
    "\"stdout\"",
    "\"auto\"",
    "\"modern\"",
    "\"cloudflare\"",
    "\"dns-01\"",
    "\"http-01\"",
    "\"tls-alpn-01\"",
    "\"1.1\"",
    "\"2\"",
    "\"full\"",
    "\":443\"",
    "\"[::]:8443\"",
    "\"127.0.0.1:9090\"",
    "\"a.example\"",
    "[\"a.example\", \"*.b.example\"]",
    "[\"*\"]",
    "[\"b\u{fc}cher.example\"]",
    "[]",
    "{}",
    "[[]]",
    "[1]",
    "[\"10.0.0.0/8\", \"::1\"]",
    "[\"10.0.0.0/99\"]",
    "\"http://10.0.0.1:3000\"",
    "\"https://[2001:db8::1]\"",
    "\"https://app.internal/path\"",
    "\"both.pem\"",
    "\"ca.pem\"",
    "\"broken.pem\"",
    "\"missing.pem\"",
    "\"acme:a.example\"",
    "{ file = \"access.log\" }",
    "{ max_age = \"1h\", preload = true }",
    "{ acme = true }",
    "{ certificate = \"both.pem\", key = \"both.pem\" }",
    "{ authorities = \"ca.pem\" }",
    "[{ directory = \"https://ca.example/dir\" }]",
    "[{ url = \"http://10.0.0.2\", weight = 0 }]",
    "[\"mailto:ops@a.example\"]",
    "[\"/bin/true\", \"x\"]",
    "2026-01-01",
    "'''\nmany\nlines'''",
    "\"\\u202e\"",
    "\"",
    "[",
    "{ a",
    "\u{1f980}",
    "\"http_request_firewall_custom\"",
    "\"http_request_dynamic_redirect\"",
    "\"http_request_transform\"",
    "\"http_request_late_transform\"",
    "\"http_request_origin\"",
    "\"http_config_settings\"",
    "\"http_request_cache_settings\"",
    "\"http_custom_errors\"",
    "\"http_response_compression\"",
    "\"http_log_custom_fields\"",
    "\"http_ratelimit\"",
    "\"http_request_redirect\"",
    "\"block\"",
    "\"skip\"",
    "\"execute\"",
    "\"redirect\"",
    "\"rewrite\"",
    "\"route\"",
    "\"set_config\"",
    "\"set_cache_settings\"",
    "\"compress_response\"",
    "\"serve_error\"",
    "\"log_custom_field\"",
    "\"managed_challenge\"",
    "\"fire\"",
    "'http.host eq \"a.example\" and not ip.src in $office'",
    "'any(http.request.headers[\"x-a\"][*] wildcard \"*b*\")'",
    "'http.request.uri.path matches \"^/(a|b)+$\"'",
    "{ response = { status_code = 403, content = \"x\", content_type = \"text/plain\" } }",
    "{ phase = \"current\", phases = [\"http_ratelimit\"], products = [\"waf\"], ruleset = \"current\", rulesets = [\"more\"], rules = { more = [\"a\"] } }",
    "{ id = \"more\", overrides = { enabled = true, action = \"log\", categories = [{ category = \"c\" }], rules = [{ id = \"a\" }] } }",
    "{ from_value = { target_url = { expression = \"http.host\" }, status_code = 308, preserve_query_string = true } }",
    "{ from_list = { name = \"moved\", key = \"http.request.full_uri\" } }",
    "{ uri = { path = { value = \"/a\" }, query = { value = \"b\" } } }",
    "{ headers = { x-a = { operation = \"set\", value = \"b\" } } }",
    "{ host_header = \"a\", origin = { host = \"b\", port = 1 }, sni = { value = \"c\" } }",
    "{ hotlink_protection = true, bic = false, security_level = \"low\" }",
    "{ cache = true, edge_ttl = { mode = \"override_origin\", default = 1, status_code_ttl = [{ status_code_range = { from = 200 }, value = -1 }] }, browser_ttl = { mode = \"bypass\" } }",
    "{ cache_key = { cache_by_device_type = true, cache_deception_armor = true, ignore_query_strings_order = true, custom_key = { cookie = { include = [\"a\"], check_presence = [\"b\"] }, header = { exclude_origin = true }, host = { resolved = true }, query_string = { exclude = { all = true, list = [\"c\"] } }, user = { device_type = true, geo = true, lang = true } } } }",
    "{ serve_stale = { disable_stale_while_updating = true }, respect_strong_etags = true, origin_error_page_passthru = true }",
    "{ algorithms = [{ name = \"gzip\" }] }",
    "{ content = \"x\", content_type = \"text/html\", status_code = 500 }",
    "{ request_fields = [{ name = \"a\" }], transformed_request_fields = [{ name = \"a\" }], response_fields = [{ name = \"a\", preserve_duplicates = true }], raw_response_fields = [{ name = \"a\" }], cookie_fields = [{ name = \"a\" }] }",
    "{ characteristics = [\"ip.src\"], period = 10, requests_per_period = 5, mitigation_timeout = 1, counting_expression = \"ssl\", requests_to_origin = true }",
    "[{ source_url = \"a.example/x\", target_url = \"https://b.example\", include_subdomains = true, subpath_matching = true, preserve_path_suffix = true }]",
    "[\"192.0.2.0/24\", \"2001:db8::/32\"]",
    "\"ip\"",
    "\"asn\"",
    "\"hostname\"",
    "\"rfc3986\"",
    "\"both\"",
];

/// Files that inputs may name.
static TREE: LazyLock<SourceTree> = LazyLock::new(|| {
    let mut params = rcgen::CertificateParams::new(
        ["a.example", "shop.example", "www.shop.example", "news.example"].map(str::to_owned),
    )
    .unwrap();
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2027, 1, 1));
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let both = certificate.clone() + &key.serialize_pem();
    let mut tree = SourceTree::default();
    let mut put = |path: &str, text: &str| tree.insert(path, Ok(Arc::from(text.as_bytes())));
    for path in ["both.pem", "tls/cert.pem", "tls/key.pem", "acme:a.example", "acme:news.example"] {
        put(path, &both);
    }
    put("ca.pem", &certificate);
    put("eab.key", "abc-_123");
    put("broken.pem", &certificate[..300]);
    tree.insert("secret.pem", Err(Unreadable::Permission));
    tree
});

/// A configuration file.
pub fn text(data: &[u8]) {
    check(data);
}

/// A byte for what it begins with, then pairs: a table, or a key and its value.
pub fn pieces(data: &[u8]) {
    let Some((&base, pairs)) = data.split_first() else { return };
    let mut text = BASES.get(usize::from(base)).copied().unwrap_or_default().to_owned();
    for pair in pairs.chunks(2) {
        let (which, value) = (usize::from(pair[0]), usize::from(pair.get(1).copied().unwrap_or_default()));
        match which.checked_sub(64) {
            None => text.push_str(TABLES.get(which).copied().unwrap_or("# nothing")),
            Some(key) => {
                text.push_str(KEYS.get(key).copied().unwrap_or("unknown"));
                text.push_str(" = ");
                text.push_str(VALUES.get(value).copied().unwrap_or("200"));
            }
        }
        text.push('\n');
    }
    check(text.as_bytes());
}

/// What must be true of whatever the compiler says about whatever it is given.
fn check(text: &[u8]) {
    let once = |mode| compile(Input { file: "rempart.toml", text, tree: &TREE }, NOW, mode);
    let fresh = once(Mode::Fresh);
    examine(&fresh, text);
    let again = once(Mode::Fresh);
    assert_eq!(fresh.diagnostics, again.diagnostics, "said differently the second time");
    let lines =
        |compiled: &Compiled| compiled.snapshot.as_ref().map(|snapshot| (snapshot.id, outline(snapshot)));
    assert_eq!(lines(&fresh), lines(&again), "compiled differently the second time");
    let stored = once(Mode::Stored);
    assert!(
        fresh.snapshot.is_none() || stored.snapshot.is_some(),
        "accepted once, refused at the next start"
    );
    for reference in references("rempart.toml", text) {
        assert!(!reference.path.is_empty() && reference.limit > 0);
        place_is_inside(&fresh.locate(&reference.place), text);
    }
}

/// What must be true of a generation, and of what is said about it.
pub fn examine(compiled: &Compiled, text: &[u8]) {
    let errors = compiled.diagnostics.iter().filter(|it| it.severity == Severity::Error).count();
    assert_eq!(compiled.snapshot.is_none(), errors > 0, "refused exactly when an error says why");
    assert!(compiled.diagnostics.len() <= MAXIMUM_FINDINGS + 1);
    for diagnostic in &compiled.diagnostics {
        finding_helps(diagnostic, text);
    }
    let Some(snapshot) = &compiled.snapshot else { return };
    assert!(!snapshot.listeners.is_empty() && !snapshot.sites.is_empty());
    assert!(snapshot.sites.iter().all(|site| !site.origins.is_empty() && !site.hosts.is_empty()));
    for listener in &snapshot.listeners {
        place_is_inside(&compiled.locate(&listener.place), text);
    }
}

fn finding_helps(diagnostic: &Diagnostic, text: &[u8]) {
    assert_ne!(diagnostic.code, "internal", "{diagnostic:?}");
    assert!(!diagnostic.message.is_empty() && diagnostic.hint.is_some(), "{diagnostic:?}");
    match &diagnostic.location {
        Some(location) => place_is_inside(location, text),
        None => assert_eq!(diagnostic.code, "more-findings"),
    }
    let shown = render(diagnostic, false);
    let acts = |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
    assert!(!shown.contains(acts), "a terminal would act upon {shown:?}");
}

/// A place is in the text: a line there is, a column within it or right behind it, and that line shown.
fn place_is_inside(location: &api::diagnostic::Location, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let index = usize::try_from(location.line).unwrap().checked_sub(1).expect("lines count from 1");
    let line = text.split('\n').nth(index).unwrap_or_else(|| panic!("no such line: {location:?}"));
    let (length, column) = (line.chars().count(), usize::try_from(location.column).unwrap());
    assert!((1..=length + 1).contains(&column), "no such column in {line:?}: {location:?}");
    assert!(location.width >= 1 && line.contains(location.text.as_str()), "{location:?} in {line:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Collects the names of all properties of a JSON schema.
    fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
        let below: Vec<&serde_json::Value> = match schema {
            serde_json::Value::Object(object) => {
                if let Some(properties) = object.get("properties").and_then(|list| list.as_object()) {
                    found.extend(properties.keys().cloned());
                }
                object.values().collect()
            }
            serde_json::Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        below.into_iter().for_each(|schema| keys(schema, found));
    }

    #[test]
    fn every_key_of_a_configuration_is_tried() {
        let mut found = Vec::new();
        keys(&serde_json::from_str(&snapshot::json_schema()).unwrap(), &mut found);
        assert!(found.len() > 50, "{found:?}");
        // Some stand in values only, inside tables of one line.
        let inside = |key: &String| VALUES.iter().any(|value| value.contains(&format!("{key} = ")));
        let missing: Vec<_> =
            found.iter().filter(|key| !KEYS.contains(&key.as_str()) && !inside(key)).collect();
        assert!(missing.is_empty(), "put {missing:?} at the end of KEYS");
        assert!(TABLES.len() <= 64 && KEYS.len() <= 192 && VALUES.len() <= 255, "one byte chooses");
    }

    #[test]
    fn the_bases_are_good_but_the_empty_one() {
        for base in &BASES[1..] {
            let input = Input { file: "rempart.toml", text: base.as_bytes(), tree: &TREE };
            let compiled = compile(input, NOW, Mode::Fresh);
            assert!(compiled.snapshot.is_some(), "{:?}", compiled.diagnostics);
        }
    }
}
