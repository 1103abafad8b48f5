//! An ordinary event, shared by the tests of this folder.

use base::event::{Completion, Ja4, Protocol, RequestEvent, TlsVersion, Verdicts};
use base::id::RequestId;
use base::random::Random;
use base::time::Timestamp;

pub(super) const USER_AGENT: &str =
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";

/// A page of the site `example`, fetched over HTTP/2 and passed on without trouble.
pub(super) fn event() -> RequestEvent {
    RequestEvent {
        id: RequestId::new(&mut Random::seeded(5)),
        at: Timestamp(1_700_000_000_123_456),
        client: "203.0.113.77".parse().unwrap(),
        protocol: Protocol::Http2,
        tls: true,
        tls_version: Some(TlsVersion::Tls13),
        ja4: Ja4::new("t13d1516h2_8daaf6152771_e5627efa2ab1"),
        introduction: Some("1:65536;4:131072|12517377|0|m,p,a,s".into()),
        method: "GET".into(),
        host: "www.example.org".into(),
        target: "/articles/2023/a-title?page=2".into(),
        site: Some("example".into()),
        generation: 7,
        verdicts: Verdicts::default(),
        fields: Vec::new(),
        status: 200,
        fault: None,
        reason: None,
        origin: Some("http://127.0.0.1:8080".into()),
        origin_protocol: Some(Protocol::Http11),
        attempts: 1,
        bytes_in: 0,
        bytes_out: 18_234,
        origin_wait_us: Some(1_840),
        duration_us: 2_311,
        completion: Completion::Complete,
        user_agent: Some(USER_AGENT.into()),
        referer: Some("https://www.example.org/articles".into()),
        weight: 1,
    }
}
