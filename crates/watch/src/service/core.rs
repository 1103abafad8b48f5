//! What watch knows and holds: incidents and their journal, what each channel is owed, how sites answer. No waiting in here.

use std::io;
use std::path::Path;

use api::roles::WatchSettings;
use base::happening::{Component, Happening, Severity, What};
use base::random::Random;
use base::time::Timestamp;

use super::{CHANNEL_FAILING, PAGE_NOT_SERVED, SUPERVISOR_GONE};
use crate::incident::{Entry, Incident, Incidents};
use crate::journal::{Journal, Line};
use crate::notify::{Ledger, Message, Notice, Sender, Told};
use crate::probe::{Outcome, Patience};
use crate::view::{ChannelView, SiteView, View};

/// Title of a page that was given none.
const TITLE: &str = "Rempart";
/// What an incident is about that concerns the supervisor.
const SUPERVISOR: &str = "supervisor";
/// What an incident is about that concerns the page.
const PAGE: &str = "status page";

/// A site, and what is known of it.
struct Site {
    view: SiteView,
    patience: Patience,
}

/// Tells the supervisor, if there is one, what watch has found out.
pub type Tell = Box<dyn Fn(&Happening)>;

/// All of it.
pub struct Core {
    now: fn() -> Timestamp,
    tell: Tell,
    since: Timestamp,
    random: Random,
    settings: WatchSettings,
    incidents: Incidents,
    journal: Journal,
    /// The journal lacks something that could not be written.
    is_behind: bool,
    /// What channels had been told when this process began.
    told: Vec<Told>,
    ledgers: Vec<Ledger>,
    sites: Vec<Site>,
    supervised: bool,
}

impl Core {
    /// Reads the journal in this folder.
    pub fn open(folder: &Path, seed: u64, now: fn() -> Timestamp, tell: Tell) -> io::Result<Self> {
        let (journal, found) = Journal::open(&folder.join("journal"))?;
        if found.damaged > 0 {
            tracing::warn!(lines = found.damaged, "the journal of incidents is damaged; the rest is used");
        }
        let (mut entries, mut told) = (Vec::new(), Vec::new());
        for line in found.lines {
            match line {
                Line::Entry(entry) => entries.push(entry),
                Line::Told(one) => told.push(one),
            }
        }
        Ok(Self {
            now,
            tell,
            since: now(),
            random: Random::seeded(seed),
            settings: WatchSettings::default(),
            incidents: Incidents::restored(entries),
            journal,
            is_behind: false,
            told,
            ledgers: Vec::new(),
            sites: Vec::new(),
            supervised: true,
        })
    }

    /// What shall be done.
    pub fn settings(&self) -> &WatchSettings {
        &self.settings
    }

    /// A number nobody can guess the next of; for what shall not happen everywhere at once.
    pub fn below(&mut self, bound: u32) -> u32 {
        self.random.below(bound)
    }

    /// Takes new settings. What is not watched or told any more does not stay an incident for ever.
    pub fn set(&mut self, settings: WatchSettings) {
        let now = (self.now)();
        let mut before = std::mem::take(&mut self.ledgers);
        for channel in &settings.channels {
            let kept = before.iter().position(|ledger| ledger.channel == channel.name);
            let ledger = match kept {
                Some(at) => before.swap_remove(at),
                None => Ledger::new(&channel.name, &self.told, now, self.random.next_u64()),
            };
            self.ledgers.push(ledger);
        }
        let mut before = std::mem::take(&mut self.sites);
        let watched = if settings.probe_seconds == 0 { &[] } else { settings.sites.as_slice() };
        for site in watched {
            let kept = before.iter().position(|known| known.view.name == site.name);
            self.sites.push(match kept {
                Some(at) => before.swap_remove(at),
                None => Site {
                    view: SiteView { name: site.name.clone(), asked: None },
                    patience: Patience::new(self.failing(&site.name)),
                },
            });
        }
        self.settings = settings;
        self.let_go(now);
    }

    /// Cause of the failing of a site, as far as is known.
    fn failing(&self, site: &str) -> Option<&str> {
        let fits = |incident: &&Incident| {
            incident.what == What::ProbeFailed && incident.site.as_deref() == Some(site)
        };
        self.incidents.open().find(fits).map(|incident| incident.cause.as_str())
    }

    /// Whether a site is known to fail.
    pub fn is_failing(&self, site: &str) -> bool {
        self.failing(site).is_some()
    }

