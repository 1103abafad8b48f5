//! Where addresses are, by databases in MaxMind's format (MaxMind DB File Format Specification 2.0).
//!
//! Read are the names GeoIP2 and GeoLite2 use, and the flat ones of ip-location-db. What a database does not say is `None`, which
//! is Unknown to rules: there is no country of last resort.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use maxminddb::PathElement::{self, Index, Key};
use maxminddb::{LookupResult, Reader, WithinOptions};
use serde::Deserialize;

/// Networks walked at most when a database is checked.
const MAX_NETWORKS: usize = 20_000_000;
/// Countries of the European Union, since 2020-02-01.
const EUROPEAN_UNION: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT",
    "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// Beginnings of kinds of databases, lower case, and what the licences of the free ones want to be said.
const MAKERS: [(&str, &str); 4] = [
    (
        "geolite2",
        "This product includes GeoLite Data created by MaxMind, available from https://www.maxmind.com",
    ),
    ("dbip", "IP Geolocation by DB-IP, https://db-ip.com"),
    (
        "ip2lite",
        "This site or product includes IP2Location LITE data available from https://lite.ip2location.com",
    ),
    ("ipinfo", "IP address data powered by IPinfo, https://ipinfo.io"),
];

/// A database.
pub struct Geography {
    reader: Reader<Vec<u8>>,
}

/// A text that a database may have of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceText {
    /// Two letters (ISO 3166-1).
    Country,
    /// `AF`, `AN`, `AS`, `EU`, `NA`, `OC` or `SA`.
    Continent,
    /// Name in English.
    City,
    /// Name of the first subdivision in English.
    Region,
    /// ISO 3166-2 code of the first subdivision, without the country.
    RegionCode,
    /// The same of the second.
    SecondRegionCode,
    /// As the post writes it.
    PostalCode,
    /// Name in the IANA database.
    TimeZone,
}

type Path = &'static [PathElement<'static>];

impl PlaceText {
    /// Where it may stand in a record, the likeliest first.
    fn paths(self) -> &'static [Path] {
        match self {
            Self::Country => &[&[Key("country"), Key("iso_code")], &[Key("country_code")]],
            Self::Continent => &[&[Key("continent"), Key("code")], &[Key("continent_code")]],
            Self::City => &[&[Key("city"), Key("names"), Key("en")], &[Key("city")]],
            Self::Region => &[&[Key("subdivisions"), Index(0), Key("names"), Key("en")], &[Key("state1")]],
            Self::RegionCode => &[&[Key("subdivisions"), Index(0), Key("iso_code")]],
            Self::SecondRegionCode => &[&[Key("subdivisions"), Index(1), Key("iso_code")]],
            Self::PostalCode => &[&[Key("postal"), Key("code")], &[Key("postcode")]],
            Self::TimeZone => &[&[Key("location"), Key("time_zone")], &[Key("timezone")]],
        }
    }
}

impl Geography {
    /// A database as it is in a file; the error says why it is none.
    pub fn open(bytes: Vec<u8>) -> Result<Self, String> {
        Ok(Self { reader: Reader::from_source(bytes).map_err(|error| error.to_string())? })
    }

    /// What kind of database it says it is: `GeoLite2-Country`.
    pub fn kind(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// What it says of itself in English, where licences like to be named; may be empty.
    pub fn description(&self) -> &str {
        self.reader.metadata().description.get("en").map(String::as_str).unwrap_or_default()
    }

    /// What its maker's licence wants to be said where it is used, as far as the maker shows in the kind of database.
    pub fn attribution(&self) -> Option<&'static str> {
        let kind = self.kind().to_ascii_lowercase();
        MAKERS.iter().find(|(begin, _)| kind.starts_with(begin)).map(|(_, sentence)| *sentence)
    }

    /// A text of an address.
    pub fn text(&self, address: IpAddr, what: PlaceText) -> Option<&str> {
        let found = self.find(address)?;
        what.paths().iter().find_map(|path| at::<&str>(&found, path)).filter(|text| !text.is_empty())
    }

    /// The number of its autonomous system.
    pub fn system(&self, address: IpAddr) -> Option<u32> {
        at(&self.find(address)?, &[Key("autonomous_system_number")])
    }

    /// Its metro code, in the United States.
    pub fn metro_code(&self, address: IpAddr) -> Option<u16> {
        at(&self.find(address)?, &[Key("location"), Key("metro_code")])
    }

    /// Latitude and longitude in degrees.
    pub fn position(&self, address: IpAddr) -> Option<(f64, f64)> {
        let found = self.find(address)?;
        let degrees = |name| {
            at::<f64>(&found, &[Key("location"), Key(name)])
                .or_else(|| at::<f32>(&found, &[Key(name)]).map(f64::from))
        };
        Some((degrees("latitude")?, degrees("longitude")?))
    }

    fn find(&self, address: IpAddr) -> Option<LookupResult<'_, Vec<u8>>> {
        self.reader.lookup(address).ok().filter(LookupResult::has_data)
    }

    /// Reads every record once. Answers the countries it knows, as `country FR`, and which texts and numbers it has, as
    /// `system`; the error says what cannot be read.
    pub(crate) fn survey(&self) -> Result<BTreeSet<String>, String> {
        let mut keys = BTreeSet::new();
        let mut seen = HashSet::new();
        let networks = self.reader.networks(WithinOptions::default()).map_err(|error| error.to_string())?;
        for network in networks.take(MAX_NETWORKS) {
            let network = network.map_err(|error| error.to_string())?;
            // Records are shared by many networks.
            if !network.offset().is_none_or(|offset| seen.insert(offset)) {
                continue;
            }
            let text = |what: PlaceText| what.paths().iter().find_map(|path| at::<&str>(&network, path));
            if let Some(country) = text(PlaceText::Country) {
                keys.insert(format!("country {country}"));
            }
            for (name, what) in [
                ("continent", PlaceText::Continent),
                ("city", PlaceText::City),
                ("region", PlaceText::Region),
                ("postal code", PlaceText::PostalCode),
                ("time zone", PlaceText::TimeZone),
            ] {
                if !keys.contains(name) && text(what).is_some() {
                    keys.insert(name.to_owned());
                }
            }
            if at::<u32>(&network, &[Key("autonomous_system_number")]).is_some() {
                keys.insert("system".to_owned());
            }
        }
        Ok(keys)
    }
}

/// The value at a path; `None` where there is none, or one of another type.
fn at<'r, T: Deserialize<'r>>(found: &LookupResult<'r, Vec<u8>>, path: &[PathElement<'_>]) -> Option<T> {
    found.decode_path(path).ok().flatten()
}

/// Whether a country is in the European Union.
pub fn in_european_union(country: &str) -> bool {
    EUROPEAN_UNION.contains(&country)
}

impl std::fmt::Debug for Geography {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Geography({})", self.kind())
    }
}
