//! What every kind has in common, and tables.

use api::seal::{Keyring, SigningKey};

use super::*;
use crate::package::{self, Draft, MAX_BYTES};

const NOW: Timestamp = Timestamp(1_000_000_000_000);

fn table(rows: impl IntoIterator<Item = (String, f64)>) -> String {
    let rows = rows.into_iter().map(|(key, weight)| format!("{key}\t{weight}\n"));
    std::iter::once("#columns name:text weight:number\n".to_owned()).chain(rows).collect()
}

fn rows(range: std::ops::Range<usize>) -> Vec<(String, f64)> {
    range.map(|number| (format!("feature-{number:03}"), (number % 50) as f64 / 7.0)).collect()
}

fn packed(generation: u64, text: &str) -> Package {
    let kind = find("table").unwrap();
    let content = kind.read(text.as_bytes(), NOW).unwrap();
    let key = SigningKey::from_seed(&[9; 32]).unwrap();
    let draft = Draft {
        name: "features".to_owned(),
        generation,
        created: NOW,
        expires: None,
        source: String::new(),
        query_hash: None,
    };
    let bytes = package::pack(draft, describe(kind, &content), text.as_bytes(), &key).unwrap();
    let ring = Keyring::new([key.public().into()]).unwrap();
    package::open(&bytes, &ring, NOW, MAX_BYTES, true).unwrap()
}

fn codes(found: Result<Checked, Vec<Diagnostic>>) -> Vec<String> {
    found.err().unwrap_or_default().into_iter().map(|finding| finding.code).collect()
}

#[test]
fn names_are_unique_and_found() {
    for kind in KINDS {
        assert_eq!(find(kind.name()).unwrap().name(), kind.name());
        let (from, to) = kind.consumers();
        assert!((from..=to).contains(&kind.schema()), "{} can be read by who writes it", kind.name());
    }
    assert!(find("Table").is_none());
}

#[test]
fn a_table_is_read_and_looked_up() {
    let text = "#columns agent:text weight:number note:text\ncurl\t0.5\t\nwget\t-1e3\ttool\n";
    let content = find("table").unwrap().read(text.as_bytes(), NOW).unwrap();
    let Value::Table(table) = &content.value else { panic!("{content:?}") };
    assert_eq!(
        (table.len(), table.number("wget", "weight"), table.text("wget", "note")),
        (2, Some(-1000.0), Some("tool"))
    );
    for (key, column) in [("lynx", "weight"), ("curl", "note"), ("curl", "score")] {
        assert_eq!(table.number(key, column), None, "{key} {column}: unknown, and not zero");
    }
    assert!(find("table").unwrap().exercise(&content).is_ok());
}

#[test]
fn what_is_wrong_with_a_table_is_named() {
    let head = "#columns name:text weight:number\n";
    for (text, expected) in [
        (String::new(), "no-columns"),
        ("name\tweight\n".to_owned(), "no-columns"),
        (format!("{head}a\t1\na\t1\n"), "duplicate-keys"),
        (format!("{head}a\tNaN\n"), "not-finite"),
        (format!("{head}a\tinf\n"), "not-finite"),
        (format!("{head}a\t\n"), "not-finite"),
        (format!("{head}a\t1\nb\t2"), "truncated"),
        (format!("{head}a\n"), "bad-row"),
        (format!("{head}\t1\n"), "bad-row"),
        ("#columns weight:number\n1\n".to_owned(), "bad-column"),
        ("#columns a:text a:text\nx\ty\n".to_owned(), "bad-column"),
        (format!("{head}{}\t1\n", "k".repeat(5000)), "line-too-long"),
    ] {
        let findings = find("table").unwrap().read(text.as_bytes(), NOW).unwrap_err();
        assert_eq!(findings[0].code, expected, "{text:?}: {findings:?}");
    }
    let findings = find("table").unwrap().read(b"#columns a:text\nb\n\xff\n", NOW).unwrap_err();
    assert_eq!((findings[0].code.as_str(), findings[0].location.as_ref().unwrap().line), ("not-utf-8", 3));
}

#[test]
fn caps_refuse_and_never_cut_off() {
    let text = table(rows(0..201));
    let caps = Caps { entries: 200, ..find("table").unwrap().caps() };
    let findings = read(find("table").unwrap(), text.as_bytes(), caps, NOW).unwrap_err();
    assert_eq!(findings[0].code, "too-many-entries");
    assert!(read(find("table").unwrap(), table(rows(0..200)).as_bytes(), caps, NOW).is_ok());
    let findings = read(find("table").unwrap(), table([]).as_bytes(), caps, NOW).unwrap_err();
    assert_eq!(findings[0].code, "empty");
    let caps = Caps { bytes: 10, ..caps };
    assert_eq!(read(find("table").unwrap(), text.as_bytes(), caps, NOW).unwrap_err()[0].code, "too-large");
}

