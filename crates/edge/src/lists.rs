//! Named lists and places on earth, as one request looks them up: from the configuration, or from artefacts in force.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::Guard;
use snapshot::kind::Value;
use snapshot::lists::{NamedList, RedirectList, name_of_feed};

use crate::artefacts::InForceByFeed;
use crate::generation::Generation;

/// What one request looks up. Nothing is loaded until something is asked.
pub struct Lists<'g> {
    generation: &'g Generation,
    /// Artefacts as they were when the first was asked for: one request sees one state of them.
    artefacts: OnceCell<Guard<Arc<InForceByFeed>>>,
}

/// Where an address is, as far as a database says. `None` is Unknown: no database, or none that tells.
#[derive(Clone, Debug, Default)]
pub struct Place<'l> {
    /// Two letters (ISO 3166-1).
    pub country: Option<&'l str>,
    /// `AF`, `AN`, `AS`, `EU`, `NA`, `OC` or `SA`.
    pub continent: Option<&'l str>,
    /// Number of the autonomous system.
    pub asnum: Option<u32>,
    /// Name in English.
    pub city: Option<&'l str>,
    /// Name of the first subdivision in English.
    pub region: Option<&'l str>,
    /// ISO 3166-2 code of the first subdivision, without the country.
    pub region_code: Option<&'l str>,
    /// ISO 3166-2 code of the second subdivision, without the country.
    pub region_2_code: Option<&'l str>,
    /// As the post writes it.
    pub postal_code: Option<&'l str>,
    /// Of the United States.
    pub metro_code: Option<u32>,
    /// Degrees.
    pub latitude: Option<f64>,
    /// Degrees.
    pub longitude: Option<f64>,
    /// Name in the IANA database.
    pub time_zone: Option<&'l str>,
    /// Whether the country is in the European Union.
    pub in_european_union: Option<bool>,
}

impl<'g> Lists<'g> {
    /// Looks nothing up yet.
    pub fn new(generation: &'g Generation) -> Self {
        Self { generation, artefacts: OnceCell::new() }
    }

    /// The list of this name; `None` when nothing is in force: what it holds is Unknown then.
    pub fn find(&self, name: &str) -> Option<&dyn expr::List> {
        self.named(name)?.list()
    }

    /// The redirects of this name; `None` likewise.
    pub fn redirects(&self, name: &str) -> Option<&RedirectList> {
        self.named(name)?.redirects()
    }

    fn named(&self, name: &str) -> Option<&NamedList> {
        if let Some(list) = self.generation.snapshot.lists.find(name) {
            return Some(list);
        }
        let artefacts = self.artefacts.get_or_init(|| self.generation.artefacts.in_force());
        let found = artefacts.get(name).or_else(|| {
            // Names of lists have no hyphens, those of feeds may.
            artefacts.iter().find_map(|(feed, found)| (name_of_feed(feed) == name).then_some(found))
        });
        match &found?.content.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// Where an address is.
    pub fn place(&self, _address: IpAddr) -> Place<'_> {
        Place::default()
    }
}