    /// Ends incidents of sites and channels that nobody asks or tells any more.
    fn let_go(&mut self, now: Timestamp) {
        let gone = |incident: &&Incident| match (&incident.site, &incident.subject) {
            _ if incident.what != What::ProbeFailed => false,
            (Some(name), _) => !self.sites.iter().any(|site| site.view.name == *name),
            (None, Some(name)) if incident.cause == CHANNEL_FAILING => {
                !self.ledgers.iter().any(|ledger| ledger.channel == *name)
            }
            (None, Some(_)) => incident.cause == PAGE_NOT_SERVED && self.settings.listen.is_none(),
            (None, None) => false,
        };
        let over = |incident: &Incident| {
            let message = "It is not watched any more.".to_owned();
            let (what, severity) = (What::ProbeRecovered, Severity::Info);
            let mut one = Happening::new(now, what, severity, incident.component, &incident.cause, message);
            (one.site, one.subject) = (incident.site.clone(), incident.subject.clone());
            one
        };
        let over: Vec<_> = self.incidents.open().filter(gone).map(over).collect();
        self.found(&over);
    }

    /// Takes in what happened elsewhere. What was found out here comes back that way, and is known.
    pub fn happened(&mut self, happenings: &[Happening]) {
        let is_own = |it: &&Happening| matches!(it.what, What::ProbeFailed | What::ProbeRecovered);
        let elsewhere = happenings.iter().filter(|it| !is_own(it));
        let entries: Vec<_> = elsewhere.flat_map(|happening| self.incidents.happened(happening)).collect();
        self.write(entries);
    }

    /// Takes in what was found out here, and tells it unless it has been told before.
    fn found(&mut self, happenings: &[Happening]) {
        let mut entries = Vec::new();
        for happening in happenings {
            let before = entries.len();
            entries.extend(self.incidents.happened(happening));
            if entries.len() > before {
                (self.tell)(happening);
            }
        }
        self.write(entries);
    }

    fn write(&mut self, entries: Vec<Entry>) {
        self.append(&entries.into_iter().map(Line::Entry).collect::<Vec<_>>());
    }

    fn append(&mut self, lines: &[Line]) {
        if let Err(error) = self.journal.append(lines) {
            tracing::error!(%error, "an incident could not be written down; it is tried again");
            self.is_behind = true;
        }
    }

    /// What time does: ends what was quiet for long enough, forgets what is old, makes up for what could not be written.
    pub fn passed(&mut self) {
        let entries = self.incidents.passed((self.now)());
        self.write(entries);
        if !self.is_behind && !self.journal.is_long() {
            return;
        }
        let mut told: Vec<_> = self.ledgers.iter_mut().flat_map(|it| it.kept(&self.incidents)).collect();
        // Settings may be without a channel for a while.
        let known = |it: &&Told| self.incidents.all().iter().any(|incident| incident.id == it.told);
        let is_here = |it: &Told| self.ledgers.iter().any(|ledger| ledger.channel == it.channel);
        told.extend(self.told.iter().filter(known).filter(|it| !is_here(it)).cloned());
        let lines = self.incidents.entries().map(Line::Entry).chain(told.into_iter().map(Line::Told));
        match self.journal.rewrite(lines) {
            Ok(()) => self.is_behind = false,
            Err(error) => tracing::error!(%error, "the journal of incidents could not be written anew"),
        }
    }

    /// Whether a supervisor is there. Told again and again, it is the same.
    pub fn supervised(&mut self, supervised: bool) {
        self.supervised = supervised;
        let now = (self.now)();
        let one = |what, severity, message: &str| {
            let component = Component::Configuration;
            Happening::new(now, what, severity, component, SUPERVISOR_GONE, message.to_owned())
                .about(SUPERVISOR)
        };
        let is_known = self.incidents.open().any(|incident| incident.cause == SUPERVISOR_GONE);
        if !supervised && !is_known {
            let message = "The supervisor has ended. Visitors are served as they were, but nothing can be changed and \
                nothing that fails is replaced until Rempart is started again.";
            self.found(&[one(What::ProbeFailed, Severity::Warning, message)]);
        } else if supervised && is_known {
            self.found(&[one(What::ProbeRecovered, Severity::Info, "There is a supervisor again.")]);
        }
    }

    /// What came of serving the page.
    pub fn page_served(&mut self, outcome: Result<(), String>) {
        let now = (self.now)();
        let one = |what, severity, message: String| {
            Happening::new(now, what, severity, Component::Watch, PAGE_NOT_SERVED, message).about(PAGE)
        };
        let is_known = self.incidents.open().any(|incident| incident.cause == PAGE_NOT_SERVED);
        match outcome {
            Ok(()) if is_known => {
                let message = "The status page is served.".to_owned();
                self.found(&[one(What::ProbeRecovered, Severity::Info, message)]);
            }
            Ok(()) => {}
            Err(message) => self.found(&[one(What::ProbeFailed, Severity::Warning, message)]),
        }
    }

