//! The keeper against pebble, an authority made for tests, with its random failures on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at the first thing that is not as it should be"
)]

mod authority;
mod world;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acme::{Command, Reason, certificate_path, read_status};
use api::certificates::AcmeChallenge;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use tokio::sync::oneshot;
use x509_parser::prelude::FromDer;

use crate::authority::{Front, Wishes, authority, free_port};
use crate::world::World;

const HOUR: Duration = Duration::from_secs(3_600);

/// The part of a PEM text that is the key.
fn key_of(pem: &str) -> String {
    pem[pem.find("-----BEGIN PRIVATE KEY-----").unwrap()..].to_owned()
}

/// The serial number of the first certificate, in hexadecimal digits.
fn serial_of(pem: &str) -> String {
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(&leaf).unwrap();
    leaf.raw_serial()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        .trim_start_matches("00")
        .to_owned()
}

/// Sends a command with an answer and waits for that.
async fn ask(
    commands: &tokio::sync::mpsc::Sender<Command>,
    command: impl FnOnce(oneshot::Sender<Result<(), String>>) -> Command,
) -> Result<(), String> {
    let (answer, told) = oneshot::channel();
    commands.send(command(answer)).await.unwrap();
    told.await.unwrap()
}

/// Every file and folder below this one, with its mode.
fn modes(folder: &Path) -> Vec<(String, bool, u32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = std::fs::metadata(&path).unwrap();
        found.push((path.display().to_string(), metadata.is_dir(), metadata.permissions().mode() & 0o7777));
        if metadata.is_dir() {
            found.extend(modes(&path));
        }
    }
    found
}

#[tokio::test]
async fn a_certificate_is_issued_and_renewed_with_a_new_key_and_nothing_is_left_behind() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let settings = world.settings(&[pebble.authority(&world.tls)], &["www.example.test"]);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            world.until("issued", || world.history("www.example.test").issued.is_some()).await;
            let first = world.current("www.example.test").unwrap();
            assert_eq!(first.matches("BEGIN CERTIFICATE").count(), 3, "leaf and two intermediates");
            assert!(first.starts_with("-----BEGIN CERTIFICATE") && first.matches("PRIVATE KEY").count() == 2);
            assert!(world.edge.has_withdrawn());

            let renew = |names: &[&str]| {
                let names = names.iter().map(ToString::to_string).collect();
                |answer| Command::Renew { names, answer }
            };
            let error = ask(&commands, renew(&["www.example.test", "other.example.test"])).await.unwrap_err();
            assert!(error.contains("other.example.test"), "{error}");
            ask(&commands, renew(&["www.example.test"])).await.unwrap();
            world.until("renewed", || world.current("www.example.test").unwrap() != first).await;
            let second = world.current("www.example.test").unwrap();
            assert_ne!(key_of(&first), key_of(&second));
            let place = certificate_path(&world.state(), "www.example.test").unwrap();
            assert_eq!(std::fs::read_to_string(place.with_file_name("previous.pem")).unwrap(), first);
        })
        .await;
    for (path, is_folder, mode) in modes(&world.state()) {
        assert_eq!(mode, if is_folder { 0o700 } else { 0o600 }, "{path}");
    }
    assert_eq!(std::fs::read_dir(world.state().join("accounts")).unwrap().count(), 1);
    let status = read_status(&world.state(), "www.example.test").unwrap();
    assert!(status.renews.unwrap().ends_with('Z') && status.problem.is_none());
    assert!(status.issuer.unwrap().contains("Pebble"));
}

#[tokio::test]
async fn a_handshake_can_show_control() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let mut settings =
        world.settings(&[pebble.authority(&world.tls)], &["www.example.test", "b.example.test"]);
    settings.challenge = AcmeChallenge::TlsAlpn01;
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            for name in ["www.example.test", "b.example.test"] {
                world.until("issued", || world.history(name).issued.is_some()).await;
            }
        })
        .await;
    assert!(world.edge.has_withdrawn());
}

