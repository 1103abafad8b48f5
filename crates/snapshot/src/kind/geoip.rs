//! Where addresses are: a database in MaxMind's format, as it is in its file.

use std::net::IpAddr;
use std::sync::Arc;

use api::diagnostic::Diagnostic;
use base::time::Timestamp;

use super::{Class, Content, Kind, OnFailure, Value, error};
use crate::geo::{Geography, PlaceText};
use crate::package::Caps;

/// The kind.
pub struct GeoIp;

/// Addresses everybody may ask about: whatever is found, finding it must not fail.
const ASKED: [&str; 6] =
    ["127.0.0.1", "192.0.2.1", "8.8.8.8", "255.255.255.255", "::1", "2001:4860:4860::8888"];

impl Kind for GeoIp {
    fn name(&self) -> &'static str {
        "geoip"
    }

    fn schema(&self) -> u32 {
        1
    }

    fn consumers(&self) -> (u32, u32) {
        (1, 1)
    }

    fn caps(&self) -> Caps {
        Caps { bytes: 256 << 20, entries: 10_000, memory: 320 << 20 }
    }

    fn on_failure(&self) -> OnFailure {
        OnFailure::Unknown
    }

    fn read(&self, payload: &[u8], _now: Timestamp) -> Result<Content, Vec<Diagnostic>> {
        let broken = |found: String| {
            let hint = "take the file from its maker again; the one before stays in force";
            vec![error("not-a-database", format!("it is no database that can be read: {found}"), hint)]
        };
        let geography = Geography::open(payload.to_vec()).map_err(broken)?;
        let keys = geography.survey().map_err(broken)?;
        let classes = vec![Class { name: "places", keys, needed: true }];
        // The file as it is, and the countries.
        let memory = payload.len() as u64 + (1 << 20);
        Ok(Content { classes, spreads: Vec::new(), memory, value: Value::Geography(Arc::new(geography)) })
    }

    fn exercise(&self, content: &Content) -> Result<(), Vec<Diagnostic>> {
        let Value::Geography(geography) = &content.value else {
            return Err(vec![error("not-a-database", "it is no database".to_owned(), "have it made again")]);
        };
        for address in ASKED.iter().filter_map(|text| text.parse::<IpAddr>().ok()) {
            // What cannot be found is None; what is found as a country is two letters, or somebody else's idea of one.
            let country = geography.text(address, PlaceText::Country);
            if let Some(country) = country.filter(|country| country.len() != 2) {
                let message = format!("{address} is said to be in {country:?}, which is no country");
                return Err(vec![error("bad-country", message, "take a database with codes of ISO 3166-1")]);
            }
        }
        Ok(())
    }
}
