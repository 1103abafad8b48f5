//! What there is to see: the parts of Rempart and the sites with their state, made from incidents and probes. Pure.

use base::happening::{Component, Severity, What};
use base::time::Timestamp;

use crate::incident::{Incident, Incidents};

/// Sites that are listed; beyond that there would be no page.
pub const MAX_SITES: usize = 1_000;

/// All that a page is made of.
#[derive(Debug)]
pub struct View<'a> {
    /// Title of the page.
    pub title: &'a str,
    /// Address of the page, with its scheme and a `/` at the end.
    pub url: &'a str,
    /// Now.
    pub now: Timestamp,
    /// Since when this process watches.
    pub since: Timestamp,
    /// All incidents.
    pub incidents: &'a Incidents,
    /// Sites that are watched.
    pub sites: &'a [SiteView],
    /// Who is told.
    pub channels: &'a [ChannelView],
    /// Whether there is a supervisor that tells what happens.
    pub supervised: bool,
}

/// A site, as its probes see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteView {
    /// Its name.
    pub name: String,
    /// When it was asked last and what came of it; `None`: it has not been asked.
    pub asked: Option<(Timestamp, String)>,
}

/// A channel of notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// Its name.
    pub name: String,
    /// Why the last message could not be sent; `None` when it could, or none was to be sent.
    pub error: Option<String>,
}

/// How a part is. Worse ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Nothing is known against it.
    Operational,
    /// It is not known: nobody has asked yet.
    Unknown,
    /// Somebody switched something off.
    Switched,
    /// Something does not work as wanted; visitors are served.
    Degraded,
    /// Some visitors notice.
    PartialOutage,
    /// Visitors notice.
    MajorOutage,
}

/// What is listed: a part of Rempart, or a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A part of Rempart.
    Component(Component),
    /// A site.
    Site(&'a SiteView),
}

/// Parts of Rempart in the order in which they are listed.
pub const COMPONENTS: [Component; 7] = [
    Component::Delivery,
    Component::Configuration,
    Component::Certificates,
    Component::Feeds,
    Component::Modules,
    Component::Analytics,
    Component::Watch,
];

impl<'a> View<'a> {
    /// Everything listed, in order.
    pub fn parts(&self) -> impl Iterator<Item = Part<'a>> {
        let sites = self.sites.iter().take(MAX_SITES).map(Part::Site);
        COMPONENTS.into_iter().map(Part::Component).chain(sites)
    }

    /// Incidents of this part that last, the worst first.
    pub fn concerning(&self, part: Part<'_>) -> Vec<&'a Incident> {
        let mut found: Vec<_> =
            self.incidents.open().filter(|incident| part.is_concerned(incident)).collect();
        found.sort_by_key(|incident| std::cmp::Reverse((incident.severity, incident.began)));
        found
    }

    /// How a part is.
    pub fn status(&self, part: Part<'_>) -> Status {
        let worst = self.concerning(part).into_iter().map(|incident| effect(incident, part)).max();
        worst.unwrap_or(match part {
            Part::Site(SiteView { asked: None, .. }) => Status::Unknown,
            _ => Status::Operational,
        })
    }

    /// How the whole is for visitors: what delivery says, and the sites; the other parts can only make it degraded.
    pub fn overall(&self) -> Status {
        let seen = |component: Component| {
            let status = self.status(Part::Component(component));
            if component == Component::Delivery { status } else { status.min(Status::Degraded) }
        };
        let known = |status: &Status| !matches!(status, Status::Unknown | Status::Switched);
        let worst = COMPONENTS.into_iter().map(seen).filter(known).max().unwrap_or(Status::Operational);
        let out = |site: &SiteView| self.status(Part::Site(site)) == Status::MajorOutage;
        match self.sites.iter().filter(|site| out(site)).count() {
            0 => worst,
            count if count == self.sites.len() => Status::MajorOutage,
            _ => worst.max(Status::PartialOutage),
        }
    }
}

impl Part<'_> {
    fn is_concerned(self, incident: &Incident) -> bool {
        match self {
            Self::Component(component) => incident.component == component,
            Self::Site(site) => incident.site.as_deref() == Some(site.name.as_str()),
        }
    }
}

/// What an incident means for a part that it concerns.
fn effect(incident: &Incident, part: Part<'_>) -> Status {
    match (incident.severity, part) {
        _ if incident.what == What::SwitchThrown => Status::Switched,
        (Severity::Info, _) => Status::Operational,
        (Severity::Warning, _) => Status::Degraded,
        (Severity::Critical, Part::Component(_)) if incident.site.is_some() => Status::PartialOutage,
        (Severity::Critical, _) => Status::MajorOutage,
    }
}
