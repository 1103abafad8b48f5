//! Rules through the running edge: every phase and every action, what skips, what is only noted, and what fails.

use std::time::{Duration, Instant};

use harness::PATIENCE;
use harness::client::{self, Response};
use harness::config::Config;
use harness::origin::{Origin, Reply, Seen};
use harness::places::database;
use harness::rempart::{Place, Rempart, faulty};
use serde_json::Value;

use crate::feeds::{key, packed_as, put};

const BEGIN: &str = "bake = \"1s\"\n[metrics]\nlisten = \"127.0.0.1:0\"";

/// An origin that answers with the status in `?status=`, and with fields a site may want gone.
fn origin() -> Origin {
    Origin::answering(|seen: &Seen| {
        let target = seen.target();
        let status = target.split_once("status=").map_or("200", |(_, status)| &status[..3]).to_owned();
        Reply::raw(format!(
            "HTTP/1.1 {status} Scripted\r\nX-Powered-By: something\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
        ))
    })
}

fn config(origin: &Origin, rules: &str) -> Config {
    Config::empty()
        .raw(BEGIN)
        .raw("[log.access]\nto = { file = \"access.log\" }")
        .listeners()
        .site("shop", &["shop.test"])
        .origin(origin.url())
        .raw(rules)
}

/// One `[[site.rules]]`; `action` is the word and what else belongs to it.
pub fn rule(id: &str, phase: &str, expression: &str, action: &str) -> String {
    format!(
        "[[site.rules]]\nid = \"{id}\"\nphase = \"{phase}\"\nexpression = '''{expression}'''\naction = {action}\n"
    )
}

fn ask(rempart: &Rempart, method: &str, target: &str, fields: &str, body: &str) -> Response {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: shop.test\r\n{fields}{length}Connection: close\r\n\r\n{body}"
    );
    client::Client::plain(rempart.plain()).unwrap().exchange(request).unwrap()
}

pub fn get(rempart: &Rempart, target: &str, fields: &str) -> Response {
    ask(rempart, "GET", target, fields, "")
}

fn last(origin: &Origin) -> Seen {
    origin.seen().pop().expect("the origin was asked")
}

pub const FIREWALL: &str = "http_request_firewall_custom";

#[test]
fn requests_are_redirected_rewritten_routed_and_told_of_before_the_origin_sees_them() {
    let (origin, other) = (origin(), origin());
    let port = other.address().port();
    let rules = [
        rule(
            "old-shop",
            "http_request_dynamic_redirect",
            "starts_with(http.request.uri.path, \"/old/\")",
            "\"redirect\"\naction_parameters.from_value.target_url.expression = '''concat(\"https://new.test\", substring(http.request.uri.path, 4))'''\naction_parameters.from_value.status_code = 308\naction_parameters.from_value.preserve_query_string = true",
        ),
        rule(
            "pretty",
            "http_request_transform",
            "http.request.uri.path wildcard \"/pretty/*\"",
            "\"rewrite\"\naction_parameters.uri.path.expression = '''wildcard_replace(http.request.uri.path, \"/pretty/*\", \"/ugly/${1}\")'''\naction_parameters.uri.query.value = \"from=pretty\"",
        ),
        rule(
            "to-other",
            "http_request_origin",
            // The path is the rewritten one; the raw one is what came.
            "http.request.version eq \"HTTP/1.1\" and http.request.uri.path eq \"/ugly/other\" and raw.http.request.uri.path eq \"/pretty/other\"",
            &format!(
                "\"route\"\naction_parameters = {{ host_header = \"app.internal\", origin = {{ port = {port} }} }}"
            ),
        ),
        rule(
            "tell",
            "http_request_late_transform",
            "true",
            "\"rewrite\"\n[site.rules.action_parameters.headers]\nX-Path = { operation = \"set\", expression = \"http.request.uri.path\" }\nX-Country = { operation = \"set\", expression = \"ip.src.country\" }\nX-Gone = { operation = \"remove\" }\nX-More = { operation = \"add\", value = \"two\" }",
        ),
    ];
    let rempart = Rempart::with(&config(&origin, &rules.concat()));

    let moved = get(&rempart, "/old/page?a=1", "");
    assert_eq!(
        (moved.status, moved.head.text("location").as_deref()),
        (308, Some("https://new.test/page?a=1"))
    );
    assert!(origin.seen().is_empty(), "a redirect asks no origin");

    assert_eq!(
        get(&rempart, "/pretty/a%20b?x=1", "X-Gone: 1\r\nX-More: one\r\nX-Country: XX\r\n").status,
        200
    );
    let seen = last(&origin);
    assert_eq!(seen.target(), "/ugly/a%20b?from=pretty");
    assert_eq!(seen.head.text("x-path").as_deref(), Some("/ugly/a%20b"));
    assert_eq!(seen.head.text("x-gone"), None);
    assert_eq!(seen.head.all("x-more"), [b"one", b"two"]);
    // Nobody knows the country: it is not made up, and what the visitor says of it does not pass for it.
    assert_eq!(seen.head.text("x-country"), None);

    assert_eq!(get(&rempart, "/pretty/other", "").status, 200);
    let seen = last(&other);
    assert_eq!(
        (seen.target().as_str(), seen.head.text("host").as_deref()),
        ("/ugly/other?from=pretty", Some("app.internal"))
    );
}

