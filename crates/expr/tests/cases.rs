//! Case files: facts of a request, then expressions with the truth, the value or the error they must give.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed"
)]

mod support;

use std::path::Path;

use expr::{Fetched, Filter, Options, Phase, Steps, Value, ValueExpression};
use support::{LISTS, Request, add_fact};

#[test]
fn every_case_file_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let (mut cases, mut wrong) = (0, Vec::new());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let (mut request, mut phase) = (Request::default(), None);
        for (number, line) in std::fs::read_to_string(&file).unwrap().lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(wanted) = line.strip_prefix("phase ") {
                phase = Phase::ALL.iter().copied().find(|phase| phase.name() == wanted);
                assert!(phase.is_some(), "{name}:{}: no phase {wanted}", number + 1);
                continue;
            }
            let Some((source, expected)) = line.split_once(" => ") else {
                add_fact(&mut request, line);
                continue;
            };
            cases += 1;
            let found =
                outcome(source, expected.starts_with("value ") || expected == "missing", phase, &request);
            if found != expected {
                wrong.push(format!("{name}:{}: {source}\n  wanted {expected}\n  found  {found}", number + 1));
            }
        }
    }
    assert!(cases > 150, "only {cases} cases were read");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn outcome(source: &str, value: bool, phase: Option<Phase>, request: &Request) -> String {
    let options = Options { phase, lists: LISTS, ..Options::default() };
    let mut steps = Steps::default();
    let failed = |error: expr::ExpressionError| {
        let suggestion = error.suggestion.as_ref().map(|text| format!("; {text}")).unwrap_or_default();
        format!("error {}:{}+{} {}{suggestion}", error.line, error.column, error.length, error.reason)
    };
    if value {
        return match ValueExpression::parse(source, &options) {
            Err(error) => failed(error),
            Ok(expression) => match expression.evaluate(request, &mut steps) {
                Fetched::Value(Value::Bytes(bytes)) => format!("value {}", String::from_utf8_lossy(&bytes)),
                Fetched::Value(other) => panic!("{other:?}"),
                Fetched::Missing => "missing".to_owned(),
                Fetched::Unknown => "unknown".to_owned(),
            },
        };
    }
    match Filter::parse(source, &options) {
        Err(error) => failed(error),
        Ok(filter) => {
            let truth = filter.evaluate(request, &mut steps);
            let explained = filter.explain(request);
            assert_eq!(explained[0].truth, truth, "the explanation disagrees on {source}");
            format!("{truth:?}").to_ascii_lowercase()
        }
    }
}

#[test]
fn errors_print_as_the_api_prints_them() {
    let source = "ssl and\nhttp.request.uri.paht eq \"/x\"";
    let error = Filter::parse(source, &Options::default()).unwrap_err();
    let printed = "Filter parsing error (2:1):\nhttp.request.uri.paht eq \"/x\"\n^^^^^^^^^^^^^^^^^^^^^ unknown \
        identifier; unknown field http.request.uri.paht; did you mean http.request.uri.path?";
    assert_eq!(error.to_string(), printed);
    assert_eq!(
        error.api_message(),
        format!(
            "'{source}' is not a valid value for expression because could not parse filter expression: {printed}"
        )
    );
}

#[test]
fn limits_hold() {
    let options = Options::default();
    let nested = |depth| format!("{}ssl{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(expr::NESTING_MOST), &options).is_ok());
    assert!(Filter::parse(&nested(expr::NESTING_MOST + 1), &options).is_err());
    let long = format!("http.host eq \"{}\"", "a".repeat(expr::SOURCE_MOST));
    assert!(Filter::parse(&long, &options).unwrap_err().reason.contains("longer than 4096 bytes"));
    assert!(Filter::parse(&long, &Options { source_most: 1 << 16, ..options }).is_ok());
}

#[test]
fn a_used_up_budget_is_unknown_and_says_so() {
    let mut request = Request::default();
    add_fact(&mut request, "http.host = shop.example");
    let filter = Filter::parse("not (http.host eq \"x\") and not ssl", &Options::default()).unwrap();
    for most in 0..40 {
        let mut steps = Steps::new(most);
        let truth = filter.evaluate(&request, &mut steps);
        assert_eq!(truth == expr::Truth::Unknown, steps.exhausted(), "{most} steps: {truth:?}");
    }
    let mut steps = Steps::new(40);
    assert!(filter.evaluate(&request, &mut steps).fires());
}

#[test]
fn explanations_name_every_node_and_value() {
    let mut request = Request::default();
    add_fact(&mut request, "http.host = shop.example");
    add_fact(&mut request, "cf.bot_management.score = unknown");
    let filter =
        Filter::parse("http.host eq \"x\" or not cf.bot_management.score gt 30", &Options::default())
            .unwrap();
    let lines: Vec<String> = filter
        .explain(&request)
        .into_iter()
        .map(|line| {
            format!("{} {} {:?} {}", line.depth, line.text, line.truth, line.value.unwrap_or_default())
        })
        .collect();
    assert_eq!(
        lines,
        [
            "0 http.host eq \"x\" or not cf.bot_management.score gt 30 Unknown ",
            "1 http.host eq \"x\" False \"shop.example\"",
            "1 not cf.bot_management.score gt 30 Unknown ",
            "2 cf.bot_management.score gt 30 Unknown unknown",
        ]
    );
}
