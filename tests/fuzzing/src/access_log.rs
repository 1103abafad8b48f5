//! `access_log`: whatever a visitor sends, a line of the log is one line of JSON that says the same.

use base::event::{Completion, Fault, Protocol, RequestEvent, TlsVersion, Verdicts, wire};
use base::id::RequestId;
use base::random::Random;
use base::time::Timestamp;
use edge::telemetry::access_log::{
    self, MAX_HEADER_BYTES, MAX_HOST_BYTES, MAX_METHOD_BYTES, MAX_TARGET_BYTES,
};
use edge::telemetry::bounded_text;
use serde_json::Value;
use snapshot::generation::ClientIpDetail;

/// Sixteen bytes of address, then method, host, target, user agent and referer, cut evenly.
pub fn run(data: &[u8]) {
    let Some((address, texts)) = data.split_first_chunk::<16>() else { return };
    let piece = texts.len() / 5 + 1;
    let text =
        |index: usize, limit: usize| bounded_text(texts.chunks(piece).nth(index).unwrap_or_default(), limit);
    let number = u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at| address[at]));
    let event = RequestEvent {
        id: RequestId::new(&mut Random::seeded(number)),
        // Up to the year 9999, which is as far as the log writes.
        at: Timestamp(number % 253_402_300_800_000_000),
        client: std::net::Ipv6Addr::from(*address).into(),
        protocol: Protocol::Http2,
        tls: number & 1 == 1,
        tls_version: (number & 3 == 3).then_some(TlsVersion::Tls13),
        ja4: None,
        introduction: None,
        method: text(0, MAX_METHOD_BYTES).into_string().into(),
        host: text(1, MAX_HOST_BYTES),
        target: text(2, MAX_TARGET_BYTES),
        site: Some(String::from(text(3, MAX_HEADER_BYTES)).into()),
        generation: number,
        verdicts: Verdicts::default(),
        fields: Vec::new(),
        status: 200,
        fault: Some(Fault::Visitor),
        reason: Some("bad_request"),
        origin: None,
        origin_protocol: None,
        attempts: address[0],
        bytes_in: number,
        bytes_out: u64::MAX - number,
        origin_wait_us: Some(number),
        duration_us: number,
        completion: Completion::Complete,
        user_agent: Some(text(3, MAX_HEADER_BYTES)),
        referer: Some(text(4, MAX_HEADER_BYTES)),
        weight: 1,
    };
    // The form between processes: what is written comes back, and whatever else comes is read to an end.
    let mut sent = Vec::new();
    wire::encode(&mut sent, &event, 1);
    let read: Vec<_> = wire::records(&sent).map(|record| record.expect("its own record")).collect();
    assert!(read.len() == 1 && event.target.starts_with(read[0].target) && read[0].host == &*event.host);
    assert!(wire::records(data).count() <= data.len());
    for detail in [ClientIpDetail::Full, ClientIpDetail::Truncated, ClientIpDetail::None] {
        let mut line = Vec::new();
        access_log::write_line(&mut line, detail, &event);
        let body = line.strip_suffix(b"\n").expect("a line ends");
        let readable = std::str::from_utf8(body).expect("UTF-8");
        assert!(!readable.chars().any(char::is_control), "{readable:?}");
        let said: Value = serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {readable}"));
        assert_eq!(said["method"], *event.method);
        assert_eq!(said["target"], *event.target);
        assert_eq!(said["user_agent"].as_str(), event.user_agent.as_deref());
        assert_eq!(said["referer"].as_str(), event.referer.as_deref());
        assert_eq!(said["bytes_out"], event.bytes_out);
        assert_eq!(said.get("client").is_some(), detail != ClientIpDetail::None);
    }
}