#[tokio::test]
async fn a_program_can_publish_records_for_wildcards_and_its_failures_are_told() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let mut settings = world.settings(&[pebble.authority(&world.tls)], &["*.example.test"]);
    world
        .with_keeper(async |commands| {
            // A wildcard over HTTP is refused before anybody is asked.
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("told", || world.history("*.example.test").problem.is_some()).await;
            let problem = world.history("*.example.test").problem.unwrap();
            assert!(problem.contains("only be had with DNS-01"), "{problem}");

            let failing = "echo the zone is locked >&2; exit 3";
            settings.challenge = AcmeChallenge::Dns01 { command: ["sh", "-c", failing].map(str::to_owned).to_vec() };
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            let problem = || world.history("*.example.test").problem.unwrap_or_default();
            world.until("told", || problem().contains("the zone is locked")).await;

            // The names of the records are unique here, so removing the line of a value is enough.
            let script = r#"case $2 in present) echo "$3 $4" >> "$1";; cleanup) grep -v -e "$4" "$1" > "$1.new"; mv "$1.new" "$1";; esac"#;
            let records = world.records.display().to_string();
            let command = vec!["sh".into(), "-c".into(), script.into(), "dns".into(), records];
            settings.challenge = AcmeChallenge::Dns01 { command };
            commands.send(Command::Settings(settings)).await.unwrap();
            world.until("issued", || world.history("*.example.test").issued.is_some()).await;
        })
        .await;
    assert!(world.state().join("certificates/_.example.test/current.pem").is_file());
    assert_eq!(std::fs::read_to_string(&world.records).unwrap(), "", "the record is cleaned up");
}

#[tokio::test]
async fn a_revoked_certificate_is_replaced_and_served_until_then() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let settings = world.settings(&[pebble.authority(&world.tls)], &["www.example.test"]);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            world.until("issued", || world.history("www.example.test").issued.is_some()).await;
            let first = world.current("www.example.test").unwrap();
            assert_eq!(pebble.status_of(&world.tls, &serial_of(&first)).await, "Valid");
            let revoke = |name: &str| {
                let names = vec![name.to_owned()];
                |answer| Command::Revoke { names, reason: Reason::KeyCompromise, answer }
            };
            let error = ask(&commands, revoke("none.example.test")).await.unwrap_err();
            assert!(error.contains("none.example.test: it has no certificate"), "{error}");
            ask(&commands, revoke("www.example.test")).await.unwrap();
            assert_eq!(pebble.status_of(&world.tls, &serial_of(&first)).await, "Revoked");
            world.until("replaced", || world.current("www.example.test").unwrap() != first).await;
            let second = world.current("www.example.test").unwrap();
            assert_ne!(key_of(&first), key_of(&second));
            assert_eq!(pebble.status_of(&world.tls, &serial_of(&second)).await, "Valid");
            world.until("remembered", || !world.history("www.example.test").renew_now).await;
        })
        .await;
}

#[tokio::test]
async fn when_the_first_authority_is_down_the_second_is_asked() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let down = authority(([127, 0, 0, 1], free_port()).into(), &world.tls);
    let names = ["a.example.test", "b.example.test", "c.example.test"];
    let settings = world.settings(&[down.clone(), pebble.authority(&world.tls)], &names);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            for name in names {
                world.until("issued", || world.history(name).issued.is_some()).await;
            }
        })
        .await;
    let from: BTreeSet<_> = names.map(|name| world.history(name).issued.unwrap().authority.unwrap()).into();
    assert_eq!(from, BTreeSet::from([pebble.authority(&world.tls).directory]));
}

