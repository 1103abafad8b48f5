//! Over its sockets: what edges write is answered, a restart forgets nothing that was written down, nonsense is refused.

use std::io::{BufRead as _, BufReader, Write as _};

use api::analytics::{Filter, Item, Query};
use base::event::wire::encode;
use base::event::{Completion, Protocol, RequestEvent, Verdicts};
use base::id::RequestId;
use base::random::Random;

use super::*;

fn sockets(folder: &Path) -> Sockets {
    Sockets {
        events: folder.join("events.sock"),
        questions: folder.join("analytics.sock"),
        database: folder.join("events.db"),
    }
}

fn event(random: &mut Random, status: u16) -> RequestEvent {
    RequestEvent {
        id: RequestId::new(random),
        at: now(),
        client: "192.0.2.77".parse().unwrap(),
        protocol: Protocol::Http2,
        tls: false,
        tls_version: None,
        ja4: None,
        introduction: None,
        method: "GET".into(),
        host: "shop.example".into(),
        target: "/".into(),
        site: Some("shop".into()),
        generation: 3,
        verdicts: Verdicts::default(),
        fields: Vec::new(),
        status,
        fault: None,
        reason: None,
        origin: None,
        origin_protocol: None,
        attempts: 0,
        bytes_in: 0,
        bytes_out: 9,
        origin_wait_us: None,
        duration_us: 1_000,
        completion: Completion::Complete,
        user_agent: None,
        referer: None,
        weight: 1,
    }
}

fn send(stream: &mut UnixStream, events: &[RequestEvent]) {
    let mut bytes = Vec::new();
    events.iter().for_each(|event| encode(&mut bytes, event, 1));
    let head = Head { length: bytes.len() as u32, records: events.len() as u32, lost: 0 };
    stream.write_all(&head.to_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
}

fn ask(sockets: &Sockets, question: &str) -> impl Iterator<Item = Item> + use<> {
    let mut stream = UnixStream::connect(&sockets.questions).unwrap();
    stream.write_all(format!("{question}\n").as_bytes()).unwrap();
    BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

fn events(filter: Filter, follow: bool) -> String {
    serde_json::to_string(&Query::Events { filter, limit: 100, follow }).unwrap()
}

fn change() -> Happening {
    let text = "generation 3 came into force".to_owned();
    Happening::new(now(), What::GenerationActivated, Severity::Info, Component::Configuration, "reload", text)
}

#[test]
fn what_edges_write_is_told_to_who_follows_and_to_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (sockets, mut random) = (sockets(folder.path()), Random::seeded(1));
    let service = Service::start(&sockets, 1, |_| ()).unwrap();
    let failed = Filter { status: Some((500, 599)), ..Filter::default() };
    let mut following = ask(&sockets, &events(failed.clone(), true));
    assert_eq!(following.next(), Some(Item::Caught));
    let mut edge = UnixStream::connect(&sockets.events).unwrap();
    let (fine, broken) = (event(&mut random, 200), event(&mut random, 503));
    send(&mut edge, &[fine, broken.clone()]);
    let Some(Item::Request(request)) = following.next() else { panic!("the request that failed") };
    assert_eq!((request.id.as_str(), request.network.as_str()), (broken.id.as_str(), "192.0.2.0"));
    service.happened(vec![change()]);
    assert!(matches!(following.next(), Some(Item::Happening(_))));
    let told: Vec<_> = ask(&sockets, &events(Filter::default(), false)).collect();
    assert!(
        matches!(told.as_slice(), [Item::Request(_), Item::Request(_), Item::Happening(_), Item::End]),
        "{told:?}"
    );
    let told: Vec<_> = ask(&sockets, "{\"query\":\"top\"}").collect();
    let [Item::Top(top), Item::End] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((top.figures.requests, top.figures.errors(), top.changes.len()), (2, 1, 1));
}

#[test]
fn what_was_written_down_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (sockets, mut random) = (sockets(folder.path()), Random::seeded(1));
    let service = Service::start(&sockets, 1, |_| ()).unwrap();
    let mut edge = UnixStream::connect(&sockets.events).unwrap();
    let mut following = ask(&sockets, &events(Filter::default(), true));
    assert_eq!(following.next(), Some(Item::Caught));
    send(&mut edge, &[event(&mut random, 200)]);
    assert!(matches!(following.next(), Some(Item::Request(_))));
    service.happened(vec![change()]);
    assert!(service.finish(Duration::from_secs(60)));
    let again = Service::start(&sockets, 2, |_| ()).unwrap();
    let told: Vec<_> = ask(&sockets, &events(Filter::default(), false)).collect();
    assert!(matches!(told.as_slice(), [Item::Request(_), Item::Happening(_), Item::End]), "{told:?}");
    let told: Vec<_> = ask(&sockets, "{\"query\":\"top\"}").collect();
    let [Item::Top(top), Item::End] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(top.changes.len(), 1, "changes of before are remembered");
    let told: Vec<_> = ask(&sockets, "{\"query\":\"minutes\",\"since\":0}").collect();
    let [Item::Minute(minute), Item::End] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((minute.site.as_deref(), minute.figures.requests), (Some("shop"), 1));
    drop(again);
}

#[test]
fn nonsense_is_refused_and_harms_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (sockets, mut random) = (sockets(folder.path()), Random::seeded(1));
    let _service = Service::start(&sockets, 1, |_| ()).unwrap();
    for question in ["", "{}", "{\"query\":\"drop tables\"}", "\u{0}"] {
        let told: Vec<_> = ask(&sockets, question).collect();
        assert!(matches!(told.as_slice(), [Item::Refused { .. }]), "{question:?} {told:?}");
    }
    let mut stranger = UnixStream::connect(&sockets.events).unwrap();
    stranger.write_all(&[b'x'; 1000]).unwrap();
    let mut end = Vec::new();
    // Reset or closed; either way nobody listens to it any more.
    drop(stranger.read_to_end(&mut end));
    assert!(end.is_empty());
    let mut following = ask(&sockets, &events(Filter::default(), true));
    assert_eq!(following.next(), Some(Item::Caught));
    send(&mut UnixStream::connect(&sockets.events).unwrap(), &[event(&mut random, 200)]);
    assert!(matches!(following.next(), Some(Item::Request(_))));
    let mode = std::fs::metadata(&sockets.questions).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
