//! What an object is found by.

/// 128 bits of a keyed hash of a cache key. Two different keys may share them by accident or on purpose, so whoever finds an
/// object by its hash compares the key that is kept with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub u128);
