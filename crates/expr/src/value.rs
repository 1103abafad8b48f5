//! Values as evaluation sees them: borrowed from the request where possible.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// One value; its type was checked when the expression was compiled.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A string.
    Bytes(Cow<'a, [u8]>),
    /// An address.
    Ip(IpAddr),
    /// A list.
    Array(Array<'a>),
    /// Values under keys.
    Map(Map<'a>),
}

impl<'a> Value<'a> {
    /// A string borrowed from the request.
    pub fn text(bytes: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Value::Bytes(Cow::Borrowed(bytes.as_ref()))
    }
}

/// What a context answers for a field.
#[derive(Clone, Debug)]
pub enum Fetched<'a> {
    /// The value.
    Value(Value<'a>),
    /// Known to be absent, as a header that was not sent.
    Missing,
    /// Not known: the module that computes it has no answer. Never a default.
    Unknown,
}

/// A list the host keeps as it likes.
pub trait Items {
    /// The element at a position, counted from 0; nothing past the end.
    fn at(&self, position: usize) -> Option<Value<'_>>;
}

/// Keys with values, in the order received.
pub trait Pairs {
    /// The pair at a position, counted from 0; nothing past the end.
    fn pair(&self, position: usize) -> Option<(&[u8], Value<'_>)>;
}

/// A list.
#[derive(Clone)]
pub enum Array<'a> {
    /// Kept by the host.
    Kept(&'a dyn Items),
    /// The values of one key among pairs whose keys repeat, as headers' do.
    Group(&'a dyn Pairs, Cow<'a, [u8]>),
    /// Made by a function.
    Made(Vec<Value<'a>>),
}

/// Values under keys.
#[derive(Clone, Copy)]
pub enum Map<'a> {
    /// `Map<Array<T>>`: pairs whose keys may repeat; each key has the array of its values.
    Grouped(&'a dyn Pairs),
    /// `Map<T>`: every key once.
    Single(&'a dyn Pairs),
}

impl<'a> Array<'a> {
    /// Shows the elements in order until the visitor returns false.
    pub fn visit(self, see: &mut dyn FnMut(Value<'a>) -> bool) {
        match self {
            Array::Kept(items) => {
                let mut position = 0;
                while let Some(value) = items.at(position) {
                    if !see(value) {
                        return;
                    }
                    position += 1;
                }
            }
            Array::Group(pairs, key) => {
                let mut position = 0;
                while let Some((name, value)) = pairs.pair(position) {
                    if name == &*key && !see(value) {
                        return;
                    }
                    position += 1;
                }
            }
            Array::Made(values) => {
                for value in values {
                    if !see(value) {
                        return;
                    }
                }
            }
        }
    }

    /// The element at a position.
    pub fn get(self, position: usize) -> Option<Value<'a>> {
        match self {
            Array::Kept(items) => items.at(position),
            Array::Made(values) => values.into_iter().nth(position),
            group @ Array::Group(..) => {
                let (mut left, mut found) = (position, None);
                group.visit(&mut |value| {
                    if left == 0 {
                        found = Some(value);
                        return false;
                    }
                    left -= 1;
                    true
                });
                found
            }
        }
    }

    /// How many elements there are.
    pub fn count(self) -> usize {
        let mut count = 0;
        self.visit(&mut |_| {
            count += 1;
            true
        });
        count
    }
}

impl<'a> Map<'a> {
    /// The value of a key; `Map<Array<T>>` has none for a key no pair has.
    pub fn get(self, key: &'a [u8]) -> Option<Value<'a>> {
        let (Map::Grouped(pairs) | Map::Single(pairs)) = self;
        let mut position = 0;
        while let Some((name, value)) = pairs.pair(position) {
            if name == key {
                return Some(match self {
                    Map::Grouped(_) => Value::Array(Array::Group(pairs, Cow::Borrowed(key))),
                    Map::Single(_) => value,
                });
            }
            position += 1;
        }
        None
    }

    /// Shows the value of every key, keys in the order of their first pair, until the visitor returns false.
    pub fn visit(self, see: &mut dyn FnMut(Value<'a>) -> bool) {
        match self {
            Map::Single(pairs) => {
                let mut position = 0;
                while let Some((_, value)) = pairs.pair(position)
                    && see(value)
                {
                    position += 1;
                }
            }
            Map::Grouped(pairs) if pairs.pair(FEW).is_none() => {
                let mut position = 0;
                while let Some((name, _)) = pairs.pair(position) {
                    let known = (0..position)
                        .any(|before| pairs.pair(before).is_some_and(|(other, _)| other == name));
                    if !known && !see(Value::Array(Array::Group(pairs, Cow::Borrowed(name)))) {
                        return;
                    }
                    position += 1;
                }
            }
            Map::Grouped(pairs) => {
                for values in grouped(pairs) {
                    if !see(Value::Array(Array::Made(values))) {
                        return;
                    }
                }
            }
        }
    }
}

/// Pairs up to which keys are compared with each other, which needs no memory. A form may have thousands, and whoever sends one
/// must not be able to make that take the square of their number.
const FEW: usize = 16;

/// The values of each key, keys in the order of their first pair.
fn grouped(pairs: &dyn Pairs) -> Vec<Vec<Value<'_>>> {
    let mut groups: Vec<Vec<Value<'_>>> = Vec::new();
    let mut places: BTreeMap<&[u8], usize> = BTreeMap::new();
    let mut position = 0;
    while let Some((name, value)) = pairs.pair(position) {
        let place = *places.entry(name).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(value),
            None => groups.push(vec![value]),
        }
        position += 1;
    }
    groups
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut list = out.debug_list();
        self.clone().visit(&mut |value| {
            list.entry(&value);
            true
        });
        list.finish()
    }
}

impl std::fmt::Debug for Map<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Map::Grouped(pairs) | Map::Single(pairs)) = self;
        let mut map = out.debug_map();
        let mut position = 0;
        while let Some((name, value)) = pairs.pair(position) {
            map.entry(&String::from_utf8_lossy(name), &value);
            position += 1;
        }
        map.finish()
    }
}

impl<T: AsRef<[u8]>> Items for Vec<T> {
    fn at(&self, position: usize) -> Option<Value<'_>> {
        self.get(position).map(Value::text)
    }
}

impl<K: AsRef<[u8]>, V: AsRef<[u8]>> Pairs for Vec<(K, V)> {
    fn pair(&self, position: usize) -> Option<(&[u8], Value<'_>)> {
        self.get(position).map(|(key, value)| (key.as_ref(), Value::text(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys with their values, as the map shows them.
    fn shown(pairs: &Vec<(Vec<u8>, Vec<u8>)>) -> Vec<String> {
        let mut shown = Vec::new();
        Map::Grouped(pairs).visit(&mut |value| {
            shown.push(format!("{value:?}"));
            true
        });
        shown
    }

    #[test]
    fn many_pairs_are_grouped_as_few_are() {
        let pairs = |count: usize| -> Vec<(Vec<u8>, Vec<u8>)> {
            (0..count).map(|n| (vec![b'a' + (n * n % 7) as u8], n.to_string().into_bytes())).collect()
        };
        for count in 0..60 {
            let pairs = pairs(count);
            let mut keys: Vec<&[u8]> = Vec::new();
            for (name, _) in &pairs {
                if !keys.contains(&&name[..]) {
                    keys.push(name);
                }
            }
            let expected: Vec<_> =
                keys.iter().map(|key| format!("{:?}", Map::Grouped(&pairs).get(key).unwrap())).collect();
            assert_eq!(shown(&pairs), expected, "{count} pairs");
        }
    }
}
