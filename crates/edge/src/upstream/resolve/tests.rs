//! `resolve` against a small name server on loopback; time is a value, so nothing waits for a TTL.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::AtomicUsize;

use futures_util::future::{FutureExt, join_all};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// What the name server says about a name.
#[derive(Clone)]
enum Says {
    /// Addresses of both families with a TTL in seconds; an empty family is "no data".
    Addresses(Vec<IpAddr>, u32),
    /// An alias with its own TTL, and the addresses behind it.
    Alias(u32, Vec<IpAddr>, u32),
    /// An error: 2 is SERVFAIL, 3 is NXDOMAIN.
    Code(u8),
    /// Nothing at all, for queries of this type (1 is A, 28 is AAAA).
    SilentFor(u16, Vec<IpAddr>, u32),
}

struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<HashMap<String, Says>>>,
    queries: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl NameServer {
    async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new(HashMap::<String, Says>::new()));
        let queries = Arc::new(AtomicUsize::new(0));
        let (known, asked) = (zone.clone(), queries.clone());
        let task = tokio::spawn(async move {
            let mut packet = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut packet).await.unwrap();
                asked.fetch_add(1, Relaxed);
                let (name, kind, end) = question(&packet[..length]);
                let says = known.lock().unwrap().get(&name).cloned().unwrap_or(Says::Code(3));
                if let Some(reply) = reply(&packet[..end], kind, &says) {
                    socket.send_to(&reply, from).await.unwrap();
                }
            }
        });
        Self { address, zone, queries, task }
    }

    fn say(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().insert(name.into(), says);
    }

    fn queries(&self) -> usize {
        self.queries.load(Relaxed)
    }

    /// Ends the server and frees its port, so that queries are refused.
    async fn die(&mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    fn resolver(&self) -> Resolver {
        self.resolver_with(None, Duration::from_secs(2))
    }

    fn resolver_with(&self, hosts: Option<PathBuf>, timeout: Duration) -> Resolver {
        let name_servers = NameServers::Fixed { servers: vec![self.address], timeout };
        Resolver::new(ResolveConfig { name_servers, hosts }, Arc::default())
    }
}

/// Name, type and end of the question of a query (RFC 1035 section 4.1.2).
fn question(packet: &[u8]) -> (String, u16, usize) {
    let (mut name, mut at) = (String::new(), 12);
    while packet[at] != 0 {
        let length = usize::from(packet[at]);
        name += std::str::from_utf8(&packet[at + 1..=at + length]).unwrap();
        name.push('.');
        at += length + 1;
    }
    (name, u16::from_be_bytes([packet[at + 1], packet[at + 2]]), at + 5)
}

/// A response to a query cut behind its question.
fn reply(query: &[u8], kind: u16, says: &Says) -> Option<Vec<u8>> {
    let (code, alias, addresses, ttl) = match says {
        Says::Code(code) => (*code, None, &[][..], 0),
        Says::Addresses(addresses, ttl) => (0, None, &addresses[..], *ttl),
        Says::Alias(alias, addresses, ttl) => (0, Some(*alias), &addresses[..], *ttl),
        Says::SilentFor(silent, ..) if kind == *silent => return None,
        Says::SilentFor(_, addresses, ttl) => (0, None, &addresses[..], *ttl),
    };
    let fitting: Vec<IpAddr> =
        addresses.iter().copied().filter(|ip| kind == if ip.is_ipv4() { 1 } else { 28 }).collect();
    let mut packet = query.to_vec();
    packet[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, 0, 0, 0, 0, 0]);
    packet[7] = (fitting.len() + usize::from(alias.is_some())) as u8;
    // Owner of the first record: the name asked, at offset 12.
    let mut owner = [0xc0, 12];
    if let Some(alias) = alias {
        packet.extend([owner[0], owner[1], 0, 5, 0, 1]);
        packet.extend(alias.to_be_bytes());
        let target = b"\x04real\x07example\x00";
        packet.extend((target.len() as u16).to_be_bytes());
        owner = (0xc000 | packet.len() as u16).to_be_bytes();
        packet.extend(target);
    }
    for ip in fitting {
        packet.extend([owner[0], owner[1]]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1]);
        packet.extend(ttl.to_be_bytes());
        let bytes = match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        packet.extend((bytes.len() as u16).to_be_bytes());
        packet.extend(bytes);
    }
    Some(packet)
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn addresses(list: &[&str], ttl: u32) -> Says {
    Says::Addresses(ips(list), ttl)
}

