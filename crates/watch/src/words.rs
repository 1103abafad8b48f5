//! What the page says, in the languages it is written in: titles of incidents, names of parts, labels.

use base::happening::{Component, What};

use crate::incident::Incident;
use crate::view::Status;

/// A language of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// English, also for everybody whose language is missing.
    English,
    /// French.
    French,
    /// German.
    German,
}

/// Elements of `Accept-Language` that are read.
const MAX_RANGES: usize = 16;

impl Language {
    /// Every language; the first is the default.
    pub const ALL: [Self; 3] = [Self::English, Self::French, Self::German];

    /// Tag of the language (RFC 5646).
    pub fn tag(self) -> &'static str {
        self.pick("en", "fr", "de")
    }

    /// The one a client likes best (RFC 9110 section 12.5.4); English when it likes none of them.
    pub fn negotiate(accept_language: &str) -> Self {
        let weighted = |element: &str| {
            let mut parts = element.split(';').map(str::trim);
            let tag = parts.next()?.split('-').next()?.to_ascii_lowercase();
            let language = Self::ALL.into_iter().find(|language| language.tag() == tag)?;
            let quality =
                parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok())?;
            (quality > 0.0_f32).then_some((language, quality))
        };
        let mut best: Option<(Self, f32)> = None;
        for (language, quality) in accept_language.split(',').take(MAX_RANGES).filter_map(weighted) {
            if best.is_none_or(|(_, known)| quality > known) {
                best = Some((language, quality));
            }
        }
        best.map_or(Self::English, |(language, _)| language)
    }

    /// The text of this language.
    pub fn pick<'a>(self, english: &'a str, french: &'a str, german: &'a str) -> &'a str {
        match self {
            Self::English => english,
            Self::French => french,
            Self::German => german,
        }
    }

    /// Name of a part of Rempart.
    pub fn component(self, component: Component) -> &'static str {
        match component {
            Component::Delivery => self.pick("Delivery", "Distribution", "Auslieferung"),
            Component::Configuration => self.pick("Configuration", "Configuration", "Konfiguration"),
            Component::Certificates => self.pick("Certificates", "Certificats", "Zertifikate"),
            Component::Feeds => self.pick("Data feeds", "Flux de données", "Datenbezug"),
            Component::Modules => self.pick("Modules", "Modules", "Module"),
            Component::Analytics => self.pick("Analytics", "Analyse", "Auswertung"),
            Component::Watch => self.pick("Monitoring", "Surveillance", "Überwachung"),
        }
    }

    /// What a status is called.
    pub fn status(self, status: Status) -> &'static str {
        match status {
            Status::Operational => self.pick("Operational", "Opérationnel", "In Betrieb"),
            Status::Unknown => self.pick("Not known yet", "Pas encore connu", "Noch nicht bekannt"),
            Status::Switched => self.pick("Switched off", "Désactivé", "Abgeschaltet"),
            Status::Degraded => self.pick("Degraded", "Dégradé", "Beeinträchtigt"),
            Status::PartialOutage => self.pick("Partial outage", "Panne partielle", "Teilausfall"),
            Status::MajorOutage => self.pick("Outage", "Panne", "Ausfall"),
        }
    }

    /// How the whole is, in a sentence.
    pub fn overall(self, status: Status) -> &'static str {
        match status {
            Status::Operational | Status::Unknown | Status::Switched => {
                self.pick("Everything works", "Tout fonctionne", "Alles funktioniert")
            }
            Status::Degraded => self.pick(
                "Visitors are served; something does not work as it should",
                "Les visiteurs sont servis ; quelque chose ne fonctionne pas comme prévu",
                "Besucher werden bedient; etwas funktioniert nicht, wie es soll",
            ),
            Status::PartialOutage => self.pick(
                "Some visitors are not served",
                "Certains visiteurs ne sont pas servis",
                "Manche Besucher werden nicht bedient",
            ),
            Status::MajorOutage => self.pick(
                "Visitors are not served",
                "Les visiteurs ne sont pas servis",
                "Besucher werden nicht bedient",
            ),
        }
    }

    /// What an incident is called: who or what, and what about it.
    pub fn title(self, incident: &Incident) -> String {
        let about = self.about(incident);
        let what = fill(self.happened(incident), incident);
        format!("{about}: {what}")
    }

    /// The subject, the site or both, else the part of Rempart.
    fn about(self, incident: &Incident) -> String {
        match (&incident.subject, &incident.site) {
            (Some(subject), Some(site)) => format!("{subject} ({site})"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => self.component(incident.component).to_owned(),
        }
    }

    fn happened(self, incident: &Incident) -> &'static str {
        match incident.what {
            What::ArtefactFrozen => self.pick(
                "frozen[ at generation {generation}]",
                "figé[ à la génération {generation}]",
                "eingefroren[ bei Generation {generation}]",
            ),
            What::ArtefactRefused => self.pick(
                "new data[ (generation {generation})] refused, {cause}",
                "nouvelles données[ (génération {generation})] refusées, {cause}",
                "neue Daten[ (Generation {generation})] abgelehnt, {cause}",
            ),
            What::ArtefactReverted | What::GenerationReverted | What::SiteReverted => self.pick(
                "taken back[ (generation {generation})], {cause}",
                "retour en arrière[ (génération {generation})], {cause}",
                "zurückgenommen[ (Generation {generation})], {cause}",
            ),
            What::ArtefactExpiring => self.pick(
                "data[ (generation {generation})] will expire, nothing newer has come",
                "les données[ (génération {generation})] vont expirer, rien de plus récent",
                "Daten[ (Generation {generation})] laufen ab, nichts Neueres ist da",
            ),
            What::GenerationRefused => self.pick(
                "new configuration refused, {cause}",
                "nouvelle configuration refusée, {cause}",
                "neue Konfiguration abgelehnt, {cause}",
            ),
            What::BreakerOpened => {
                self.pick("passed over, {cause}", "mis hors circuit, {cause}", "wird übergangen, {cause}")
            }
            What::SwitchThrown => self.pick("switched off", "désactivé", "abgeschaltet"),
            What::EdgeReplaced => {
                self.pick("edge replaced, {cause}", "processus remplacé, {cause}", "Prozess ersetzt, {cause}")
            }
            What::RoleRestarted => self.pick("started again", "redémarré", "neu gestartet"),
            What::UpgradeReverted => {
                self.pick("new binary taken back", "nouveau binaire retiré", "neues Programm zurückgenommen")
            }
            What::CertificateFailing => self.pick(
                "certificate cannot be renewed",
                "le certificat ne peut être renouvelé",
                "Zertifikat kann nicht erneuert werden",
            ),
            What::PressureBegan => self.pick("short of {cause}", "à court de {cause}", "zu wenig {cause}"),
            What::SignalRefused => self.pick("signal refused", "signal refusé", "Signal abgelehnt"),
            What::AnomalyBegan => {
                self.pick("{cause} unlike before", "{cause} inhabituel", "{cause} anders als zuvor")
            }
            What::ProbeFailed => self.probe(&incident.cause),
            _ => "{cause}",
        }
    }

    /// What a probe did not get.
    fn probe(self, cause: &str) -> &'static str {
        match cause {
            crate::probe::EDGE => {
                self.pick("Rempart does not answer", "Rempart ne répond pas", "Rempart antwortet nicht")
            }
            crate::probe::ORIGIN => self.pick(
                "the origin does not answer",
                "le serveur d'origine ne répond pas",
                "der Ursprungsserver antwortet nicht",
            ),
            crate::probe::CERTIFICATE => self.pick(
                "its certificate has expired",
                "son certificat a expiré",
                "sein Zertifikat ist abgelaufen",
            ),
            crate::service::SUPERVISOR_GONE => self.pick(
                "the supervisor is gone, nothing can be changed",
                "le superviseur a disparu, rien ne peut être modifié",
                "der Supervisor ist fort, nichts kann geändert werden",
            ),
            crate::service::CHANNEL_FAILING => self.pick(
                "messages cannot be sent",
                "les messages ne partent pas",
                "Nachrichten können nicht verschickt werden",
            ),
            crate::service::PAGE_NOT_SERVED => self.pick("not served", "pas servie", "nicht erreichbar"),
            _ => "{cause}",
        }
    }
}

/// Fills in what is known; a part in brackets goes with what it lacks.
fn fill(template: &str, incident: &Incident) -> String {
    let mut text = template.to_owned();
    match (incident.generation, template.find('[').zip(template.find(']'))) {
        (Some(generation), _) => {
            text = text.replace("{generation}", &generation.to_string()).replace(['[', ']'], "");
        }
        (None, Some((from, to))) => text.replace_range(from..=to, ""),
        (None, None) => {}
    }
    text.replace("{cause}", &incident.cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_language_they_like_best() {
        for (field, expected) in [
            ("", Language::English),
            ("de", Language::German),
            ("fr-CH, de;q=0.9", Language::French),
            ("de;q=0.5, FR;q=0.8", Language::French),
            ("de;q=0, it", Language::English),
            ("it, de;q=x", Language::English),
            ("en;q=0.4, de;q=0.4", Language::English),
        ] {
            assert_eq!(Language::negotiate(field), expected, "{field}");
        }
    }
}