#[test]
fn a_change_stays_within_its_budget_unless_it_is_forced() {
    let caps = find("table").unwrap().caps();
    let before = packed(5, &table(rows(0..60)));
    for (generation, after, expected) in [
        (6, rows(0..60), ""),
        (6, rows(3..63), ""),
        (6, rows(0..57), ""),
        (6, rows(0..56), "shrinks-too-much"),
        (6, rows(30..90), "shrinks-too-much"),
        (6, rows(0..600), ""),
        (6, rows(0..601), "grows-too-much"),
        (5, rows(0..60), "not-newer"),
        (4, rows(0..60), "not-newer"),
    ] {
        let next = packed(generation, &table(after));
        let found = codes(check(&next, Some(&before), caps, false, NOW));
        assert_eq!(found.first().map_or("", String::as_str), expected, "generation {generation}: {found:?}");
        let forced = codes(check(&next, Some(&before), caps, true, NOW));
        assert_eq!(forced.is_empty(), expected != "not-newer", "{expected}");
    }
    assert!(check(&packed(1, &table(rows(0..60))), None, caps, false, NOW).is_ok());
}

#[test]
fn numbers_that_lost_their_meaning_are_refused_unless_forced() {
    let caps = find("table").unwrap().caps();
    let weights = |count: usize, weight: fn(usize) -> f64| {
        table((0..count).map(|number| (format!("feature-{number:03}"), weight(number))))
    };
    let before = packed(1, &weights(30, |number| number as f64));
    for (after, expected) in [
        (weights(30, |number| -(number as f64)), ""),
        (weights(30, |_| 0.0), "one-value"),
        (weights(30, |number| number as f64 * 10.0), ""),
        (weights(30, |number| number as f64 * -10.1), "out-of-range"),
    ] {
        let found = codes(check(&packed(2, &after), Some(&before), caps, false, NOW));
        assert_eq!(found.first().map_or("", String::as_str), expected, "{found:?}");
        assert!(check(&packed(2, &after), Some(&before), caps, true, NOW).is_ok());
    }
    let few = packed(1, &weights(19, |number| number as f64));
    assert!(check(&packed(2, &weights(19, |_| 1.0)), Some(&few), caps, false, NOW).is_ok(), "may be chance");
}