/// The answer as text, without the port.
async fn answer(resolver: &Resolver, host: &str, now: Instant) -> Result<Vec<String>, ResolveError> {
    let found = resolver.resolve(host, 8080, HOUR, now).await?;
    assert!(found.iter().all(|address| address.port() == 8080));
    Ok(found.iter().map(|address| address.ip().to_string()).collect())
}

/// Waits until no lookup of the name is under way.
async fn settled(resolver: &Resolver, host: &str) {
    let pending = resolver.0.names().get(host).and_then(|entry| entry.pending.clone());
    if let Some(mut pending) = pending {
        pending.wait_for(Option::is_some).await.unwrap();
    }
}

fn plus(now: Instant, seconds: u64) -> Instant {
    now + Duration::from_secs(seconds)
}

#[tokio::test]
async fn both_families_alternate_and_are_asked_once() {
    let server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1", "10.0.0.2", "2001:db8::1"], 300));
    let (resolver, now) = (server.resolver(), Instant::now());
    let expected = ["2001:db8::1", "10.0.0.1", "10.0.0.2"].map(str::to_owned);
    for host in ["shop.example", "shop.example", "SHOP.example"] {
        assert_eq!(answer(&resolver, host, now).await.unwrap(), expected);
    }
    assert_eq!(server.queries(), 2, "one per family");
    assert_eq!((resolver.0.counters.lookups(), resolver.0.counters.failures()), (1, 0));
}

#[tokio::test]
async fn many_at_once_share_one_lookup() {
    let server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1"], 300));
    let (resolver, now) = (server.resolver(), Instant::now());
    let answers = join_all((0..50).map(|_| answer(&resolver, "shop.example", now))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|list| *list == ["10.0.0.1"])));
    assert_eq!(server.queries(), 2);
}

#[tokio::test]
async fn a_name_is_asked_again_when_its_time_is_over() {
    // (what it says, longest time allowed) -> seconds it is used
    for (says, max_ttl, used) in [
        (addresses(&["10.0.0.1"], 30), 3600, 30),
        (addresses(&["10.0.0.1"], 3600), 60, 60),
        (addresses(&["10.0.0.1"], 0), 3600, 1),
        (addresses(&["10.0.0.1"], 30), 0, 1),
        (Says::Alias(20, ips(&["10.0.0.1"]), 300), 3600, 20),
    ] {
        let server = NameServer::start().await;
        server.say("shop.example.", says);
        let (resolver, now) = (server.resolver(), Instant::now());
        let ask = |now| resolver.resolve("shop.example", 80, Duration::from_secs(max_ttl), now);
        let first = ask(now).await.unwrap();
        server.say("shop.example.", addresses(&["10.9.9.9"], 300));
        // Clock of the answer begins a little after `now`, when the lookup ended.
        assert_eq!(ask(now + Duration::from_secs(used) * 3 / 4).await.unwrap(), first, "{used}");
        let later = ask(plus(now, used + 1)).await.unwrap();
        assert_eq!(later[0].ip().to_string(), "10.9.9.9", "{used}");
    }
}

#[tokio::test]
async fn a_name_in_use_is_renewed_before_its_time_is_over() {
    let server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1"], 100));
    let (resolver, now) = (server.resolver(), Instant::now());
    answer(&resolver, "shop.example", now).await.unwrap();
    server.say("shop.example.", addresses(&["10.9.9.9"], 100));
    assert_eq!(answer(&resolver, "shop.example", plus(now, 79)).await.unwrap(), ["10.0.0.1"]);
    assert_eq!(server.queries(), 2);
    assert_eq!(
        answer(&resolver, "shop.example", plus(now, 90)).await.unwrap(),
        ["10.0.0.1"],
        "not waited for"
    );
    settled(&resolver, "shop.example").await;
    assert_eq!(answer(&resolver, "shop.example", plus(now, 91)).await.unwrap(), ["10.9.9.9"]);
    assert_eq!(server.queries(), 4);
}

