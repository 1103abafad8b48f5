//! What is encoded comes back; what is damaged is refused or read as something else, and never reaches past its end.

use std::sync::Arc;

use super::*;
use crate::event::{Ja4, Noted, Verdicts};
use crate::id::RequestId;
use crate::random::Random;

/// An event of random content; every optional field is there half of the time.
fn event(random: &mut Random) -> RequestEvent {
    let mut drawn = || random.next_u64();
    let words = [
        "",
        "a",
        "GET",
        "\u{1f512}\u{e9}",
        "/a/long/path?with=a&query=b",
        "\u{0}\n\"",
        "x".repeat(3000).leak(),
    ];
    let word = |number: u64| words[(number % words.len() as u64) as usize];
    let some = |number: u64| number.is_multiple_of(2).then(|| word(number >> 1));
    let mut verdicts = Verdicts::default();
    for _ in 0..drawn() % 20 {
        verdicts.note(Noted { module: "waf", outcome: "block", reason: word(drawn()).into() });
    }
    let protocols = [Protocol::Http10, Protocol::Http11, Protocol::Http2];
    let protocol = protocols[(drawn() % 3) as usize];
    let tls_version = [None, Some(TlsVersion::Tls12), Some(TlsVersion::Tls13)][(drawn() % 3) as usize];
    let faults = [None, Some(Fault::Visitor), Some(Fault::Edge), Some(Fault::Origin)];
    let completions =
        [Completion::Complete, Completion::ClientGone, Completion::OriginCut, Completion::TimedOut];
    let client: IpAddr = if drawn().is_multiple_of(2) {
        Ipv4Addr::from(drawn() as u32).into()
    } else {
        Ipv6Addr::from(u128::from(drawn()) << 64 | u128::from(drawn())).into()
    };
    RequestEvent {
        at: Timestamp(drawn()),
        client,
        protocol,
        tls: tls_version.is_some(),
        tls_version,
        ja4: drawn().is_multiple_of(2).then(|| Ja4::new("t13d1516h2_8daaf6152771_e5627efa2ab1").unwrap()),
        introduction: some(drawn()).map(Arc::from),
        method: word(drawn()).into(),
        host: word(drawn()).into(),
        target: word(drawn()).into(),
        site: some(drawn()).map(Arc::from),
        generation: drawn(),
        verdicts,
        fields: Vec::new(),
        status: drawn() as u16,
        fault: faults[(drawn() % 4) as usize],
        reason: some(drawn()),
        origin: some(drawn()).map(Arc::from),
        origin_protocol: drawn().is_multiple_of(2).then_some(protocol),
        attempts: drawn() as u8,
        bytes_in: drawn(),
        bytes_out: drawn(),
        origin_wait_us: drawn().is_multiple_of(2).then(|| drawn() >> 1),
        duration_us: drawn(),
        completion: completions[(drawn() % 4) as usize],
        user_agent: some(drawn()).map(Box::from),
        referer: some(drawn()).map(Box::from),
        weight: 1,
        id: RequestId::new(random),
    }
}

fn kept(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

#[test]
fn what_is_encoded_comes_back_and_added_fields_are_passed_over() {
    let mut random = Random::seeded(3);
    for round in 0..2_000 {
        let events: Vec<_> = (0..random.below(4)).map(|_| event(&mut random)).collect();
        let mut frame = Vec::new();
        for event in &events {
            let start = frame.len();
            encode(&mut frame, event, round);
            assert!(frame.len() - start <= MAX_RECORD);
            // A later version of this encoder has more to say.
            frame.extend_from_slice(&[7; 5]);
            let length = (frame.len() - start - 2) as u16;
            frame[start..start + 2].copy_from_slice(&length.to_le_bytes());
        }
        let read: Vec<_> = records(&frame).collect::<Result<_, _>>().unwrap();
        assert_eq!(read.len(), events.len());
        for (read, event) in read.iter().zip(&events) {
            assert_eq!((read.id, read.at, read.weight), (event.id.as_str(), event.at, round));
            assert_eq!(read.network, truncate(event.client), "never the whole address");
            assert_eq!((read.tls, read.tls_version), (event.tls, event.tls_version));
            assert_eq!((read.protocol, read.origin_protocol), (event.protocol, event.origin_protocol));
            assert_eq!((read.fault, read.completion), (event.fault, event.completion));
            assert_eq!((read.duration_us, read.origin_wait_us), (event.duration_us, event.origin_wait_us));
            assert_eq!((read.bytes_in, read.bytes_out), (event.bytes_in, event.bytes_out));
            assert_eq!(
                (read.status, read.attempts, read.generation),
                (event.status, event.attempts, event.generation)
            );
            for (read, written) in [
                (Some(read.method), Some(&*event.method)),
                (Some(read.host), Some(&*event.host)),
                (Some(read.target), Some(&*event.target)),
                (read.site, event.site.as_deref()),
                (read.reason, event.reason),
                (read.origin, event.origin.as_deref()),
                (read.user_agent, event.user_agent.as_deref()),
                (read.referer, event.referer.as_deref()),
                (read.ja4, event.ja4.as_ref().map(Ja4::as_str)),
                (read.introduction, event.introduction.as_deref()),
            ] {
                assert_eq!(read, written.map(kept));
            }
            assert_eq!(read.verdicts.len(), event.verdicts.as_slice().len());
        }
    }
}

#[test]
fn damage_never_reaches_past_the_end() {
    let mut random = Random::seeded(4);
    for _ in 0..3_000 {
        let mut frame = Vec::new();
        for _ in 0..3 {
            encode(&mut frame, &event(&mut random), 1);
        }
        for _ in 0..=random.below(4) {
            let at = random.below(frame.len() as u32) as usize;
            frame[at] ^= 1 << random.below(8);
        }
        frame.truncate(random.below(frame.len() as u32 + 1) as usize);
        // Whatever comes out, it ends, and comes from within the frame.
        assert!(records(&frame).count() <= frame.len() / 2 + 1);
    }
}

#[test]
fn heads_are_checked() {
    let head = Head { length: 5, records: 1, lost: 1 << 40 };
    assert_eq!(Head::parse(&head.to_bytes()), Ok(head));
    let long = Head { length: MAX_FRAME as u32 + 1, ..head };
    assert_eq!(Head::parse(&long.to_bytes()), Err(WireError::TooLong(long.length)));
    let mut other = head.to_bytes();
    other[4] = 9;
    assert_eq!(Head::parse(&other), Err(WireError::Version(9)));
    assert_eq!(Head::parse(&[0; Head::BYTES]), Err(WireError::NotAFrame));
}