#[tokio::test]
async fn authorities_that_refuse_to_work_are_left_alone_and_the_next_is_asked() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let limited = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"come back tomorrow"}"#;
    for (status, retry, body) in
        [(429, Some(86_400), limited), (503, Some(86_400), ""), (500, None, "<html>")]
    {
        let body_sent = body.to_owned();
        let front = Front::start(&world.tls, Box::new(move |_| (status, retry, body_sent.clone()))).await;
        let name = format!("s{status}.example.test");
        let authorities = [authority(front.address, &world.tls), pebble.authority(&world.tls)];
        let settings = world.settings(&authorities, &[&name]);
        world
            .with_keeper(async |commands| {
                commands.send(Command::Settings(settings)).await.unwrap();
                world.until("issued", || world.history(&name).issued.is_some()).await;
            })
            .await;
        // Three failures without Retry-After count it as down; those within seconds are answered from memory.
        let most = if retry.is_some() { 1 } else { 3 };
        assert!((1..=most).contains(&front.requests()), "{status}: asked {} times", front.requests());
    }
}

#[tokio::test]
async fn a_clock_past_the_end_means_renewal_now_and_the_old_one_stays_until_a_better_one_is_there() {
    let world = World::new().await;
    let short = world.pebble(&Wishes { lifetime_seconds: Some(3_600), ..Wishes::default() });
    let long = world.pebble(&Wishes::default());
    let mut settings = world.settings(&[short.authority(&world.tls)], &["www.example.test"]);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("issued", || world.history("www.example.test").issued.is_some()).await;
            let first = world.current("www.example.test").unwrap();
            world.move_clock(2 * HOUR);
            // What this authority signs is over by our clock before it comes.
            let problem = || world.history("www.example.test").problem.unwrap_or_default();
            world.until("told", || problem().contains("is the clock right?")).await;
            assert_eq!(world.current("www.example.test").unwrap(), first);
            settings.authorities = vec![long.authority(&world.tls)];
            commands.send(Command::Settings(settings)).await.unwrap();
            world.until("renewed", || world.current("www.example.test").unwrap() != first).await;
            world.until("remembered", || world.history("www.example.test").problem.is_none()).await;
        })
        .await;
}

#[tokio::test]
async fn of_200_names_five_failing_do_not_delay_the_others() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let good: Vec<String> = (0..195).map(|number| format!("n{number}.example.test")).collect();
    // Three fail at once, two hold up whoever looks for their address.
    let bad = ["f0.nowhere.test", "f1.nowhere.test", "f2.nowhere.test", "f3.silent.test", "f4.silent.test"];
    let bad = bad.map(str::to_owned);
    let names: Vec<&str> = bad.iter().chain(&good).map(String::as_str).collect();
    let settings = world.settings(&[pebble.authority(&world.tls)], &names);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            for name in &good {
                world.until("issued", || certificate_path(&world.state(), name).unwrap().is_file()).await;
            }
            for name in &bad {
                world.until("told", || world.history(name).problem.is_some()).await;
                assert_eq!(world.current(name), None);
            }
        })
        .await;
    // Not one of the others failed, although every seventh nonce was refused.
    let failed = world.failed.borrow().clone();
    assert_eq!(failed.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from(bad), "{failed:#?}");
}

#[tokio::test]
async fn challenges_are_withdrawn_when_an_order_fails() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let settings = world.settings(&[pebble.authority(&world.tls)], &["a.nowhere.test"]);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("failed", || world.history("a.nowhere.test").failures > 0).await;
            assert!(world.edge.has_withdrawn());
            assert!(
                world.history("a.nowhere.test").problem.unwrap().contains("a.nowhere.test"),
                "the authority's words"
            );

            // An edge that shows nothing: told as such, and repeated until it does.
            *world.edge.refuses.lock().unwrap() = true;
            let settings = world.settings(&settings.authorities, &["b.example.test"]);
            commands.send(Command::Settings(settings)).await.unwrap();
            world.until("told", || world.history("b.example.test").problem.is_some()).await;
            let problem = world.history("b.example.test").problem.unwrap();
            assert!(problem.contains("its threads are on strike"), "{problem}");
            *world.edge.refuses.lock().unwrap() = false;
            world.until("issued", || world.history("b.example.test").issued.is_some()).await;
        })
        .await;
    assert!(world.edge.shows().is_empty());
}