#[test]
fn an_incident_may_end_at_once() {
    let kind = find("kill-switches").unwrap();
    let switches = |modules: &[&str]| {
        let switch = |module: &&str| {
            format!(r#"{{"module":"{module}","site":null,"since":1,"by":"root","reason":"test"}}"#)
        };
        let text = format!("[{}]", modules.iter().map(switch).collect::<Vec<_>>().join(","));
        kind.read(text.as_bytes(), NOW).unwrap().classes
    };
    for after in [&[][..], &["waf"]] {
        let found =
            over_budget(&difference(&switches(&["waf", "ddos", "cache", "rate-limit"]), &switches(after)));
        assert_eq!(found, [], "to {after:?}");
    }
}

#[test]
fn what_has_expired_does_not_keep_out_what_replaces_it() {
    let kind = find("certificates").unwrap();
    let end = |year| {
        let mut parameters = rcgen::CertificateParams::new(vec!["shop.example".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem() + &key.serialize_pem();
        serde_json::to_vec(&std::collections::BTreeMap::from([("shop.example", pem)])).unwrap()
    };
    let of = |generation, made: Timestamp, payload: Vec<u8>| {
        let content = kind.read(&payload, made).unwrap();
        let template = packed(generation, &table(rows(0..1)));
        let Described { kind, entries, keys_digest, memory, .. } = describe(kind, &content);
        let (kind, bytes) = (kind.to_owned(), payload.len() as u64);
        let manifest = package::Manifest {
            kind,
            entries,
            keys_digest,
            memory,
            bytes,
            created: made,
            ..template.manifest
        };
        Package { manifest, payload: payload.into(), ..template }
    };
    let in_2010 = Timestamp(1_262_304_000_000_000);
    let in_2020 = Timestamp(1_577_836_800_000_000);
    let (old, new) = (of(1, in_2010, end(2015)), of(2, in_2020, end(2030)));
    assert!(check(&new, Some(&old), kind.caps(), false, in_2020).is_ok());
    let late = codes(check(&of(3, in_2010, end(2015)), Some(&old), kind.caps(), true, in_2020));
    assert_eq!(late, ["bad-certificate"]);
    let other_key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let good: std::collections::BTreeMap<String, String> = serde_json::from_slice(&end(2030)).unwrap();
    let pem = &good["shop.example"];
    let (chain, _) = pem.split_at(pem.find("-----BEGIN PRIVATE").unwrap());
    for (name, pem) in [
        ("other.example", pem.clone()),
        ("shop.example", chain.to_owned()),
        ("shop.example", chain.to_owned() + &other_key),
        ("shop.example", other_key.clone()),
    ] {
        let payload = serde_json::to_vec(&std::collections::BTreeMap::from([(name, &pem)])).unwrap();
        assert_eq!(kind.read(&payload, in_2010).unwrap_err()[0].code, "bad-certificate", "{name}: {pem}");
    }
    let other = packed(4, &table(rows(0..3)));
    assert_eq!(codes(check(&other, Some(&old), other_caps(), false, in_2020)), ["incomparable"]);
}

fn other_caps() -> crate::package::Caps {
    find("table").unwrap().caps()
}

#[test]
fn what_a_table_is_reckoned_to_take_is_more_than_its_parts() {
    let wide =
        "#columns key:text ".to_owned() + &(0..60).map(|n| format!("c{n}:text ")).collect::<String>() + "\n";
    let row = |n: usize| format!("k{n}{}\n", "\ty".repeat(60));
    let text = wide + &(0..1000).map(row).collect::<String>();
    let content = find("table").unwrap().read(text.as_bytes(), NOW).unwrap();
    let Value::Table(table) = &content.value else { panic!("{content:?}") };
    assert_eq!((table.text("k999", "c59"), table.text("k0", "key")), (Some("y"), Some("k0")));
    let cells = 61 * 1000;
    assert!(content.memory > (cells * 4 + 1000 * 100) as u64, "{}", content.memory);
    let caps = Caps { memory: content.memory - 1, ..other_caps() };
    let found = read(find("table").unwrap(), text.as_bytes(), caps, NOW).unwrap_err();
    assert_eq!(found[0].code, "too-much-memory");
}

#[test]
fn of_a_few_one_may_go_and_never_the_last() {
    let class = |keys: &[&str]| Class {
        name: "hosts",
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        needed: true,
    };
    for (before, after, expected) in [
        (vec!["a", "b"], vec!["a"], None),
        (vec!["a", "b", "c"], vec!["a"], Some("shrinks-too-much")),
        (vec!["a"], vec!["b"], None),
        (vec!["a"], vec![], Some("last-withdrawn")),
        (vec![], vec!["a"], None),
    ] {
        let found = over_budget(&difference(&[class(&before)], &[class(&after)]));
        assert_eq!(found.first().map(|found| found.code.as_str()), expected, "{before:?} to {after:?}");
    }
}

#[test]
fn a_manifest_that_counts_otherwise_is_refused() {
    let caps = find("table").unwrap().caps();
    let good = packed(1, &table(rows(0..9)));
    let change = |change: fn(&mut package::Manifest)| {
        let mut bad = good.clone();
        change(&mut bad.manifest);
        codes(check(&bad, None, caps, false, NOW))
    };
    assert_eq!(change(|manifest| manifest.entries += 1), ["manifest-disagrees"]);
    assert_eq!(change(|manifest| manifest.keys_digest = "00".repeat(32)), ["manifest-disagrees"]);
    assert_eq!(change(|manifest| manifest.kind = "model".to_owned()), ["unknown-kind"]);
    assert_eq!(change(|manifest| manifest.consumers = (2, 3)), ["unknown-schema"]);
}

#[test]
fn switches_name_modules_and_blanks_are_not_all() {
    let kind = find("kill-switches").unwrap();
    let switch = r#"{"module":"waf","site":null,"since":1,"by":"root","reason":"test"}"#;
    assert!(kind.read(format!("[{switch}]").as_bytes(), NOW).is_ok());
    assert!(kind.read(b"[]", NOW).is_ok(), "none is what is wanted");
    for (text, expected) in [
        (format!("[{switch},{switch}]"), "duplicate-keys"),
        (switch.replace("null", "\"\"").replace("{\"m", "[{\"m") + "]", "blank"),
        (switch.replace("waf", "wfa").replace("{\"m", "[{\"m") + "]", "unknown-module"),
        ("{}".to_owned(), "not-json"),
    ] {
        assert_eq!(kind.read(text.as_bytes(), NOW).unwrap_err()[0].code, expected, "{text}");
    }
}
