//! The pages as they are sent: every reason in every language and format.

use std::collections::HashSet;

use serde_json::Value;

use super::*;

/// Largest page, in bytes.
const MAX_PAGE_BYTES: usize = 8 * 1024;
const RECEIPT: &str = "0123456789ABCDEF";
const HTML: &str = "text/html";
const MARKDOWN: &str = "text/markdown";
const PROBLEM: &str = "application/problem+json";

/// Every reason the edge may give, with the statuses it may come with.
const REASONS: &[(&str, &[u16])] = &[
    ("bad_request", &[400]),
    ("bad_framing", &[400]),
    ("bad_header", &[400]),
    ("bad_target", &[400, 421]),
    ("missing_host", &[400]),
    ("plain_http_on_tls_port", &[400]),
    ("request_timeout", &[408]),
    ("body_too_large", &[413]),
    ("target_too_long", &[414]),
    ("expectation_failed", &[417]),
    ("unknown_host", &[421]),
    ("client_certificate_required", &[403, 421]),
    ("banned", &[403]),
    ("headers_too_large", &[431]),
    ("method_not_supported", &[501]),
    ("transfer_coding_not_supported", &[501]),
    ("version_not_supported", &[505]),
    ("origin_connect_refused", &[502, 521]),
    ("origin_connect_failed", &[502, 523]),
    ("origin_dns", &[502, 523]),
    ("origin_tls", &[502, 525]),
    ("origin_certificate", &[502, 526]),
    ("origin_bad_response", &[502, 520]),
    ("origin_closed", &[502, 520]),
    ("origin_busy", &[503]),
    ("origin_connect_timeout", &[504, 522]),
    ("origin_timeout", &[504, 524]),
    ("edge_internal", &[500]),
    ("edge_overloaded", &[503]),
    ("draining", &[503]),
    ("no_configuration", &[503]),
    ("loop_detected", &[508]),
];

