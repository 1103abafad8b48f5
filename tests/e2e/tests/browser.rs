//! Sites in headless Chromium: what a person sees works. Screenshots are left beside the build.

use std::path::Path;
use std::process::Command;

use harness::config::Config;
use harness::origin::{Origin, Reply, Seen};
use harness::rempart::Place;
use harness::tools;

use crate::heavy;
use crate::rules::{FIREWALL, rule};

#[test]
fn the_demo_site_works_in_chromium_over_http2() {
    let _alone = heavy();
    let place = Place::new();
    let rempart = place.start(&["demo", "--listen", "https://127.0.0.1:0"]);
    let text = visit(&place, "browser.mjs", &format!("https://localhost:{}", rempart.tls().port()));
    assert!(text.contains("everything a visitor sees works"), "{text}");
}

/// Lets a script visit a site; answers what it said.
fn visit(place: &Place, script: &str, base: &str) -> String {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&pictures).unwrap();
    let output = Command::new(tools::program("node"))
        .arg(tools::script(script))
        .arg(tools::node_modules())
        .arg(tools::program("chromium"))
        .arg(base)
        .arg(&pictures)
        .current_dir(place.path(""))
        .env("HOME", place.path(""))
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{text}\nscreenshots: {}", pictures.display());
    assert!(output.status.success(), "{text}");
    text
}

/// A picture without a library: ten by ten, red.
const PICTURE: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"10\" height=\"10\"><rect width=\"10\" height=\"10\" fill=\"red\"/></svg>";

/// Pages, each with a picture of the first site, and a picture that is named as hotlink protection knows them.
fn page(seen: &Seen) -> Reply {
    let target = seen.target();
    let answer = |status: &str, kind: &str, body: &str| {
        Reply::raw(format!(
            "HTTP/1.1 {status}\r\nX-Powered-By: something\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    if target.ends_with(".png") {
        return answer("200 OK", "image/svg+xml", PICTURE);
    }
    let port = seen.head.text("x-port").unwrap_or_default();
    let body = format!(
        "<!doctype html><title>A page</title><h1>A page</h1><img src=\"http://localhost:{port}/picture.png\">\
         {}<p id=\"script\">untouched</p><script>document.getElementById('script').textContent = 'ran'</script>\
         <p id=\"end\">the end</p>",
        "<p>some text that is worth compressing</p>".repeat(20)
    );
    answer(if target == "/fails" { "500 Oops" } else { "200 OK" }, "text/html; charset=utf-8", &body)
}

const OLD: &str = r#""redirect"
action_parameters.from_value.target_url.expression = '''concat("/new", substring(http.request.uri.path, 4))'''
action_parameters.from_value.preserve_query_string = true"#;
const LISTED: &str = r#""redirect"
action_parameters.from_list = { name = "moved" }"#;
const IMAGES: &str = r#""set_config"
action_parameters.hotlink_protection = true"#;
const GONE: &str = r#""block"
action_parameters.response = { status_code = 451, content = "<h1>not available here</h1>", content_type = "text/html" }"#;
const PORT: &str = r#""rewrite"
[site.rules.action_parameters.headers]
X-Port = { operation = "set", expression = 'regex_replace(http.request.headers["host"][0], "^.*:", "")' }"#;
const SORRY: &str = r#""serve_error"
action_parameters = { content = "<!doctype html><title>Back soon</title><h1>Back soon</h1>", content_type = "text/html", status_code = 503 }"#;
const STRICT: &str = r#""rewrite"
[site.rules.action_parameters.headers]
Content-Security-Policy = { operation = "set", value = "script-src 'none'" }
X-Powered-By = { operation = "remove" }"#;
const SMALL: &str = r#""compress_response"
action_parameters.algorithms = [{ name = "brotli" }, { name = "gzip" }]"#;
const MOVED: &str = r#"[[lists]]
name = "moved"
kind = "redirect"
redirects = [{ source_url = "localhost/listed", target_url = "http://localhost:PORT/new/listed", status_code = 302 }]"#;

#[test]
fn what_rules_do_is_seen_in_chromium() {
    let _alone = heavy();
    let origin = Origin::answering(page);
    let port = harness::ports::free();
    let redirects = "http_request_dynamic_redirect";
    let headers = "http_response_headers_transform";
    let rules = [
        rule("old", redirects, "starts_with(http.request.uri.path, \"/old/\")", OLD),
        rule("listed", "http_request_redirect", "true", LISTED),
        rule("images", "http_config_settings", "true", IMAGES),
        rule("admin", FIREWALL, "starts_with(http.request.uri.path, \"/admin\")", "\"block\""),
        rule("gone", FIREWALL, "http.request.uri.path eq \"/gone\"", GONE),
        rule("people", FIREWALL, "http.request.uri.path eq \"/challenged\"", "\"managed_challenge\""),
        rule("port", "http_request_late_transform", "true", PORT),
        rule("sorry", "http_custom_errors", "http.response.code ge 500", SORRY),
        rule("strict", headers, "true", STRICT),
        rule("small", "http_response_compression", "true", SMALL),
    ];
    let config = Config::empty()
        .raw("[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"")
        .raw(&MOVED.replace("PORT", &port.to_string()))
        .listen(&format!("127.0.0.1:{port}"), false)
        .site("own", &["localhost"])
        .origin(origin.url())
        .raw(&rules.concat())
        .site("other", &["other.localhost"])
        .origin(origin.url())
        .raw(&rule("port", "http_request_late_transform", "true", PORT));
    let place = Place::with(&config);
    let rempart = place.run();
    let text = visit(rempart.place(), "rules.mjs", &format!("http://localhost:{port}"));
    assert!(text.contains("everything rules do is seen"), "{text}");
}