#[tokio::test]
async fn a_keeper_that_dies_in_the_middle_leaves_a_store_the_next_one_can_use() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let settings = world.settings(&[pebble.authority(&world.tls)], &["www.example.test"]);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("shown", || !world.edge.shows().is_empty()).await;
        })
        .await;
    assert_eq!(world.current("www.example.test"), None);
    assert_eq!(world.edge.shows().len(), 1, "nobody was there to withdraw it");
    let sets = world.edge.sets.lock().unwrap().len();
    world
        .with_keeper(async |commands| {
            world.until("withdrawn", || world.edge.shows().is_empty()).await;
            assert_eq!(world.edge.sets.lock().unwrap()[sets], 0, "the next one begins with nothing shown");
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("issued", || world.history("www.example.test").issued.is_some()).await;
        })
        .await;
    // A third one finds it and orders nothing.
    let before = world.current("www.example.test");
    let orders = world.edge.sets.lock().unwrap().iter().filter(|&&size| size > 0).count();
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            let (answer, told) = oneshot::channel();
            commands.send(Command::Renew { names: vec!["none.example.test".into()], answer }).await.unwrap();
            told.await.unwrap().unwrap_err();
        })
        .await;
    assert_eq!(world.current("www.example.test"), before);
    assert_eq!(world.edge.sets.lock().unwrap().iter().filter(|&&size| size > 0).count(), orders);
}

#[tokio::test]
async fn visitors_get_certificates_for_names_on_the_list_and_for_no_others() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let mut settings = world.settings(&[pebble.authority(&world.tls)], &[]);
    settings.on_demand = vec!["*.shop.test".into(), "*.nowhere.test".into(), "one.test".into()];
    let wanted = [
        "evil.test",
        "shop.test",
        "../../x",
        "*.shop.test",
        "ashop.test",
        "x.one.test",
        "a.nowhere.test",
        "a.shop.test",
        "one.test",
    ];
    world
        .with_keeper(async |commands| {
            let wanted = wanted.map(str::to_owned).to_vec();
            commands.send(Command::Wanted(wanted.clone())).await.unwrap();
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            commands.send(Command::Wanted(wanted)).await.unwrap();
            for name in ["a.shop.test", "one.test"] {
                world.until("issued", || world.history(name).issued.is_some()).await;
            }
            let given_up = world.state().join("certificates/a.nowhere.test");
            world.until("tried", || world.history("a.nowhere.test").failures > 0).await;
            world.until("given up", || !given_up.exists()).await;
        })
        .await;
    let keeper = world.keeper();
    drop(keeper);
    let folders: BTreeSet<String> = std::fs::read_dir(world.state().join("certificates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(folders, [".lock", "a.shop.test", "one.test"].map(str::to_owned).into());
    // The next keeper renews what visitors asked for.
    let before = world.current("one.test").unwrap();
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            ask(&commands, |answer| Command::Renew { names: vec!["one.test".into()], answer }).await.unwrap();
            world.until("renewed", || world.current("one.test").unwrap() != before).await;
        })
        .await;
}

#[tokio::test]
async fn an_account_is_bound_to_an_external_one_when_the_authority_wants_that() {
    let world = World::new().await;
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let pebble = world.pebble(&Wishes { binding: Some(("kid-1", key)), ..Wishes::default() });
    let mut settings = world.settings(&[pebble.authority(&world.tls)], &["www.example.test"]);
    world
        .with_keeper(async |commands| {
            let problem = || world.history("www.example.test").problem.unwrap_or_default();
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("told", || problem().contains("externalAccountRequired")).await;
            let path = world.folder.path().join("binding-key");
            settings.authorities[0].eab_kid = Some("kid-1".into());
            settings.authorities[0].eab_key = Some(path.clone());
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("told", || problem().contains("binding-key")).await;
            std::fs::write(path, key).unwrap();
            world.until("issued", || world.history("www.example.test").issued.is_some()).await;
        })
        .await;
}

