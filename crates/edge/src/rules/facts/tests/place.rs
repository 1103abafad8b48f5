//! A database in MaxMind's format that says the same of every IPv4 address (MaxMind DB File Format Specification 2.0).

use base::time::Timestamp;
use snapshot::kind;
use snapshot::package::Manifest;

use crate::artefacts::Artefacts;

/// A value of the format.
enum Datum {
    Text(&'static str),
    Double(f64),
    U16(u16),
    U32(u32),
    U64(u64),
    Map(Vec<(&'static str, Datum)>),
    Array(Vec<Datum>),
}

use Datum::{Array, Double, Map, Text, U16, U32, U64};

impl Datum {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Text(text) => {
                out.push(2 << 5 | u8::try_from(text.len()).unwrap());
                out.extend_from_slice(text.as_bytes());
            }
            Double(value) => {
                out.push(3 << 5 | 8);
                out.extend_from_slice(&value.to_be_bytes());
            }
            U16(value) => {
                out.push(5 << 5 | 2);
                out.extend_from_slice(&value.to_be_bytes());
            }
            U32(value) => {
                out.push(6 << 5 | 4);
                out.extend_from_slice(&value.to_be_bytes());
            }
            U64(value) => {
                out.extend_from_slice(&[8, 9 - 7]);
                out.extend_from_slice(&value.to_be_bytes());
            }
            Map(pairs) => {
                out.push(7 << 5 | u8::try_from(pairs.len()).unwrap());
                for (key, value) in pairs {
                    Text(key).write(out);
                    value.write(out);
                }
            }
            Array(values) => {
                out.extend_from_slice(&[u8::try_from(values.len()).unwrap(), 11 - 7]);
                values.iter().for_each(|value| value.write(out));
            }
        }
    }
}

fn record() -> Datum {
    let named = |name| Map(vec![("en", Text(name))]);
    Map(vec![
        ("continent", Map(vec![("code", Text("EU"))])),
        ("country", Map(vec![("iso_code", Text("FR"))])),
        ("city", Map(vec![("names", named("Lyon"))])),
        (
            "subdivisions",
            Array(vec![
                Map(vec![("iso_code", Text("ARA")), ("names", named("Auvergne-Rhone-Alpes"))]),
                Map(vec![("iso_code", Text("69"))]),
            ]),
        ),
        ("postal", Map(vec![("code", Text("69001"))])),
        (
            "location",
            Map(vec![
                ("latitude", Double(45.75)),
                ("longitude", Double(-4.5)),
                ("metro_code", U16(501)),
                ("time_zone", Text("Europe/Paris")),
            ]),
        ),
        ("autonomous_system_number", U32(64_500)),
    ])
}

fn database() -> Vec<u8> {
    // One node; both of its halves lead to the one record, 16 bytes of separator behind the tree.
    let mut out = vec![0, 0, 17, 0, 0, 17];
    out.extend_from_slice(&[0; 16]);
    record().write(&mut out);
    out.extend_from_slice(b"\xab\xcd\xefMaxMind.com");
    Map(vec![
        ("node_count", U32(1)),
        ("record_size", U16(24)),
        ("ip_version", U16(4)),
        ("database_type", Text("Test-City")),
        ("languages", Array(vec![])),
        ("binary_format_major_version", U16(2)),
        ("binary_format_minor_version", U16(0)),
        ("build_epoch", U64(1_700_000_000)),
        ("description", Map(vec![("en", Text("made for tests"))])),
    ])
    .write(&mut out);
    out
}

/// Puts it in force.
pub fn put(artefacts: &Artefacts) {
    let kind = kind::find("geoip").unwrap();
    let content = kind::read(kind, &database(), kind.caps(), Timestamp(0)).unwrap();
    let manifest = Manifest {
        bytes: 0,
        consumers: (1, 1),
        content: String::new(),
        created: Timestamp(0),
        entries: 1,
        expires: None,
        generation: 1,
        keys_digest: String::new(),
        kind: "geoip".to_owned(),
        memory: 0,
        name: "places".to_owned(),
        packed: String::new(),
        packed_bytes: 0,
        query_hash: None,
        schema: 1,
        source: String::new(),
    };
    artefacts.put(manifest, content);
}
