//! IPv6 throughout: listeners, origins by address and by name, authorities, and what is logged, told and shown of addresses.

use std::net::{Ipv6Addr, SocketAddr};

use harness::PATIENCE;
use harness::client::{self, Client};
use harness::config::Config;
use harness::origin::{Origin, Reply};
use harness::ports;
use harness::rempart::Rempart;
use serde_json::Value;
use std::time::Instant;

const HOST: &str = "six.test";

fn answering() -> Origin {
    on(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)))
}

fn on(address: SocketAddr) -> Origin {
    Origin::on(address, |connection| {
        while connection.request()?.is_some() {
            connection.send(Reply::text(200, "fine").bytes)?;
        }
        Ok(())
    })
}

#[test]
fn visitors_and_origins_have_ipv6_addresses() {
    let origin = answering();
    let trust = "[trust]\nproxies = [\"10.0.0.1\"]";
    let config = Config::new().raw(trust).listen("[::1]:0", false).listen("[::1]:0", true);
    let rempart = Rempart::with(&config.site("six", &[HOST, "[2001:db8::1]", "::1"]).origin(origin.url()));
    assert!(rempart.plain().is_ipv6() && origin.url().contains("[::1]"));
    // An address has many spellings, and all of them are the same host.
    for authority in ["[::1]", "[::1]:8080", "[0:0::1]", "[2001:DB8::1]", "[2001:0db8:0:0:0:0:0:1]:80", HOST]
    {
        origin.forget();
        let answer = rempart.client().get(authority, "/").unwrap();
        assert_eq!(answer.status, 200, "{authority}");
        let seen = origin.wait_for(1).remove(0);
        assert_eq!(seen.head.text("host").as_deref(), Some(authority));
        assert_eq!(seen.head.text("x-forwarded-for").as_deref(), Some("::1"));
        let host = if authority == HOST { authority.to_owned() } else { format!("\"{authority}\"") };
        assert_eq!(
            seen.head.text("forwarded"),
            Some(format!("for=\"[::1]\";proto=http;host={host}")),
            "quoted as RFC 7239 section 4 wants it"
        );
    }
    for authority in ["[::2]", "[::1", "::1", "[fe80::1%25eth0]"] {
        let status = rempart.client().get(authority, "/").unwrap().status;
        assert!([400, 421].contains(&status), "{authority}: {status}");
    }
    for answer in [
        rempart.client().get("[::1]", "/.rempart/trace"),
        rempart.tls_client(HOST).get(HOST, "/.rempart/trace"),
    ] {
        let trace = answer.unwrap().text();
        assert!(trace.lines().any(|line| line == "ip=::1"), "{trace}");
    }
    let answer = rempart.http2(HOST).get(HOST, "/").unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn an_origin_s_name_is_reached_over_either_family() {
    // `localhost` has an address of each, and only one of them is listened on.
    for address in ["[::1]:0", "127.0.0.1:0"] {
        let origin = on(address.parse().unwrap());
        let config = Config::new().listeners().site("six", &[HOST]);
        let rempart = Rempart::with(&config.origin(format!("http://localhost:{}", origin.address().port())));
        for _ in 0..3 {
            assert_eq!(rempart.client().get(HOST, "/").unwrap().text(), "fine", "{address}");
            origin.close_connections();
        }
    }
}

#[test]
fn logs_keep_the_network_of_an_ipv6_visitor() {
    let origin = answering();
    let top = "[metrics]\nlisten = \"off\"\n[log.access]\nto = { file = \"access.log\" }\n\
        [trust]\nproxies = [\"127.0.0.1\"]";
    let config = Config::empty().raw(top).listen("127.0.0.1:0", false).raw("proxy_protocol = true");
    let rempart = Rempart::with(&config.site("six", &[HOST]).origin(origin.url()));
    for (source, told, kept) in [
        ("TCP6 2001:db8:1234:5678::9 2001:db8::1", "2001:db8:1234:5678::9", "2001:db8:1234::"),
        ("TCP6 ::ffff:192.0.2.77 ::ffff:192.0.2.1", "192.0.2.77", "192.0.2.0"),
    ] {
        let mut client = rempart.client();
        client.send(format!("PROXY {source} 4000 80\r\n")).unwrap();
        let trace = client.get(HOST, "/.rempart/trace").unwrap();
        assert!(trace.text().lines().any(|line| line == format!("ip={told}")), "{}", trace.text());
        let id = trace.head.text("rempart-request-id");
        let deadline = Instant::now() + PATIENCE;
        let line = loop {
            let log = std::fs::read_to_string(rempart.place().path("access.log")).unwrap_or_default();
            let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let ours = |line: &Value| id.is_none() || line["id"].as_str() == id.as_deref();
            if let Some(line) = lines.rfind(|line| ours(line) && line.to_string().contains(kept)) {
                break line;
            }
            assert!(Instant::now() < deadline, "{kept} is not in the log: {log}");
        };
        assert!(!line.to_string().contains(told), "{line}");
    }
}

fn reached(address: &str, port: u16) -> bool {
    let address = SocketAddr::new(address.parse().unwrap(), port);
    Client::plain(address)
        .and_then(|mut client| client.get(HOST, "/"))
        .is_ok_and(|answer| answer.status == 200)
}

#[test]
fn every_address_takes_ipv4_as_long_as_nobody_else_does() {
    let origin = answering();
    let port = ports::free();
    let config = |addresses: &[String]| {
        let listening = addresses.iter().fold(Config::new(), |config, address| config.listen(address, false));
        listening.site("six", &[HOST]).origin(origin.url())
    };
    let (any, six, four) = (format!(":{port}"), format!("[::]:{port}"), format!("0.0.0.0:{port}"));
    let one = format!("127.0.0.1:{port}");
    let rempart = Rempart::with(&config(std::slice::from_ref(&any)));
    let everywhere = |when: &str| {
        for address in ["::1", "127.0.0.1", "127.0.0.2"] {
            assert!(reached(address, port), "{address} {when}");
        }
    };
    everywhere("at the start");
    let trace =
        client::get(SocketAddr::from(([127, 0, 0, 1], port)), HOST, "/.rempart/trace").unwrap().text();
    assert!(trace.lines().any(|line| line == "ip=127.0.0.1"), "not as an IPv6 address: {trace}");
    for (addresses, when) in [
        (vec![six.clone(), four.clone()], "with IPv4 on its own"),
        (vec![six.clone()], "without it again"),
        (vec![one.clone(), any.clone()], "beside a single address"),
        (vec![four.clone()], "with IPv4 alone"),
        (vec![four, six], "with IPv6 on its own"),
        (vec![any.clone(), one], "beside a single address again"),
        (vec![any], "with one for all"),
    ] {
        let outcome = rempart.configure(&config(&addresses));
        assert!(outcome.active, "{when}: {outcome:?}");
        if addresses.len() == 1 && addresses[0].starts_with('0') {
            assert!(reached("127.0.0.2", port) && !reached("::1", port), "{when}");
        } else {
            everywhere(when);
        }
    }
}