#[tokio::test]
async fn an_account_the_authority_has_forgotten_is_made_anew() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    let mut settings = world.settings(&[pebble.authority(&world.tls)], &["www.example.test"]);
    let accounts = || -> Value {
        let entry = std::fs::read_dir(world.state().join("accounts")).unwrap().next().unwrap().unwrap();
        serde_json::from_slice(&std::fs::read(entry.path()).unwrap()).unwrap()
    };
    let port = pebble.address.port();
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings.clone())).await.unwrap();
            world.until("issued", || world.history("www.example.test").issued.is_some()).await;
            // Another contact changes the account at hand.
            let account = accounts()["credentials"]["id"].clone();
            settings.contact = vec!["mailto:others@example.test".into()];
            settings.names.push("b.example.test".into());
            commands.send(Command::Settings(settings)).await.unwrap();
            world.until("issued", || world.history("b.example.test").issued.is_some()).await;
            assert_eq!(accounts()["contact"][0], "mailto:others@example.test");
            assert_eq!(accounts()["credentials"]["id"], account);

            drop(pebble);
            let _pebble = world.pebble(&Wishes { port: Some(port), ..Wishes::default() });
            let before = world.current("www.example.test");
            ask(&commands, |answer| Command::Renew { names: vec!["www.example.test".into()], answer })
                .await
                .unwrap();
            world.until("renewed", || world.current("www.example.test") != before).await;
            assert_ne!(accounts()["credentials"]["id"], account);
        })
        .await;
}

#[tokio::test]
async fn renewal_information_is_asked_for_and_followed() {
    let world = World::new().await;
    let pebble = world.pebble(&Wishes::default());
    // This pebble has no renewal information: a front adds it to the directory and answers for the first certificate that it
    // should have been renewed long ago, for others that there is time.
    let directory = world.tls.get(pebble.address, "/dir").await;
    let directory: Value = serde_json::from_slice(&directory).unwrap();
    let first: Arc<Mutex<Option<String>>> = Arc::default();
    let address: Arc<Mutex<String>> = Arc::default();
    let (front_first, front_address) = (Arc::clone(&first), Arc::clone(&address));
    let answers = move |path: &str| {
        let Some(id) = path.strip_prefix("/window/") else {
            let mut directory = directory.clone();
            directory["renewalInfo"] = format!("https://{}/window", front_address.lock().unwrap()).into();
            return (200, None, directory.to_string());
        };
        let mut first = front_first.lock().unwrap();
        let (start, end) = match first.get_or_insert_with(|| id.to_owned()) == id {
            true => ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z"),
            false => ("2029-01-01T00:00:00Z", "2029-01-02T00:00:00Z"),
        };
        (200, Some(21_600), format!(r#"{{"suggestedWindow":{{"start":"{start}","end":"{end}"}}}}"#))
    };
    let front = Front::start(&world.tls, Box::new(answers)).await;
    *address.lock().unwrap() = front.address.to_string();
    let settings = world.settings(&[authority(front.address, &world.tls)], &["www.example.test"]);
    let window = || world.history("www.example.test").issued.and_then(|issued| issued.window);
    world
        .with_keeper(async |commands| {
            commands.send(Command::Settings(settings)).await.unwrap();
            world
                .until("told", || window().is_some_and(|window| window.start.seconds() > 1_800_000_000))
                .await;
        })
        .await;
    let issued = world.history("www.example.test").issued.unwrap();
    let window = issued.window.unwrap();
    assert!(window.start <= issued.renews && issued.renews <= window.end);
    let first = first.lock().unwrap().clone().unwrap();
    assert_ne!(issued.certificate_id.unwrap(), first);
    let place = certificate_path(&world.state(), "www.example.test").unwrap();
    let previous = std::fs::read_to_string(place.with_file_name("previous.pem")).unwrap();
    let leaf = CertificateDer::from_pem_slice(previous.as_bytes()).unwrap();
    assert_eq!(instant_acme::CertificateIdentifier::try_from(&leaf).unwrap().to_string(), first);
}