#[test]
fn the_firewall_blocks_skips_executes_and_notes_and_nothing_unknown_blocks() {
    let origin = origin();
    let rules = [
        "[[site.rules]]\nid = \"friends\"\nphase = \"http_request_firewall_custom\"\nexpression = '''any(http.request.headers[\"x-friend\"][*] eq \"yes\")'''\naction = \"skip\"\naction_parameters.ruleset = \"current\"\n".to_owned(),
        rule(
            "no-admin",
            FIREWALL,
            "starts_with(http.request.uri.path, \"/admin\") and not ip.src in {10.0.0.0/8}",
            "\"block\"\naction_parameters.response = { status_code = 451, content = \"not here\", content_type = \"text/plain\" }",
        ),
        rule("no-robots", FIREWALL, "not cf.bot_management.score gt 30", "\"block\""),
        rule("no-foreigners", FIREWALL, "ip.src.country ne \"FR\"", "\"managed_challenge\""),
        rule("no-login", FIREWALL, "http.request.uri.path contains \"wp-login\"", "\"managed_challenge\""),
        rule(
            "no-evil",
            FIREWALL,
            "http.request.body.raw contains \"evil\" or any(http.request.body.form[\"q\"][*] eq \"a b\")",
            "\"block\"",
        ),
        rule("try-out", FIREWALL, "http.request.uri.path eq \"/tried\"", "\"block\"\nmode = \"log\""),
        rule("set", FIREWALL, "true", "\"execute\"\naction_parameters = { id = \"more\", overrides = { rules = [{ id = \"m-2\", action = \"log\" }, { id = \"m-3\", enabled = false }] } }"),
        (1..4).fold(String::from("[[rulesets]]\nid = \"more\"\n"), |text, number| {
            text + &rule(&format!("m-{number}"), FIREWALL, &format!("http.request.uri.path eq \"/m{number}\""), "\"block\"").replace("site.rules", "rulesets.rules")
        }),
    ];
    let rempart = Rempart::with(&config(&origin, &rules.concat()));
    let status = |target: &str, fields: &str| get(&rempart, target, fields).status;

    let refused = get(&rempart, "/admin/users", "");
    assert_eq!((refused.status, refused.text().as_str()), (451, "not here"));
    assert_eq!(status("/admin/users", "X-Friend: yes\r\n"), 200, "a skipped ruleset blocks nobody");
    assert_eq!(status("/", ""), 200, "a score or a country nobody knows blocks nobody");
    assert_eq!(status("/wp-login.php", ""), 403);
    assert_eq!(status("/tried", ""), 200, "what is only noted blocks nobody");
    assert_eq!([status("/m1", ""), status("/m2", ""), status("/m3", "")], [403, 200, 200]);

    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(ask(&rempart, "POST", "/", "", "this is evil").status, 403);
    assert_eq!(ask(&rempart, "POST", "/", form, "p=1&q=a+b").status, 403);
    assert_eq!(ask(&rempart, "POST", "/", form, "p=1&q=ab").status, 200);
    assert_eq!(last(&origin).body.bytes, b"p=1&q=ab", "what was looked into is sent on whole");
    // Longer than what is looked into: sent on as it is.
    let long = "x".repeat(300_000);
    assert_eq!(ask(&rempart, "POST", "/", form, &long).status, 200);
    assert_eq!(last(&origin).body.bytes, long.as_bytes());

    for (id, outcome) in
        [("no-admin", "block"), ("try-out", "would_block"), ("m-2", "log"), ("friends", "skip")]
    {
        await_noted(&rempart, "firewall-rules", outcome, id);
    }
    assert!(!access_log(&rempart).contains("no-robots"), "it never fired");

    for (name, works) in [("rule/no-admin", true), ("rule/", false)] {
        let ended = rempart.place().ask(&["disable", name, "--reason", "tried"]);
        assert_eq!(ended.code == Some(0), works, "{name}: {}{}", ended.stdout, ended.stderr);
    }
    assert_eq!(status("/admin/users", ""), 200, "a rule that is switched off blocks nobody");
    assert_eq!(status("/m1", ""), 403, "and the others still do");
    assert_eq!(rempart.place().ask(&["enable", "rule/no-admin"]).code, Some(0));
    assert_eq!(status("/admin/users", ""), 451);
}

