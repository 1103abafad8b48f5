//! The schema of operational events: what happened to a part of Rempart itself, as opposed to a request.
//!
//! Processes tell them to the supervisor, which passes them on to the analytics and watch roles. One field tells them apart:
//! `what`. Two of the same key (`Happening::key`) are the same incident, told again.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Version of this schema. A field may be added within a version, never change meaning.
pub const VERSION: u8 = 1;
/// Longest message and cause kept, in bytes.
pub const MAX_TEXT: usize = 1024;

/// Cause of a `GenerationActivated` that leaves out sites: they are served as before, because what was set for them failed.
pub const IN_PART: &str = "activated-in-part";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A configuration came into force.
    GenerationActivated,
    /// A configuration was refused; the one before stays in force.
    GenerationRefused,
    /// A generation was given up for the one before.
    GenerationReverted,
    /// A generation has served for its whole bake: it is the one to go back to from now on.
    GenerationBaked,
    /// A data file (or any artefact but the configuration) came into force.
    ArtefactActivated,
    /// A data file was refused; the one before stays in force.
    ArtefactRefused,
    /// A data file was given up for the one before.
    ArtefactReverted,
    /// A feed went back and forth and is pinned to its last good generation until somebody looks.
    ArtefactFrozen,
    /// A feed that was frozen takes new data again.
    ArtefactThawed,
    /// The last good data file will expire before long, and no newer one has come.
    ArtefactExpiring,
    /// A module failed so often that it is passed over.
    BreakerOpened,
    /// A module works again.
    BreakerClosed,
    /// Somebody switched a module off.
    SwitchThrown,
    /// Somebody switched a module on again.
    SwitchReset,
    /// One site went back to how it was configured before, because requests to it failed inside Rempart.
    SiteReverted,
    /// An edge process ended or hung and was replaced by its standby.
    EdgeReplaced,
    /// Another process (analytics, watch, feeder, keeper) ended and was started again.
    RoleRestarted,
    /// A binary was replaced by another one.
    Upgraded,
    /// A new binary did not do well, and the one before went on.
    UpgradeReverted,
    /// Certificates were renewed.
    CertificateRenewed,
    /// A certificate could not be renewed.
    CertificateFailing,
    /// An edge is short of memory or descriptors.
    PressureBegan,
    /// It no longer is.
    PressureEnded,
    /// A signal (purge, ban, revert and the like) was carried out.
    SignalApplied,
    /// A signal was refused.
    SignalRefused,
    /// Traffic or errors are unlike what they were.
    AnomalyBegan,
    /// They are as they were.
    AnomalyEnded,
    /// A probe from outside did not get an answer.
    ProbeFailed,
    /// It does again.
    ProbeRecovered,
}

impl What {
    /// Whether somebody or something changed Rempart: what is looked at first when things go wrong.
    pub fn is_change(self) -> bool {
        use What::{
            ArtefactActivated, ArtefactReverted, CertificateRenewed, GenerationActivated, GenerationReverted,
            SignalApplied, SiteReverted, SwitchReset, SwitchThrown, UpgradeReverted, Upgraded,
        };
        matches!(
            self,
            GenerationActivated
                | GenerationReverted
                | ArtefactActivated
                | ArtefactReverted
                | SwitchThrown
                | SwitchReset
                | SiteReverted
                | Upgraded
                | UpgradeReverted
                | CertificateRenewed
                | SignalApplied
        )
    }
}

/// How much it matters to an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something does not work as wanted; visitors are served.
    Warning,
    /// Visitors notice.
    Critical,
}

/// The part of Rempart it happened to; what a status page lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// Requests get answers from origins.
    Delivery,
    /// Changes of configuration come into force.
    Configuration,
    /// Certificates are there and renewed.
    Certificates,
    /// Data files are fetched, checked and come into force.
    Feeds,
    /// Modules that decide about requests.
    Modules,
    /// Events are collected.
    Analytics,
    /// Probes and notifications.
    Watch,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
    /// How much it matters.
    pub severity: Severity,
    /// To which part.
    pub component: Component,
    /// The site concerned, if it is one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// The feed, module, process, origin or certificate concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The generation concerned, of the configuration or of the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// A stable code, such as `duplicate-keys`: the same cause again is the same incident.
    pub cause: String,
    /// A sentence for a person.
    pub message: String,
    /// Who did it, where somebody did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// What tells incidents apart.
pub type Key = (Component, Option<String>, Option<String>, String);

impl Happening {
    /// Something of which more can be said with the methods below.
    pub fn new(
        at: Timestamp,
        what: What,
        severity: Severity,
        component: Component,
        cause: &str,
        message: String,
    ) -> Self {
        let (mut cause, mut message) = (cause.to_owned(), message);
        cut(&mut cause);
        cut(&mut message);
        Self {
            at,
            what,
            severity,
            component,
            site: None,
            subject: None,
            generation: None,
            cause,
            message,
            by: None,
        }
    }

    /// The same, of a site.
    #[must_use]
    pub fn of_site(mut self, site: impl Into<String>) -> Self {
        self.site = Some(site.into());
        self
    }

    /// The same, of a feed, module, process, origin or certificate.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// The same, of a generation.
    #[must_use]
    pub fn with_generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// The same, done by somebody.
    #[must_use]
    pub fn done_by(mut self, who: impl Into<String>) -> Self {
        self.by = Some(who.into());
        self
    }

    /// What tells incidents apart: component, subject, site, cause.
    pub fn key(&self) -> Key {
        (self.component, self.subject.clone(), self.site.clone(), self.cause.clone())
    }
}

fn cut(text: &mut String) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
}
