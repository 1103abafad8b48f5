//! Every field of the language, declared once.

mod table;

use crate::error::nearest;
use crate::phase::Phase;
use crate::types::Type;

pub use table::FIELDS;

/// What has to exist before a field can have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The connection and the request's head.
    Connection,
    /// A GeoIP database.
    Geography,
    /// The request's body, or a token inside the request.
    Body,
    /// The origin's answer.
    Response,
    /// A module that detects; Unknown until there is one.
    Detection,
}

impl Tier {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Geography => "geography",
            Self::Body => "body",
            Self::Response => "response",
            Self::Detection => "detection",
        }
    }
}

/// One field.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name as written.
    pub name: &'static str,
    /// Type of its value.
    pub kind: Type,
    /// What it needs.
    pub tier: Tier,
    /// The first phase that may use it.
    pub since: Phase,
    /// What it says, in one sentence.
    pub doc: &'static str,
    /// The documented value where nothing was found, as the language writes it. For the host to answer when it knows
    /// that there is nothing; never a substitute for Unknown.
    pub default: Option<&'static str>,
}

/// Which field: its position in `FIELDS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldId(u16);

impl FieldId {
    /// Position in `FIELDS`.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The declaration.
    pub fn field(self) -> &'static Field {
        &FIELDS[self.index()]
    }
}

/// Deprecated names that still work, and what they stand for now.
pub const ALIASES: &[(&str, &str)] = &[
    ("ip.geoip.country", "ip.src.country"),
    ("ip.geoip.continent", "ip.src.continent"),
    ("ip.geoip.asnum", "ip.src.asnum"),
    ("ip.geoip.subdivision_1_iso_code", "ip.src.subdivision_1_iso_code"),
    ("ip.geoip.subdivision_2_iso_code", "ip.src.subdivision_2_iso_code"),
    ("ip.geoip.is_in_european_union", "ip.src.is_in_european_union"),
];

/// The field of a name, deprecated names included. For compile time: a scan of the table.
pub fn find(name: &str) -> Option<FieldId> {
    let name = ALIASES.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new);
    let position = FIELDS.iter().position(|field| field.name == name)?;
    u16::try_from(position).ok().map(FieldId)
}

/// The field name nearest to a misspelt one.
pub fn suggest(name: &str) -> Option<&'static str> {
    nearest(name, FIELDS.iter().map(|field| field.name))
}

/// Every field with its id, in the order of the table.
pub fn all() -> impl Iterator<Item = (FieldId, &'static Field)> {
    (0..).map(FieldId).zip(FIELDS)
}