#[test]
fn settings_hold_for_the_requests_they_are_for() {
    let origin = origin();
    let rules = rule(
        "images",
        "http_config_settings",
        "starts_with(http.request.uri.path, \"/img/\")",
        "\"set_config\"\naction_parameters = { hotlink_protection = true, bic = true }",
    );
    let rempart = Rempart::with(&config(&origin, &rules));
    let agent = "User-Agent: a\r\n";
    for (target, fields, expected) in [
        ("/img/a.png", format!("{agent}Referer: https://thief.test/page\r\n"), 403),
        ("/img/a.png", format!("{agent}Referer: https://shop.test/page\r\n"), 200),
        ("/img/a.png", agent.to_owned(), 200),
        ("/img/a.png", String::new(), 403),
        ("/a.png", "Referer: https://thief.test/page\r\n".to_owned(), 200),
    ] {
        assert_eq!(get(&rempart, target, &fields).status, expected, "{target} {fields}");
    }
}

#[test]
fn responses_are_answered_anew_changed_and_logged() {
    let origin = origin();
    let rules = [
        rule(
            "sorry",
            "http_custom_errors",
            "http.response.code ge 500 or cf.response.error_type eq \"waf\"",
            "\"serve_error\"\naction_parameters = { content = \"<h1>sorry</h1>\", status_code = 503 }",
        ),
        rule(
            "clean",
            "http_response_headers_transform",
            "http.response.content_type.media_type ne \"image/png\"",
            "\"rewrite\"\n[site.rules.action_parameters.headers]\nX-Powered-By = { operation = \"remove\" }\nX-Frame-Options = { operation = \"set\", value = \"DENY\" }\nX-Status = { operation = \"set\", expression = \"to_string(http.response.code)\" }",
        ),
        rule(
            "log-more",
            "http_log_custom_fields",
            "true",
            "\"log_custom_field\"\naction_parameters = { request_fields = [{ name = \"X-Session\" }], raw_response_fields = [{ name = \"X-Powered-By\" }], cookie_fields = [{ name = \"theme\" }] }",
        ),
        rule("no", FIREWALL, "http.request.uri.path eq \"/no\"", "\"block\""),
    ];
    let rempart = Rempart::with(&config(&origin, &rules.concat()));

    let fine = get(&rempart, "/", "X-Session: s1\r\nCookie: a=b; theme=dark\r\n");
    assert_eq!((fine.status, fine.text().as_str()), (200, "ok"));
    assert_eq!(fine.head.text("x-powered-by"), None);
    assert_eq!(fine.head.text("x-frame-options").as_deref(), Some("DENY"));
    assert_eq!(fine.head.text("x-status").as_deref(), Some("200"));
    for target in ["/?status=502", "/no"] {
        let sorry = get(&rempart, target, "");
        assert_eq!((sorry.status, sorry.text().as_str()), (503, "<h1>sorry</h1>"), "{target}");
        assert_eq!(sorry.head.text("content-type").as_deref(), Some("text/html; charset=utf-8"));
    }
    assert_eq!(get(&rempart, "/?status=404", "").text(), "ok", "no rule is about that");
    let line = await_line(&rempart, "x-session");
    assert_eq!(line["fields"]["request.x-session"], "s1");
    assert_eq!(line["fields"]["raw_response.x-powered-by"], "something");
    assert_eq!(line["fields"]["cookie.theme"], "dark");
}

