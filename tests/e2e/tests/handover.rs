//! The supervisor itself is killed, or sockets come from systemd: the edge goes on serving, a new supervisor takes over
//! what there is, and sessions of visitors stay good.

use std::net::TcpListener;
use std::process::Command;

use api::admin::ProcessRole;
use harness::client::Client;
use harness::companions::Host;
use harness::config::Config;
use harness::load::Target;
use harness::rempart::{Place, process_of};
use harness::{ports, process, tools};
use rustix::process::Signal;

use crate::heavy;
use crate::stage::{Addresses, HOST, LIGHT, PATIENT, config_on, load, times};

#[test]
fn an_edge_outlives_its_supervisor_and_a_new_one_takes_over() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::with(&config_on(Addresses::free(), &host));
    let mut rempart = place.run();
    rempart.await_standby();
    let load = load(&rempart, LIGHT);
    let mut orphans = Vec::new();
    for round in 0..times(2, 10) {
        let edge = rempart.edge_pid();
        let before = process::descendants(rempart.pid());
        orphans.push(rempart.kill_supervisor());
        load.wait_for(200);
        assert!(process::lives(edge), "round {round}: the edge serves without a supervisor");
        rempart = place.run();
        let status = rempart.await_standby();
        load.wait_for(200);
        let adopted = process_of(&status, ProcessRole::Edge) == Some(edge);
        println!("round {round}: the edge was {}", if adopted { "adopted" } else { "replaced" });
        // Whoever is left of the old family belongs to the new supervisor, or ends.
        for pid in before {
            if !rempart.ask_status().processes.iter().any(|process| process.pid == pid) {
                process::await_end(pid);
            }
        }
    }
    let report = load.stop();
    report.print("kill -9 of the supervisor");
    report.assert_unharmed();
}

/// A new supervisor is as good as the first: what it adopted or started is watched and replaced.
#[test]
fn after_a_takeover_a_killed_edge_is_replaced_as_before() {
    let _alone = heavy();
    let host = Host::new();
    let place = Place::with(&config_on(Addresses::free(), &host));
    let rempart = place.run();
    rempart.await_standby();
    let _orphans = rempart.kill_supervisor();
    let rempart = place.run();
    let status = rempart.await_standby();
    let load = load(&rempart, LIGHT);
    let edge = process_of(&status, ProcessRole::Edge).unwrap();
    load.halt(edge, Signal::KILL);
    rempart.await_status("a successor", |now| {
        now.supervision.crashes > status.supervision.crashes && process_of(now, ProcessRole::Edge).is_some()
    });
    load.wait_for(100);
    let report = load.stop();
    report.print("a kill after a takeover");
    report.assert_only_in_flight_lost();
}

/// Two sockets as systemd makes them, and a configuration that listens on the same addresses.
fn socket_unit(host: &Host) -> (Place, [TcpListener; 2]) {
    let sockets = [ports::listening(), ports::listening()];
    let addresses = Addresses(std::array::from_fn(|at| sockets[at].local_addr().unwrap()));
    (Place::with(&config_on(addresses, host)), sockets)
}

#[test]
fn sockets_from_systemd_are_served_and_survive_every_process() {
    let _alone = heavy();
    let host = Host::new();
    let (place, [plain, tls]) = socket_unit(&host);
    let rempart = place.run_with_sockets(&[&plain, &tls]);
    let status = rempart.await_standby();
    let bound: Vec<String> = status.listeners.iter().map(|listener| listener.address.clone()).collect();
    let given = [&plain, &tls].map(|socket| socket.local_addr().unwrap().to_string());
    assert_eq!(bound, given, "{status:#?}");
    let load = load(&rempart, LIGHT);
    load.halt(rempart.edge_pid(), Signal::KILL);
    rempart.await_status("a successor", |now| now.supervision.crashes == 1);
    rempart.await_standby();
    load.wait_for(100);
    let orphans = rempart.kill_supervisor();
    load.wait_for(200);
    let rempart = place.run_with_sockets(&[&plain, &tls]);
    rempart.await_standby();
    load.wait_for(200);
    let report = load.stop();
    report.print("sockets from systemd");
    report.assert_only_in_flight_lost();
    // Nothing runs for a while: a visitor waits in the queue of the socket and is not turned away.
    drop(orphans);
    let place = rempart.kill();
    let mut early = Client::plain(plain.local_addr().unwrap()).unwrap();
    early.send(format!("GET /ok HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    let _rempart = place.run_with_sockets(&[&plain, &tls]);
    assert_eq!(early.response("GET").unwrap().text(), "ok");
}

/// systemd's own tool for a socket unit on the command line: it waits for the first visitor, then starts the program.
#[test]
fn systemd_socket_activate_starts_it_for_the_first_visitor() {
    let host = Host::new();
    let place = Place::new();
    let address = Addresses::free().0[0];
    let config = Config::new().raw(PATIENT).listen(&address.to_string(), false).site("steady", &[HOST]);
    place.write("rempart.toml", config.origin(host.url()).text());
    let program = place.command(&[]).get_program().to_owned();
    let mut command = Command::new(tools::program("systemd-socket-activate"));
    command.args(["--listen", &address.to_string()]).arg(program);
    command.args(["run", "--config", "rempart.toml", "--json", "--state-dir"]).arg(place.state());
    command.current_dir(place.path(""));
    let process = process::Process::start("systemd-socket-activate", &mut command);
    assert!(
        process.stderr.wait_for(|line| line.contains("Listening on")).is_some(),
        "{}",
        process.stderr.text()
    );
    let mut first = Client::plain(address).unwrap();
    first.send(format!("GET /ok HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).unwrap();
    assert_eq!(first.response("GET").unwrap().text(), "ok", "{}", process.stderr.text());
}

#[test]
fn sessions_continue_after_a_killed_edge_and_after_a_restart() {
    let host = Host::new();
    let place = Place::with(&config_on(Addresses::free(), &host));
    let rempart = place.run();
    rempart.await_standby();
    let target = Target::of(&rempart, HOST);
    let visit = |resumed: bool, when: &str| {
        let mut client = Client::tls(target.tls, HOST, target.http1.clone()).unwrap();
        assert_eq!(client.resumed(), Some(resumed), "{when}");
        // Tickets come with the first answer.
        assert_eq!(client.get(HOST, "/ok").unwrap().text(), "ok", "{when}");
    };
    visit(false, "the first visit");
    visit(true, "the second visit");
    let edge = rempart.edge_pid();
    process::end(edge);
    rempart.await_status("a successor", |status| {
        process_of(status, ProcessRole::Edge).is_some_and(|successor| successor != edge)
    });
    visit(true, "after a killed edge");
    let _rempart = rempart.stop().run();
    visit(true, "after a restart of everything");
}
