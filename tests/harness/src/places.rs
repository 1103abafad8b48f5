//! Small databases in MaxMind's format (MaxMind DB File Format Specification 2.0): IPv4 networks with a country each.

use std::net::Ipv4Addr;

/// Between tree and data, and where the description of the file begins.
const SEPARATOR: usize = 16;
const MARKER: &[u8] = b"\xab\xcd\xefMaxMind.com";
/// Types of the format.
const STRING: u8 = 2;
const U16: u8 = 5;
const U32: u8 = 6;
const MAP: u8 = 7;
const U64: u8 = 9;
const ARRAY: u8 = 11;

/// What a branch leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database of these networks (`10.0.0.0/8`) with these countries; they must not overlap.
pub fn database(networks: &[(&str, &str)]) -> Vec<u8> {
    let mut tree = vec![[Leaf::Nothing; 2]];
    let mut data = Vec::new();
    for (network, country) in networks {
        let at = data.len();
        map(&mut data, 1);
        string(&mut data, "country");
        map(&mut data, 1);
        string(&mut data, "iso_code");
        string(&mut data, country);
        enter(&mut tree, network, Leaf::Data(at));
    }
    let count = tree.len();
    let mut out = Vec::new();
    for leaf in tree.iter().flatten() {
        let record = match *leaf {
            Leaf::Nothing => count,
            Leaf::Node(node) => node,
            Leaf::Data(at) => count + SEPARATOR + at,
        };
        out.extend_from_slice(&u32::try_from(record).unwrap().to_be_bytes()[1..]);
    }
    out.extend_from_slice(&[0; SEPARATOR]);
    out.extend_from_slice(&data);
    out.extend_from_slice(MARKER);
    describe(&mut out, count);
    out
}

fn enter(tree: &mut Vec<[Leaf; 2]>, network: &str, leaf: Leaf) {
    let (address, bits) = network.split_once('/').unwrap();
    let (address, bits) = (address.parse::<Ipv4Addr>().unwrap().to_bits(), bits.parse::<u32>().unwrap());
    let mut node = 0;
    for depth in 0..bits {
        let side = (address >> (31 - depth) & 1) as usize;
        if depth + 1 == bits {
            assert_eq!(tree[node][side], Leaf::Nothing, "{network} overlaps another");
            tree[node][side] = leaf;
            return;
        }
        node = match tree[node][side] {
            Leaf::Node(next) => next,
            Leaf::Nothing => {
                tree.push([Leaf::Nothing; 2]);
                tree[node][side] = Leaf::Node(tree.len() - 1);
                tree.len() - 1
            }
            Leaf::Data(_) => panic!("{network} overlaps another"),
        };
    }
}

fn describe(out: &mut Vec<u8>, nodes: usize) {
    map(out, 9);
    string(out, "node_count");
    number(out, U32, u64::try_from(nodes).unwrap(), 4);
    string(out, "record_size");
    number(out, U16, 24, 2);
    string(out, "ip_version");
    number(out, U16, 4, 2);
    string(out, "database_type");
    string(out, "Test-Country");
    string(out, "languages");
    control(out, ARRAY, 0);
    string(out, "binary_format_major_version");
    number(out, U16, 2, 2);
    string(out, "binary_format_minor_version");
    number(out, U16, 0, 2);
    string(out, "build_epoch");
    number(out, U64, 1_700_000_000, 8);
    string(out, "description");
    map(out, 1);
    string(out, "en");
    string(out, "made for tests");
}

fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let size = u8::try_from(size).unwrap();
    assert!(size < 29, "longer sizes are not written here");
    if kind <= MAP {
        out.push(kind << 5 | size);
    } else {
        out.extend_from_slice(&[size, kind - MAP]);
    }
}

fn map(out: &mut Vec<u8>, pairs: usize) {
    control(out, MAP, pairs);
}

fn string(out: &mut Vec<u8>, text: &str) {
    control(out, STRING, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn number(out: &mut Vec<u8>, kind: u8, value: u64, bytes: usize) {
    control(out, kind, bytes);
    out.extend_from_slice(&value.to_be_bytes()[8 - bytes..]);
}