#[tokio::test]
async fn failures_are_told_apart_and_remembered_for_a_while() {
    let server = NameServer::start().await;
    server.say("empty.example.", addresses(&[], 0));
    server.say("broken.example.", Says::Code(2));
    let (resolver, now) = (server.resolver(), Instant::now());
    let check = |host: &'static str| {
        let (server, resolver) = (&server, &resolver);
        async move {
            let first = answer(resolver, host, now).await.unwrap_err();
            let queries = server.queries();
            assert_eq!(answer(resolver, host, now).await.unwrap_err(), first, "{host}");
            assert_eq!(server.queries(), queries, "{host} was remembered");
            server.say(&format!("{host}."), addresses(&["10.0.0.1"], 60));
            let again = answer(resolver, host, now + RETRY_AFTER + Duration::from_secs(5)).await;
            assert_eq!(again.unwrap(), ["10.0.0.1"], "{host}");
            first
        }
    };
    assert_eq!(check("nowhere.example").await, ResolveError::NotFound);
    assert_eq!(check("empty.example").await, ResolveError::NoAddresses);
    assert!(matches!(check("broken.example").await, ResolveError::Failed(_)));
    assert_eq!(answer(&resolver, "a..b", now).await, Err(ResolveError::NotFound));
}

#[tokio::test]
async fn a_dead_name_server_leaves_the_last_answer_in_force() {
    let mut server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1"], 60));
    let (resolver, now) = (server.resolver_with(None, Duration::from_millis(100)), Instant::now());
    answer(&resolver, "shop.example", now).await.unwrap();
    server.die().await;
    for seconds in [100, 101, 3600, 80_000] {
        let later = plus(now, seconds);
        assert_eq!(
            answer(&resolver, "shop.example", later).await.unwrap(),
            ["10.0.0.1"],
            "after {seconds} s"
        );
        settled(&resolver, "shop.example").await;
    }
    assert_eq!(resolver.0.counters.stale(), 4);
    assert!(resolver.0.counters.failures() >= 1);
    // A name it never knew fails, and so does the old one when it is too old.
    assert!(matches!(answer(&resolver, "other.example", now).await, Err(ResolveError::Failed(_))));
    let too_late = plus(now, 61) + MAX_STALE;
    assert!(matches!(answer(&resolver, "shop.example", too_late).await, Err(ResolveError::Failed(_))));
}

#[tokio::test]
async fn a_name_that_recovers_gets_its_new_answer() {
    let server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1"], 60));
    let (resolver, now) = (server.resolver(), Instant::now());
    answer(&resolver, "shop.example", now).await.unwrap();
    server.say("shop.example.", Says::Code(2));
    assert_eq!(answer(&resolver, "shop.example", plus(now, 100)).await.unwrap(), ["10.0.0.1"]);
    settled(&resolver, "shop.example").await;
    server.say("shop.example.", addresses(&["10.9.9.9"], 60));
    // Known to fail: the request is not made to wait, the lookup goes on behind it.
    assert_eq!(answer(&resolver, "shop.example", plus(now, 110)).await.unwrap(), ["10.0.0.1"]);
    settled(&resolver, "shop.example").await;
    assert_eq!(answer(&resolver, "shop.example", plus(now, 111)).await.unwrap(), ["10.9.9.9"]);
    assert!(resolver.0.names().get("shop.example").unwrap().trouble.is_none());
}

#[tokio::test]
async fn a_name_that_is_gone_is_held_for_a_while_only() {
    let server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1"], 60));
    let (resolver, now) = (server.resolver(), Instant::now());
    answer(&resolver, "shop.example", now).await.unwrap();
    server.say("shop.example.", Says::Code(3));
    let gone = plus(now, 100);
    assert_eq!(answer(&resolver, "shop.example", gone).await.unwrap(), ["10.0.0.1"]);
    assert_eq!(answer(&resolver, "shop.example", plus(gone, 29)).await.unwrap(), ["10.0.0.1"]);
    settled(&resolver, "shop.example").await;
    let over = gone + HOLD_GONE + Duration::from_secs(5);
    assert_eq!(answer(&resolver, "shop.example", over).await, Err(ResolveError::NotFound));
}