fn failure(reason: &'static str, status: u16) -> Failure<'static> {
    let fault = catalog::find(reason, status, Fault::Origin).fault;
    Failure { status, fault, reason, retry_after: None, receipt: RECEIPT, host: "shop.example" }
}

fn page(failure: &Failure, accept: &str, language: &str) -> String {
    let page = render(failure, Some(accept.as_bytes()), Some(language.as_bytes()));
    assert_eq!(page.language, language);
    assert!(page.content_type.starts_with(accept));
    String::from_utf8(page.body).unwrap()
}

#[test]
fn the_table_and_the_list_of_reasons_agree() {
    let listed: HashSet<_> = REASONS.iter().map(|(reason, _)| *reason).collect();
    let written: HashSet<_> = catalog::all().map(|entry| entry.reason).collect();
    assert_eq!(listed, written);
}

#[test]
fn every_reason_has_its_own_page_in_every_language_and_format() {
    let mut seen = HashSet::new();
    for (reason, statuses) in REASONS {
        for status in *statuses {
            for language in ["en", "fr", "de"] {
                for accept in [HTML, MARKDOWN, PROBLEM] {
                    let body = page(&failure(reason, *status), accept, language);
                    let name = format!("{reason} {status} {language} {accept}");
                    assert!(body.len() <= MAX_PAGE_BYTES, "{name}: {} bytes", body.len());
                    for part in [RECEIPT, reason, &status.to_string()] {
                        assert!(body.contains(part), "{name}: {part} is missing");
                    }
                    assert!(!body.contains("{{"), "{name}: a template name is left");
                    assert!(seen.insert(body), "{name}: not distinct");
                }
            }
        }
    }
}

#[test]
fn problem_details_have_every_member() {
    for (reason, statuses) in REASONS {
        let mut failure = failure(reason, statuses[0]);
        failure.retry_after = Some(30);
        let problem: Value = serde_json::from_str(&page(&failure, PROBLEM, "fr")).unwrap();
        let words = catalog::find(reason, statuses[0], failure.fault).words(Language::French);
        assert_eq!(problem["type"], format!("urn:rempart:failure:{reason}"));
        assert_eq!(problem["title"], words.title);
        assert_eq!(problem["status"], statuses[0]);
        assert!(problem["detail"].as_str().unwrap().starts_with(words.cause));
        assert_eq!(problem["instance"], format!("urn:rempart:receipt:{RECEIPT}"));
        assert_eq!(problem["fault"], failure.fault.name());
        assert_eq!(problem["reason"], *reason);
        assert_eq!(problem["receipt"], RECEIPT);
        assert_eq!(problem["retry_after"], 30);
    }
}

#[test]
fn no_wait_is_told_when_there_is_none() {
    for retry_after in [None, Some(0)] {
        let failure = Failure { retry_after, ..failure("edge_overloaded", 503) };
        let problem: Value = serde_json::from_str(&page(&failure, PROBLEM, "en")).unwrap();
        assert!(problem.get("retry_after").is_none());
        assert!(!page(&failure, HTML, "en").contains("Try again in"));
    }
    let failure = Failure { retry_after: Some(30), ..failure("edge_overloaded", 503) };
    assert!(page(&failure, HTML, "de").contains("30 Sekunden"));
    assert!(page(&failure, MARKDOWN, "fr").contains("Réessayez dans\u{a0}: 30 secondes"));
}

#[test]
fn the_station_at_fault_is_marked_in_words() {
    for (reason, status, line) in [
        ("bad_request", 400, "You ✕ (Problem here) → Rempart → shop.example"),
        ("edge_internal", 500, "You ✓ → Rempart ✕ (Problem here) → shop.example"),
        ("origin_closed", 502, "You ✓ → Rempart ✓ → shop.example ✕ (Problem here)"),
    ] {
        assert!(page(&failure(reason, status), MARKDOWN, "en").contains(line), "{reason}");
        let html = page(&failure(reason, status), HTML, "en");
        assert_eq!(html.matches("class=\"bad\"").count(), 1, "{reason}");
        assert_eq!(html.matches("✕ Problem here").count(), 1, "{reason}");
    }
}

#[test]
fn an_untrusted_host_stays_text() {
    let host = "<script>alert(\"1\")</script>&'\n# head\u{202e}gro.elpmaxe";
    let failure = Failure { host, ..failure("unknown_host", 421) };
    let html = page(&failure, HTML, "en");
    assert!(!html.contains("<script") && !html.contains('\u{202e}'));
    assert!(html.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;"));
    let markdown = page(&failure, MARKDOWN, "en");
    assert!(!markdown.contains("\n# head"), "a line of its own would be a heading: {markdown}");
    assert!(markdown.lines().any(|line| line.starts_with("    You") && line.contains("<script>")));
    assert!(serde_json::from_str::<Value>(&page(&failure, PROBLEM, "en")).is_ok());
}

#[test]
fn a_huge_host_is_cut_and_an_empty_one_left_out() {
    let host = "&".repeat(70_000);
    let failure = Failure { host: &host, retry_after: Some(7200), ..failure("origin_timeout", 504) };
    for language in ["en", "fr", "de"] {
        for accept in [HTML, MARKDOWN, PROBLEM] {
            assert!(page(&failure, accept, language).len() <= MAX_PAGE_BYTES);
        }
    }
    let failure = Failure { host: "", ..failure };
    assert!(!page(&failure, HTML, "en").contains("<small>"));
    assert!(page(&failure, MARKDOWN, "de").contains("→ Website ✕"));
}

#[test]
fn an_unknown_reason_still_gets_a_whole_page() {
    let failure = Failure {
        status: 599,
        fault: Fault::Edge,
        reason: "not_in_the_table",
        retry_after: None,
        receipt: RECEIPT,
        host: "",
    };
    assert!(page(&failure, HTML, "en").contains("Rempart could not handle this request"));
    assert!(page(&failure, MARKDOWN, "de").contains("`not_in_the_table`"));
}

#[test]
fn the_html_page_needs_nothing_from_elsewhere() {
    let html = page(&failure("origin_timeout", 504), HTML, "de");
    assert!(html.starts_with("<!doctype html>\n<html lang=\"de\">"));
    assert!(html.contains("<meta name=\"robots\" content=\"noindex\">"));
    for outside in ["http://", "https://", "<script", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("<a href=\"\">"), "a timeout can be tried again");
    assert!(!page(&failure("loop_detected", 508), HTML, "de").contains("<a "), "a loop cannot");
}

/// Relative luminance of `#rrggbb` (WCAG 2.2, "relative luminance").
fn luminance(colour: &str) -> f64 {
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).unwrap()) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
}

#[test]
fn text_stands_out_in_light_and_dark() {
    let template = include_str!("page.html");
    let schemes: Vec<&str> =
        template.split(":root{").skip(1).map(|rest| rest.split_once('}').unwrap().0).collect();
    assert_eq!(schemes.len(), 2, "light and dark");
    for scheme in schemes {
        let colour = |name: &str| {
            let declaration = scheme.split(';').find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            luminance(declaration.unwrap_or_else(|| panic!("{name} in {scheme}")))
        };
        for (text, ground) in [
            ("--ink", "--paper"),
            ("--paper", "--ink"),
            ("--soft", "--paper"),
            ("--ink", "--card"),
            ("--soft", "--card"),
            ("--good", "--card"),
            ("--bad", "--card"),
            ("--ink", "--tint"),
        ] {
            let (a, b) = (colour(text), colour(ground));
            let contrast = (a.max(b) + 0.05) / (a.min(b) + 0.05);
            assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.2} in {scheme}");
        }
    }
}

/// Writes pages for a person to look at: `REMPART_PAGES=folder cargo test -p edge pages::tests::written -- --ignored`.
#[test]
#[ignore = "writes files for a person to look at"]
fn written_to_files_for_a_person() {
    let folder = std::path::PathBuf::from(std::env::var("REMPART_PAGES").unwrap());
    for (reason, statuses) in REASONS {
        for language in ["en", "fr", "de"] {
            for (accept, extension) in [(HTML, "html"), (MARKDOWN, "md"), (PROBLEM, "json")] {
                let failure = Failure { retry_after: Some(30), ..failure(reason, statuses[0]) };
                std::fs::write(
                    folder.join(format!("{reason}.{language}.{extension}")),
                    page(&failure, accept, language),
                )
                .unwrap();
            }
        }
    }
}
