//! `host`: a host name as an operator writes it; what it is normalised to is a host name that stays as it is.

use base::time::Timestamp;
use snapshot::generation::{HostPattern, Snapshot};
use snapshot::source::SourceTree;
use snapshot::{Input, Mode, compile};

use crate::config::examine;

/// A host name.
pub fn run(data: &[u8]) {
    let Ok(written) = std::str::from_utf8(data) else { return };
    let Some(snapshot) = compiled(written) else { return };
    let [pattern] = snapshot.sites[0].hosts.as_slice() else {
        panic!("one host, not {:?}", snapshot.sites[0].hosts)
    };
    let (normal, visited) = match pattern {
        HostPattern::Any => return assert_eq!(written, "*"),
        HostPattern::Exact(name) => (name.to_string(), name.to_string()),
        HostPattern::Suffix(name) => (format!("*.{name}"), format!("www.{name}")),
    };
    assert!(normal.len() <= 256 && !normal.is_empty(), "{written:?} became {normal:?}");
    let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' | b'*');
    assert!(normal.bytes().all(fits), "{written:?} became {normal:?}");
    assert_eq!(snapshot.hosts.find(&visited), Some(0), "{written:?}: nobody finds {visited:?}");
    let again =
        compiled(&normal).unwrap_or_else(|| panic!("{written:?} became {normal:?}, which is refused"));
    assert_eq!(
        again.sites[0].hosts, snapshot.sites[0].hosts,
        "{written:?} became {normal:?}, which becomes another"
    );
}

fn compiled(host: &str) -> Option<Snapshot> {
    let text = format!(
        "[[listen]]\naddress = ':80'\ntls = false\n[[site]]\nhosts = [{}]\n[[site.origin]]\nurl = 'http://10.0.0.1'\n",
        toml::Value::from(host)
    );
    let input = Input { file: "rempart.toml", text: text.as_bytes(), tree: &SourceTree::default() };
    let compiled = compile(input, Timestamp(0), Mode::Fresh);
    examine(&compiled, text.as_bytes());
    compiled.snapshot
}