#[tokio::test]
async fn one_family_is_enough_when_the_other_is_not_answered() {
    let server = NameServer::start().await;
    for (host, silent, expected) in [("four.example", 28, "10.0.0.1"), ("six.example", 1, "2001:db8::1")] {
        server.say(&format!("{host}."), Says::SilentFor(silent, ips(&["10.0.0.1", "2001:db8::1"]), 3600));
        let (resolver, now) = (server.resolver(), Instant::now());
        assert_eq!(answer(&resolver, host, now).await.unwrap(), [expected]);
        // The missing family is asked for again soon, not after an hour.
        server.say(&format!("{host}."), addresses(&["10.0.0.1", "2001:db8::1"], 3600));
        let later = now + PARTIAL_TTL + Duration::from_secs(5);
        assert_eq!(answer(&resolver, host, later).await.unwrap(), ["2001:db8::1", "10.0.0.1"]);
    }
}

#[tokio::test]
async fn localhost_and_literals_are_never_asked_for() {
    let server = NameServer::start().await;
    let (resolver, now) = (server.resolver(), Instant::now());
    for (host, expected) in [
        ("localhost", &["::1", "127.0.0.1"][..]),
        ("LOCALHOST.", &["::1", "127.0.0.1"]),
        ("app.localhost", &["::1", "127.0.0.1"]),
        ("192.0.2.1", &["192.0.2.1"]),
        ("2001:db8::1", &["2001:db8::1"]),
    ] {
        assert_eq!(answer(&resolver, host, now).await.unwrap(), expected, "{host}");
    }
    assert_eq!(server.queries(), 0);
    assert_eq!(answer(&resolver, "notlocalhost", now).await, Err(ResolveError::NotFound));
    assert!(server.queries() > 0);
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_is_read_again() {
    let server = NameServer::start().await;
    server.say("db.internal.", addresses(&["10.0.0.1"], 60));
    server.say("my_app.", addresses(&["10.0.0.7"], 60));
    let mut hosts = tempfile::NamedTempFile::new().unwrap();
    writeln!(hosts, "# comment\n127.0.0.9 db.internal db # more").unwrap();
    let (resolver, now) =
        (server.resolver_with(Some(hosts.path().into()), Duration::from_secs(2)), Instant::now());
    for host in ["db.internal", "db"] {
        assert_eq!(answer(&resolver, host, now).await.unwrap(), ["127.0.0.9"], "{host}");
    }
    assert_eq!(
        answer(&resolver, "my_app", now).await.unwrap(),
        ["10.0.0.7"],
        "an underscore, as in containers"
    );
    hosts.as_file().set_len(0).unwrap();
    let later = now + HOUR + Duration::from_secs(5);
    assert_eq!(answer(&resolver, "db.internal", later).await.unwrap(), ["10.0.0.1"]);
    // A missing file is no reason to fail.
    let resolver = server.resolver_with(Some(hosts.path().join("missing")), Duration::from_secs(2));
    assert_eq!(answer(&resolver, "db.internal", now).await.unwrap(), ["10.0.0.1"]);
}

#[tokio::test]
async fn a_waiter_that_leaves_does_not_stop_the_lookup() {
    let server = NameServer::start().await;
    server.say("shop.example.", addresses(&["10.0.0.1"], 300));
    let (resolver, now) = (server.resolver(), Instant::now());
    assert!(answer(&resolver, "shop.example", now).now_or_never().is_none(), "asked, then dropped");
    settled(&resolver, "shop.example").await;
    assert_eq!(answer(&resolver, "shop.example", now).await.unwrap(), ["10.0.0.1"]);
    assert_eq!(server.queries(), 2);
}

#[tokio::test]
async fn names_are_bounded_and_the_least_used_goes() {
    let server = NameServer::start().await;
    let (resolver, now) = (server.resolver(), Instant::now());
    for i in 0..MAX_NAMES {
        let entry = Entry::new(now + Duration::from_millis(i as u64));
        resolver.0.names().insert(format!("n{i}").into(), entry);
    }
    server.say("shop.example.", addresses(&["10.0.0.1"], 300));
    answer(&resolver, "shop.example", plus(now, 5)).await.unwrap();
    let known = |host: &str| resolver.0.names().contains_key(host);
    assert_eq!(resolver.0.names().len(), MAX_NAMES);
    assert_eq!([known("n0"), known("n1"), known("shop.example")], [false, true, true]);
    // All being looked up: no room for another.
    let (_keep, pending) = watch::channel(None);
    resolver.0.names().values_mut().for_each(|entry| entry.pending = Some(pending.clone()));
    assert_eq!(answer(&resolver, "other.example", now).await, Err(ResolveError::Busy));
}