#[test]
fn responses_are_compressed_as_a_rule_says_and_curl_reads_them_back() {
    let text = "a line of text that is worth it\n".repeat(2_000);
    let body = text.clone();
    let origin = Origin::answering(move |_| {
        Reply::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nETag: \"a\"\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    });
    let rules = rule(
        "small",
        "http_response_compression",
        "http.response.content_type.media_type eq \"text/html\" and not http.request.uri.path eq \"/plain\"",
        "\"compress_response\"\naction_parameters.algorithms = [{ name = \"gzip\" }, { name = \"auto\" }]",
    );
    let rempart = Rempart::with(&config(&origin, &rules));
    for (target, accepted, expected) in [
        ("/", "gzip, br, zstd", Some("gzip")),
        ("/", "br;q=0.9, zstd;q=0.5", Some("br")),
        ("/", "identity", None),
        ("/plain", "gzip", None),
    ] {
        let answer = get(&rempart, target, &format!("Accept-Encoding: {accepted}\r\n"));
        assert_eq!(answer.head.text("content-encoding").as_deref(), expected, "{target} {accepted}");
        assert_eq!(answer.body.bytes.len() < text.len() / 4, expected.is_some());
        assert_eq!(
            answer.head.text("etag").as_deref(),
            Some(if expected.is_some() { "W/\"a\"" } else { "\"a\"" })
        );
    }
    let url = format!("http://{}/", rempart.plain());
    let output = std::process::Command::new("curl")
        .args(["--silent", "--compressed", "--header", "Host: shop.test", &url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), text);
}

#[test]
fn a_rule_function_that_panics_fails_no_request_and_is_passed_over() {
    let origin = origin();
    let rules = [
        rule(
            "bad",
            FIREWALL,
            "is_timed_hmac_valid_v0(\"panic\", http.request.uri, 9000000000, http.request.timestamp.sec, 1)",
            "\"block\"",
        ),
        rule(
            "other",
            "http_response_headers_transform",
            "true",
            "\"rewrite\"\naction_parameters.headers.X-Seen = { operation = \"set\", value = \"1\" }",
        ),
    ];
    let place = Place::with(&config(&origin, &rules.concat())).using(faulty());
    let rempart = place.run();
    rempart.await_standby();
    let signed = "/a-1484063787-9uDm0Hy%2BfMmRD1wHXpHXxvzY8dTmsqbB4kHo9Lm4uK8%3D";
    for _ in 0..50 {
        let answer = get(&rempart, signed, "");
        assert_eq!((answer.status, answer.head.text("x-seen").as_deref()), (200, Some("1")));
    }
    let status = rempart.ask_status();
    let open = |module: &str| status.modules.breakers.iter().any(|breaker| breaker.module == module);
    assert!(open("firewall-rules") && !open("response-rules"), "{:?}", status.modules.breakers);
}

#[test]
fn one_bad_rule_of_a_thousand_is_named_and_changes_nothing() {
    let origin = origin();
    let file = |bad: &str| {
        (0..1000).fold(String::new(), |text, number| {
            let expression = if number == 500 {
                bad.to_owned()
            } else {
                format!("http.request.uri.path eq \"/n{number}\"")
            };
            text + &rule(&format!("n-{number}"), FIREWALL, &expression, "\"block\"")
                .replace("site.rules", "rules")
        })
    };
    let place = Place::with(&config(&origin, "").raw(""));
    place.write("many.toml", file("http.request.uri.path eq \"/n500\""));
    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), format!("rules_files = [\"many.toml\"]\n{text}")).unwrap();
    let rempart = place.run();
    let blocked = |number: usize| get(&rempart, &format!("/n{number}"), "").status == 403;
    assert!(blocked(0) && blocked(500) && blocked(999));

    place.write("many.toml", file("http.request.uri.paht eq \"/n500\""));
    let ended = rempart.place().ask(&["reload"]);
    assert_ne!(ended.code, Some(0));
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for part in [
        "\"many.toml\"",
        "\"line\": 2504",
        "\"column\": 17",
        "unknown field",
        "did you mean http.request.uri.path?",
    ] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    assert!(blocked(0) && blocked(500) && blocked(999), "what was in force still is");
}