    /// What came of asking a site; true when it is not settled yet whether it works.
    pub fn asked(&mut self, name: &str, outcome: Outcome) -> bool {
        let now = (self.now)();
        let Some(site) = self.sites.iter_mut().find(|site| site.view.name == name) else { return false };
        let told = site.patience.judge(name, &outcome, now);
        site.view.asked = Some((now, outcome.text));
        let unsettled = site.patience.is_unsettled();
        self.found(&told);
        unsettled
    }

    /// What a channel shall be sent now.
    pub fn due(&mut self, channel: &str) -> Option<(Notice, Message)> {
        let now = (self.now)();
        let at = self.ledgers.iter().position(|ledger| ledger.channel == channel)?;
        let notice = self.ledgers.get_mut(at)?.due(&self.incidents, now)?;
        let message = self.say(channel, |sender| Message::of(&notice, sender, now));
        Some((notice, message))
    }

    /// A message that shows that it arrives.
    pub fn test(&self, channel: &str) -> Message {
        let now = (self.now)();
        self.say(channel, |sender| Message::test(sender, now))
    }

    fn say(&self, channel: &str, say: impl FnOnce(Sender<'_>) -> Message) -> Message {
        let page = self.url();
        say(Sender { title: self.title(), page: page.as_deref(), channel })
    }

    /// What came of sending.
    pub fn sent(&mut self, channel: &str, notice: &Notice, outcome: Result<(), String>) {
        let now = (self.now)();
        let Some(ledger) = self.ledgers.iter_mut().find(|ledger| ledger.channel == channel) else { return };
        let was_failing = ledger.is_failing();
        let (message, told) = match outcome {
            Ok(()) => (None, ledger.sent(notice, now)),
            Err(error) => {
                ledger.failed(&error, now);
                tracing::warn!(channel, "a notification could not be sent: {error}");
                (Some(error), Vec::new())
            }
        };
        let is_failing = ledger.is_failing();
        self.append(&told.into_iter().map(Line::Told).collect::<Vec<_>>());
        let one = |what, severity, message: String| {
            Happening::new(now, what, severity, Component::Watch, CHANNEL_FAILING, message).about(channel)
        };
        // Found failing by a process before this one, it counts as that until it works.
        let is_known = || self.incidents.open().any(|it| is_failing_of(it, channel));
        match message {
            Some(error) if is_failing && !was_failing => {
                self.found(&[one(What::ProbeFailed, Severity::Warning, error)]);
            }
            None if is_known() => {
                let message = "Messages are taken again.".to_owned();
                self.found(&[one(What::ProbeRecovered, Severity::Info, message)]);
            }
            _ => {}
        }
    }

    /// All incidents.
    pub fn incidents(&self) -> &Incidents {
        &self.incidents
    }

    /// Whether a supervisor is there.
    pub fn is_supervised(&self) -> bool {
        self.supervised
    }

    /// Title of the page.
    pub fn title(&self) -> &str {
        if self.settings.title.is_empty() { TITLE } else { &self.settings.title }
    }

    /// Address of the page, with a `/` at the end; `None`: there is none.
    pub fn url(&self) -> Option<String> {
        let listen = || self.settings.listen.map(|address| format!("http://{address}/"));
        let mut url = self.settings.url.clone().or_else(listen)?;
        if !url.ends_with('/') {
            url.push('/');
        }
        Some(url)
    }

    /// Has a look at everything.
    pub fn view<T>(&self, look: impl FnOnce(&View<'_>) -> T) -> T {
        let url = self.url().unwrap_or_default();
        let sites: Vec<_> = self.sites.iter().map(|site| site.view.clone()).collect();
        let channel =
            |ledger: &Ledger| ChannelView { name: ledger.channel.clone(), error: ledger.last_error.clone() };
        let channels: Vec<_> = self.ledgers.iter().map(channel).collect();
        look(&View {
            title: self.title(),
            url: &url,
            now: (self.now)(),
            since: self.since,
            incidents: &self.incidents,
            sites: &sites,
            channels: &channels,
            supervised: self.supervised,
        })
    }
}

fn is_failing_of(incident: &Incident, channel: &str) -> bool {
    incident.cause == CHANNEL_FAILING && incident.subject.as_deref() == Some(channel)
}
