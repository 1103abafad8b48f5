//! What begins an incident, and what ends it.

use std::time::Duration;

use base::happening::{Happening, IN_PART, Severity, What};

use super::Incident;

/// Without being told again, what nobody says the end of is over after this long.
const QUIET: Duration = Duration::from_secs(10 * 60);
/// The same for what a change has to mend: longer, so that it is seen.
const LONG_QUIET: Duration = Duration::from_secs(60 * 60);

/// Whether an incident begins with it, or goes on.
pub fn begins(happening: &Happening) -> bool {
    use What::{
        AnomalyBegan, ArtefactExpiring, ArtefactFrozen, ArtefactRefused, ArtefactReverted, BreakerOpened,
        CertificateFailing, EdgeReplaced, GenerationRefused, GenerationReverted, PressureBegan, ProbeFailed,
        RoleRestarted, SignalRefused, SiteReverted, SwitchThrown, UpgradeReverted,
    };
    happening.severity > Severity::Info
        && matches!(
            happening.what,
            GenerationRefused
                | GenerationReverted
                | ArtefactRefused
                | ArtefactReverted
                | ArtefactFrozen
                | ArtefactExpiring
                | BreakerOpened
                | SwitchThrown
                | SiteReverted
                | EdgeReplaced
                | RoleRestarted
                | UpgradeReverted
                | CertificateFailing
                | PressureBegan
                | SignalRefused
                | AnomalyBegan
                | ProbeFailed
        )
}

/// Whether it says that this incident is over.
pub fn ends(incident: &Incident, happening: &Happening) -> bool {
    let same_subject = incident.component == happening.component && incident.subject == happening.subject;
    let same_place = same_subject && incident.site == happening.site;
    match (incident.what, happening.what) {
        (What::SiteReverted, What::GenerationActivated) => happening.cause != IN_PART,
        (What::GenerationRefused, What::GenerationActivated)
        | (What::GenerationReverted, What::GenerationActivated | What::GenerationBaked) => {
            // Feeds bake under the same name.
            incident.component == happening.component
        }
        (What::ArtefactRefused | What::ArtefactExpiring, What::ArtefactActivated)
        | (What::ArtefactReverted, What::ArtefactActivated | What::GenerationBaked)
        | (What::ArtefactFrozen, What::ArtefactThawed)
        | (What::CertificateFailing, What::CertificateRenewed) => same_subject,
        (What::BreakerOpened, What::BreakerClosed)
        | (What::SwitchThrown, What::SwitchReset)
        | (What::PressureBegan, What::PressureEnded)
        | (What::ProbeFailed, What::ProbeRecovered) => same_place,
        (What::AnomalyBegan, What::AnomalyEnded) => same_place && incident.cause == happening.cause,
        (What::UpgradeReverted, What::Upgraded) => true,
        _ => false,
    }
}

/// How long it must be quiet about something until it is over; `None`: it lasts until its end is told.
pub fn quiet(what: What) -> Option<Duration> {
    use What::{
        ArtefactReverted, EdgeReplaced, GenerationReverted, RoleRestarted, SignalRefused, SiteReverted,
        UpgradeReverted,
    };
    match what {
        EdgeReplaced | RoleRestarted | SignalRefused => Some(QUIET),
        GenerationReverted | ArtefactReverted | SiteReverted | UpgradeReverted => Some(LONG_QUIET),
        _ => None,
    }
}
