//! Named lists and places on earth, as one request looks them up: from the configuration, or from artefacts in force.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::Guard;
use snapshot::geo::{Geography, PlaceText, in_european_union};
use snapshot::kind::Value;
use snapshot::lists::{NamedList, RedirectList, name_of_feed};

use crate::artefacts::InForceByFeed;
use crate::generation::Generation;

/// What one request looks up. Nothing is loaded until something is asked.
pub struct Lists<'g> {
    generation: &'g Generation,
    /// Artefacts as they were when the first was asked for: one request sees one state of them.
    artefacts: OnceCell<Guard<Arc<InForceByFeed>>>,
    country: OnceCell<Option<[u8; 2]>>,
    system: OnceCell<Option<u32>>,
}

impl<'g> Lists<'g> {
    /// Looks nothing up yet.
    pub fn new(generation: &'g Generation) -> Self {
        Self { generation, artefacts: OnceCell::new(), country: OnceCell::new(), system: OnceCell::new() }
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
        let artefacts = self.artefacts();
        let found = artefacts.get(name).or_else(|| {
            // Names of lists have no hyphens, those of feeds may.
            artefacts.iter().find_map(|(feed, found)| (name_of_feed(feed) == name).then_some(found))
        });
        match &found?.content.value {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// A text about an address, by the first database that has it; `None` is Unknown: no database, or none that says it.
    pub fn place(&self, address: IpAddr, what: PlaceText) -> Option<&str> {
        self.geographies().find_map(|found| found.text(address, what))
    }

    /// The country of an address, looked up once for a request: rules like to ask again and again.
    pub fn country(&self, address: IpAddr) -> Option<&str> {
        let found = self.country.get_or_init(|| {
            let text = self.place(address, PlaceText::Country)?;
            <[u8; 2]>::try_from(text.as_bytes()).ok()
        });
        std::str::from_utf8(found.as_ref()?).ok()
    }

    /// The number of its autonomous system, likewise.
    pub fn system(&self, address: IpAddr) -> Option<u32> {
        *self.system.get_or_init(|| self.geographies().find_map(|found| found.system(address)))
    }

    /// Its metro code.
    pub fn metro_code(&self, address: IpAddr) -> Option<u16> {
        self.geographies().find_map(|found| found.metro_code(address))
    }

    /// Latitude and longitude in degrees.
    pub fn position(&self, address: IpAddr) -> Option<(f64, f64)> {
        self.geographies().find_map(|found| found.position(address))
    }

    /// Whether its country is in the European Union.
    pub fn in_european_union(&self, address: IpAddr) -> Option<bool> {
        self.country(address).map(in_european_union)
    }

    fn artefacts(&self) -> &InForceByFeed {
        self.artefacts.get_or_init(|| self.generation.artefacts.in_force())
    }

    /// The databases in force, by the names of their feeds.
    fn geographies(&self) -> impl Iterator<Item = &Geography> {
        self.artefacts().values().filter_map(|artefact| match &artefact.content.value {
            Value::Geography(geography) => Some(&**geography),
            _ => None,
        })
    }
}
