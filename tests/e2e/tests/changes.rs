//! What a change may take away, what waits for a confirmation, and what goes back at once.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use api::admin::{Answer, Request};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::rempart::Rempart;
use harness::{PATIENCE, client};
use rustix::net::{AddressFamily, SocketType};

/// Sites `site-0`, `site-1` and so on.
fn sites(count: usize, origin: &Origin) -> Config {
    let config = Config::empty()
        .raw(
            "standby = false\nbake = \"1s\"\n[metrics]\nlisten = \"127.0.0.1:0\"\n[log.access]\nto = \"off\"",
        )
        .listeners();
    (0..count).fold(config, |config, number| {
        config.site(&format!("site-{number}"), &[&format!("host-{number}.test")]).origin(origin.url())
    })
}

fn origin() -> Origin {
    Origin::answering(|_| Reply::text(200, "ok"))
}

fn status_of(rempart: &Rempart, host: &str) -> u16 {
    client::get(rempart.plain(), host, "/").unwrap().status
}

#[test]
fn a_change_takes_away_no_more_than_it_may_unless_it_is_forced_and_confirmed() {
    let origin = origin();
    let rempart = Rempart::with(&sites(5, &origin));
    rempart.place().write("rempart.toml", sites(2, &origin).text());
    let (code, outcome) = rempart.reload();
    let codes: Vec<_> = outcome.diagnostics.iter().map(|found| found.code.as_str()).collect();
    assert_eq!((code, outcome.active), (Some(1), false));
    assert_eq!(codes, ["shrinks-too-much", "shrinks-too-much"], "hosts and origins");
    let told = &outcome.diagnostics[0];
    assert!(
        told.message.contains("host-4.test") && told.hint.as_deref().unwrap().contains("--force"),
        "{told:?}"
    );
    assert_eq!(status_of(&rempart, "host-4.test"), 200);
    let confirm = || rempart.ask(&Request::Confirm { feed: None });
    assert!(matches!(confirm(), Answer::Refused { .. }), "nothing waits for it");
    let Answer::Reload(outcome) = rempart.ask(&Request::Reload { force: true }) else { panic!() };
    assert!(outcome.changed && outcome.confirm_seconds == Some(600), "{outcome:?}");
    assert_eq!((status_of(&rempart, "host-1.test"), status_of(&rempart, "host-4.test")), (200, 421));
    assert_eq!(confirm(), Answer::Done);
    assert!(matches!(confirm(), Answer::Refused { .. }));
    // One of a few may go.
    let outcome = rempart.configure(&sites(1, &origin));
    assert!(outcome.changed, "{outcome:?}");
}

#[test]
fn a_revert_goes_back_to_what_has_served_for_its_whole_bake() {
    let origin = origin();
    let rempart = Rempart::with(&sites(1, &origin));
    rempart.await_status("the end of the bake", |status| !status.baking);
    let outcome = rempart.configure(&sites(2, &origin));
    assert!(outcome.changed && rempart.status().baking);
    assert_eq!(status_of(&rempart, "host-1.test"), 200);
    let reverted = rempart.place().ask(&["revert", "--reason", "a test"]);
    assert_eq!(reverted.code, Some(0), "{}", reverted.stderr);
    assert_eq!((status_of(&rempart, "host-0.test"), status_of(&rempart, "host-1.test")), (200, 421));
    assert_eq!(rempart.status().number, 3, "numbers never go back");
}

#[test]
fn a_ban_holds_at_once_for_its_network_and_for_the_next_edge() {
    let origin = origin();
    let rempart = Rempart::with(&sites(1, &origin));
    assert_eq!(answered(9, rempart.plain()), Some(200));
    let wide = rempart.place().ask(&["ban", "127.0.0.0/8", "--reason", "all of them"]);
    assert_ne!(wide.code, Some(0), "{}", wide.stdout);
    let banned = rempart.place().ask(&["ban", "127.0.0.9", "--for", "5", "--reason", "a flood"]);
    assert_eq!(banned.code, Some(0), "{}", banned.stderr);
    assert_eq!((answered(9, rempart.plain()), answered(8, rempart.plain())), (None, Some(200)));
    let status = rempart.status();
    assert_eq!((status.bans.len(), status.bans[0].network.to_string().as_str()), (1, "127.0.0.9/32"));
    let before = rempart.edge_pid();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(before).unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    rempart.await_status("another edge", |status| {
        harness::rempart::process_of(status, api::admin::ProcessRole::Edge).is_some_and(|pid| pid != before)
    });
    assert_eq!((answered(9, rempart.plain()), answered(8, rempart.plain())), (None, Some(200)));
}

/// The status 127.0.0.`last` is answered with; `None` when its connection is closed without a word.
fn answered(last: u8, to: SocketAddr) -> Option<u16> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0))).unwrap();
    rustix::net::connect(&socket, &to).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // Who is banned may find the connection closed before this.
    drop(std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: host-0.test\r\n\r\n"));
    let mut line = [0; 12];
    stream.read_exact(&mut line).ok()?;
    std::str::from_utf8(&line[9..]).unwrap().parse().ok()
}
