//! Case files: a configuration, the files it refers to, and what is said about it.

use std::collections::HashMap;
use std::sync::Arc;

use base::time::Timestamp;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use snapshot::source::{SourceTree, Unreadable};
use snapshot::{Compiled, Input, Mode, compile};

/// 2026-06-01T00:00:00Z, the time at which all cases are compiled.
pub const NOW: Timestamp = Timestamp(1_780_272_000 * 1_000_000);

/// One case, as read from its file.
pub struct Case {
    pub config: Vec<u8>,
    pub tree: SourceTree,
    pub mode: Mode,
    pub expected: String,
}

impl Case {
    pub fn compile(&self) -> Compiled {
        compile(Input { file: "rempart.toml", text: &self.config, tree: &self.tree }, NOW, self.mode)
    }
}

/// Reads a case: directives, `--- config`, the configuration, `--- expected`, what is said about it.
pub fn parse(text: &str) -> Case {
    let (head, rest) = text.split_once("--- config").expect("a case has a config");
    let (kind, rest) = rest.split_once('\n').expect("a line end after the config header");
    let (config, expected) = rest.split_once("--- expected\n").expect("a case has an expectation");
    let mut case = Case {
        config: config.as_bytes().to_vec(),
        tree: SourceTree::default(),
        mode: Mode::Fresh,
        expected: expected.to_owned(),
    };
    if kind.trim() == "escaped" {
        case.config = unescape(config.trim_end());
    }
    let mut pairs = Pairs::default();
    for line in head.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(": ").expect("a directive is `name: value`") {
            ("mode", "stored") => case.mode = Mode::Stored,
            (directive, content) => {
                let path = directive.strip_prefix("file ").expect("a directive is `mode` or `file PATH`");
                case.tree.insert(path, pairs.content(content));
            }
        }
    }
    case
}

/// Certificates and keys made for one case, by name.
#[derive(Default)]
struct Pairs(HashMap<String, (KeyPair, Option<String>)>);

impl Pairs {
    /// What a `file` directive asks for: `certificate NAME FROM TO HOST..`, `key NAME`, `chain NAME NAME`, `both NAME`,
    /// `text TEXT`, `hex DIGITS`, `cut NAME` or `unreadable REASON`.
    fn content(&mut self, directive: &str) -> Result<Arc<[u8]>, Unreadable> {
        let (kind, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        let words: Vec<_> = rest.split(' ').collect();
        let text = match kind {
            "certificate" => self.certificate(words[0], words[1], words[2], &words[3..]),
            "key" => self.key(words[0]).serialize_pem(),
            "chain" => words.iter().map(|name| self.made(name)).collect(),
            "both" => self.made(words[0]) + &self.key(words[0]).serialize_pem(),
            "cut" => self.made(words[0]).chars().take(300).collect(),
            "damaged" => damage(&self.made(words[0])),
            "text" => rest.replace("\\n", "\n"),
            "hex" => return Ok(unescape(&format!("\\x{}", words.join("\\x"))).into()),
            "unreadable" => {
                return Err(match rest {
                    "permission" => Unreadable::Permission,
                    "directory" => Unreadable::Directory,
                    "too large" => Unreadable::TooLarge { limit: snapshot::source::PEM_BYTES },
                    other => Unreadable::Other(other.to_owned()),
                });
            }
            other => panic!("unknown kind of file: {other}"),
        };
        Ok(text.into_bytes().into())
    }

    fn key(&mut self, name: &str) -> &KeyPair {
        let fresh = || (KeyPair::generate().expect("a key"), None);
        &self.0.entry(name.to_owned()).or_insert_with(fresh).0
    }

    fn made(&self, name: &str) -> String {
        self.0.get(name).and_then(|(_, pem)| pem.clone()).expect("a certificate made before")
    }

    fn certificate(&mut self, name: &str, from: &str, to: &str, hosts: &[&str]) -> String {
        let names: Vec<_> = hosts.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        let date = |text: &str| {
            let numbers: Vec<i32> = text.split('-').map(|part| part.parse().expect("a number")).collect();
            date_time_ymd(numbers[0], numbers[1] as u8, numbers[2] as u8)
        };
        (params.not_before, params.not_after) = (date(from), date(to));
        let pem = params.self_signed(self.key(name)).expect("a certificate").pem();
        self.0.get_mut(name).expect("just made").1 = Some(pem.clone());
        pem
    }
}

/// A certificate whose PEM armour is sound and whose content is not.
fn damage(pem: &str) -> String {
    let lines = pem.lines().enumerate();
    let changed =
        lines.map(|(index, line)| if index == 1 { "A".repeat(line.len()) } else { line.to_owned() });
    changed.collect::<Vec<_>>().join("\n") + "\n"
}

/// `\xNN` to the byte it stands for.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((front, back)) = rest.split_once("\\x") {
        out.extend_from_slice(front.as_bytes());
        out.push(u8::from_str_radix(&back[..2], 16).expect("two hexadecimal digits"));
        rest = &back[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