#[test]
fn lists_are_looked_up_where_they_are_and_are_unknown_where_they_are_not() {
    let origin = origin();
    let lists = "[[lists]]\nname = \"own_hosts\"\nkind = \"hostname\"\nitems = [\"*.test\"]\n[[lists]]\nname = \"moved\"\nkind = \"redirect\"\nredirects = [{ source_url = \"shop.test/old\", target_url = \"https://new.test/\", status_code = 308, subpath_matching = true, preserve_query_string = true }]";
    let place = Place::new();
    std::fs::create_dir_all(place.path("packages")).unwrap();
    let feed = format!(
        "[[feeds]]\nname = \"bad-visitors\"\nkind = \"ip-list\"\nsource = \"{}/\"\nevery = \"1s\"\nkeys = [\"{}\"]",
        place.path("packages").display(),
        key().public()
    );
    let rules = [
        rule("bad", FIREWALL, "ip.src in $bad_visitors and http.host in $own_hosts", "\"block\""),
        rule(
            "not-good",
            FIREWALL,
            "not ip.src in $bad_visitors and http.request.uri.path eq \"/only-bad\"",
            "\"block\"",
        ),
        rule(
            "moved",
            "http_request_redirect",
            "true",
            "\"redirect\"\naction_parameters.from_list = { name = \"moved\" }",
        ),
    ];
    let config = Config::empty()
        .raw("standby = false")
        .raw(BEGIN)
        .raw("[log.access]\nto = \"off\"")
        .raw(&feed)
        .raw(lists)
        .listeners();
    let config = config.site("shop", &["shop.test"]).origin(origin.url()).raw(&rules.concat());
    place.write("rempart.toml", config.text());
    let rempart = place.run();
    let status = |target: &str| get(&rempart, target, "").status;

    let moved = get(&rempart, "/old/page?a=1", "");
    assert_eq!(
        (moved.status, moved.head.text("location").as_deref()),
        (308, Some("https://new.test/page?a=1"))
    );
    assert_eq!(
        [status("/"), status("/only-bad")],
        [200, 200],
        "a list that is not there says neither yes nor no"
    );

    let others: String = (0..50).map(|number| format!("192.0.2.{number}\n")).collect();
    for (generation, first, expected) in
        [(1, "198.51.100.1", [200, 403]), (2, "127.0.0.0/8", [403, 403]), (3, "198.51.100.2", [200, 403])]
    {
        let text = format!("{first}\n{others}");
        put(&place, generation, &packed_as("bad-visitors", "ip-list", &text, generation, &key(), None));
        let begun = Instant::now();
        while [status("/"), status("/only-bad")] != expected {
            assert!(begun.elapsed() < PATIENCE, "generation {generation}: {}", rempart.log().text());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_path_cannot_be_written_past_a_rule() {
    let rules = [
        rule("no-admin", FIREWALL, "starts_with(http.request.uri.path, \"/admin\")", "\"block\""),
        rule(
            "tell",
            "http_request_late_transform",
            "true",
            "\"rewrite\"\naction_parameters.headers = { X-Path = { operation = \"set\", expression = \"http.request.uri.path\" }, X-Raw = { operation = \"set\", expression = \"raw.http.request.uri.path\" } }",
        ),
    ];
    for (scope, admin, sent) in
        [("incoming", 403, "/a/./%62"), ("both", 403, "/a/b"), ("none", 200, "/a/./%62")]
    {
        let origin = origin();
        let settings = format!("{}\n", rules.concat());
        let config = Config::empty().raw(BEGIN).raw("[log.access]\nto = \"off\"").listeners();
        let config = config
            .site("shop", &["shop.test"])
            .raw(&format!("[site.normalize]\nscope = \"{scope}\""))
            .origin(origin.url())
            .raw(&settings);
        let rempart = Rempart::with(&config);
        assert_eq!(get(&rempart, "/admin", "").status, 403);
        for path in ["/x/../admin", "/%61dmin", "//admin", "/x/%2e%2e/admin"] {
            assert_eq!(get(&rempart, path, "").status, admin, "{path} with {scope}");
        }
        origin.forget();
        assert_eq!(get(&rempart, "/a/./%62?c=%64", "").status, 200);
        let seen = last(&origin);
        assert_eq!(seen.target(), format!("{sent}?c=%64"), "{scope}");
        let path = if scope == "none" { "/a/./%62" } else { "/a/b" };
        assert_eq!(seen.head.text("x-path").as_deref(), Some(path));
        assert_eq!(seen.head.text("x-raw").as_deref(), Some("/a/./%62"));
    }
}

#[test]
fn places_are_unknown_until_a_database_comes_and_again_when_it_goes() {
    let origin = origin();
    let place = Place::new();
    std::fs::create_dir_all(place.path("geo")).unwrap();
    let install = |country: &str, force: bool| {
        place.write("places.mmdb", database(&[("127.0.0.0/8", country), ("192.0.2.0/24", "DE")]));
        let (file, folder) = (place.path("places.mmdb"), place.path("geo"));
        let mut words = vec!["geo", "install", file.to_str().unwrap(), "--dir", folder.to_str().unwrap()];
        words.extend(force.then_some("--force"));
        let done = place.ask(&words);
        assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    };
    install("FR", false);
    let key = std::fs::read_to_string(place.path("geo/geo.key")).unwrap();
    let public = api::seal::SigningKey::parse(key.trim()).unwrap().public().to_string();
    std::fs::rename(place.path("geo/geo.package"), place.path("first.package")).unwrap();
    let feed = format!(
        "[[feeds]]\nname = \"geo\"\nkind = \"geoip\"\nsource = \"{}\"\nevery = \"1s\"\nkeys = [\"{public}\"]",
        place.path("geo/geo.package").display()
    );
    let rules = [
        rule(
            "only-french",
            FIREWALL,
            "ip.src.country ne \"FR\" and http.request.uri.path eq \"/fr\"",
            "\"block\"",
        ),
        rule(
            "no-french",
            FIREWALL,
            "ip.src.country eq \"FR\" and http.request.uri.path eq \"/no-fr\"",
            "\"block\"",
        ),
        rule(
            "no-union",
            FIREWALL,
            "ip.src.is_in_european_union and http.request.uri.path eq \"/eu\"",
            "\"block\"",
        ),
        rule("city", FIREWALL, "not ip.src.city eq \"Paris\"", "\"block\""),
    ];
    let config =
        Config::empty().raw("standby = false").raw(BEGIN).raw("[log.access]\nto = \"off\"").raw(&feed);
    let config = config.listeners().site("shop", &["shop.test"]).origin(origin.url()).raw(&rules.concat());
    place.write("rempart.toml", config.text());
    let rempart = place.run();
    let all = || ["/fr", "/no-fr", "/eu"].map(|target| get(&rempart, target, "").status);
    assert_eq!(all(), [200; 3], "no database is no country, and blocks nobody");
    std::fs::rename(place.path("first.package"), place.path("geo/geo.package")).unwrap();
    let await_all = |expected: [u16; 3]| {
        let begun = Instant::now();
        while all() != expected {
            assert!(begun.elapsed() < PATIENCE, "{expected:?}: {}", rempart.log().text());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    await_all([200, 403, 403]);
    // One country for another is more than a database may lose at once: whoever means it says so.
    install("US", true);
    let begun = Instant::now();
    while rempart.place().ask(&["feed", "take", "geo", "--force"]).code != Some(0) {
        assert!(begun.elapsed() < PATIENCE, "{}", rempart.log().text());
        std::thread::sleep(Duration::from_millis(20));
    }
    await_all([403, 200, 200]);
}

fn access_log(rempart: &Rempart) -> String {
    std::fs::read_to_string(rempart.place().path("access.log")).unwrap_or_default()
}

/// The access log is written a moment after the response.
fn await_line(rempart: &Rempart, part: &str) -> Value {
    until(part, || {
        let log = access_log(rempart);
        log.lines().find(|line| line.contains(part)).map(|line| serde_json::from_str(line).unwrap())
    })
}

fn await_noted(rempart: &Rempart, module: &str, outcome: &str, id: &str) {
    let said = serde_json::json!({"module": module, "outcome": outcome, "reason": id});
    until(&said.to_string(), || {
        let log = access_log(rempart);
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .any(|line| line["verdicts"].as_array().is_some_and(|said_of_it| said_of_it.contains(&said)))
            .then_some(())
    });
}

pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: waited for in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
