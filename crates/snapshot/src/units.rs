//! Durations and sizes as an operator writes them: `"10s"`, `"32KiB"`.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What a duration may look like; quoted in every message about one.
pub const PERIOD_FORMS: &str = "a whole number with a unit: \"250ms\", \"10s\", \"5m\", \"1h\" or \"14d\"";
/// What a size may look like; quoted in every message about one.
pub const SIZE_FORMS: &str =
    "a number of bytes, or a string with a unit: 65536, \"32KiB\", \"64MiB\", \"1GiB\", \"500kB\", \"1GB\"";

/// Units of a duration with their milliseconds, largest first so that display picks the largest exact one.
const PERIOD_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of a size with their bytes; binary before decimal, largest first.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// Why a duration or a size could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// No digits in front, or something between digits and unit.
    #[error("does not begin with a whole number")]
    NoNumber,
    /// Digits only.
    #[error("has no unit")]
    NoUnit,
    /// Letters nobody knows.
    #[error("has an unknown unit")]
    UnknownUnit,
    /// More than 64 bits hold.
    #[error("is too large")]
    TooLarge,
}

/// A duration in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(u64);

impl Period {
    /// From milliseconds.
    pub const fn milliseconds(count: u64) -> Self {
        Self(count)
    }

    /// From seconds.
    pub const fn seconds(count: u64) -> Self {
        Self(count * 1_000)
    }

    /// Reads `"10s"` and the like.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text)?;
        let (_, factor) =
            PERIOD_UNITS.iter().find(|(name, _)| *name == unit).ok_or(UnitError::UnknownUnit)?;
        number.checked_mul(*factor).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Self {
        Self::from_millis(period.0)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = PERIOD_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("s", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// A size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// From bytes.
    pub const fn bytes(count: u64) -> Self {
        Self(count)
    }

    /// From 1024-byte units.
    pub const fn kibibytes(count: u64) -> Self {
        Self(count << 10)
    }

    /// From 1024 * 1024-byte units.
    pub const fn mebibytes(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number of bytes as a length in memory; saturates where memory is smaller than 64 bits.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads `"32KiB"` and the like; the case of letters does not matter.
    pub fn parse(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = split(text)?;
        let (_, factor) = SIZE_UNITS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(unit))
            .ok_or(UnitError::UnknownUnit)?;
        number.checked_mul(*factor).map(Self).ok_or(UnitError::TooLarge)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

/// A limit in bytes that can be switched off with the word `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OptionalSize(pub Option<ByteSize>);

impl fmt::Display for OptionalSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(size) => size.fmt(f),
            None => f.write_str("none"),
        }
    }
}

/// Splits `"10s"` into 10 and `s`.
fn split(text: &str) -> Result<(u64, &str), UnitError> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(UnitError::NoNumber);
    }
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    Ok((digits.parse().map_err(|_| UnitError::TooLarge)?, unit))
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A number or a text, as sizes may be written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written<'a> {
    Number(u64),
    Text(Cow<'a, str>),
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => Self::parse(&text).map_err(serde::de::Error::custom),
        }
    }
}

impl Serialize for OptionalSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OptionalSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(Some(ByteSize(bytes)))),
            Written::Text(text) if text == "none" => Ok(Self(None)),
            Written::Text(text) => {
                ByteSize::parse(&text).map(|size| Self(Some(size))).map_err(serde::de::Error::custom)
            }
        }
    }
}

impl JsonSchema for Period {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "x-kind": "duration" })
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^[0-9]+([kKmMgGtT][iI]?)?[bB]$",
            "x-kind": "size"
        })
    }
}

impl JsonSchema for OptionalSize {
    fn schema_name() -> Cow<'static, str> {
        "OptionalSize".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^(none|[0-9]+([kKmMgGtT][iI]?)?[bB])$",
            "x-kind": "size or none"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_read_and_written_back() {
        for (text, milliseconds) in
            [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("14d", 1_209_600_000)]
        {
            let period = Period::parse(text).unwrap();
            assert_eq!((period.0, period.to_string().as_str()), (milliseconds, text));
        }
        assert_eq!(Period::parse("90s").unwrap().to_string(), "90s");
        assert_eq!(Period::parse("60s").unwrap().to_string(), "1m");
        assert_eq!(Period::parse("0s").unwrap().to_string(), "0s");
    }

    #[test]
    fn what_is_no_period_says_why() {
        for (text, error) in [
            ("10", UnitError::NoUnit),
            ("", UnitError::NoNumber),
            ("s", UnitError::NoNumber),
            ("-1s", UnitError::NoNumber),
            ("1.5s", UnitError::UnknownUnit),
            ("10 s", UnitError::UnknownUnit),
            ("10S", UnitError::UnknownUnit),
            ("1w", UnitError::UnknownUnit),
            ("99999999999999999999s", UnitError::TooLarge),
            ("18446744073709551615d", UnitError::TooLarge),
        ] {
            assert_eq!(Period::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_back() {
        for (text, bytes, shown) in [
            ("32KiB", 32_768, "32KiB"),
            ("64mib", 67_108_864, "64MiB"),
            ("1GB", 1_000_000_000, "1GB"),
            ("1024B", 1_024, "1KiB"),
            ("0B", 0, "0B"),
            ("7B", 7, "7B"),
        ] {
            let size = ByteSize::parse(text).unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
        }
        assert_eq!(ByteSize::parse("1K"), Err(UnitError::UnknownUnit), "K could be 1000 or 1024");
        assert_eq!(ByteSize::parse("9999999TiB99"), Err(UnitError::UnknownUnit));
        assert_eq!(ByteSize::parse("99999999TiB"), Err(UnitError::TooLarge));
    }
}
