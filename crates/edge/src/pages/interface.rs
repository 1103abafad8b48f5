//! The words around a reason: labels, the three stations of the path, and durations, in every language.

use super::language::Language;

/// Seconds from which a duration is told in minutes.
const MINUTES_FROM: u32 = 120;
/// Seconds from which a duration is told in hours.
const HOURS_FROM: u32 = 2 * 3600;

/// Labels of a page in one language.
pub struct Interface {
    /// Between a label and what it labels; French puts a space before it.
    pub colon: &'static str,
    /// Before the status code.
    pub error: &'static str,
    /// Names the path "you, Rempart, website" for those who cannot see it.
    pub path: &'static str,
    /// The visitor's station.
    pub you: &'static str,
    /// Rempart's station; a name, hence the same everywhere.
    pub proxy: &'static str,
    /// The website's station.
    pub website: &'static str,
    /// State of a station that did its part.
    pub works: &'static str,
    /// State of the station at fault.
    pub fails: &'static str,
    /// State of a station behind the one at fault.
    pub idle: &'static str,
    /// Heading of what the visitor can do.
    pub advice: &'static str,
    /// Heading of what the owner of the website can do.
    pub owner: &'static str,
    /// Label of the link that asks again.
    pub again: &'static str,
    /// Label of the wait before trying again makes sense.
    pub wait: &'static str,
    /// Label of the receipt.
    pub receipt: &'static str,
    /// Label of the reason's stable name.
    pub reason: &'static str,
    /// What the receipt is good for.
    pub footer: &'static str,
}

static ENGLISH: Interface = Interface {
    colon: ":",
    error: "Error",
    path: "Where it failed",
    you: "You",
    proxy: "Rempart",
    website: "Website",
    works: "Works",
    fails: "Problem here",
    idle: "Not involved",
    advice: "What you can do",
    owner: "If this is your website",
    again: "Try again",
    wait: "Try again in",
    receipt: "Receipt",
    reason: "Reason",
    footer: "With the receipt, the owner of this website can find this very request.",
};

static FRENCH: Interface = Interface {
    colon: " :",
    error: "Erreur",
    path: "Où se situe le problème",
    you: "Vous",
    proxy: "Rempart",
    website: "Site web",
    works: "Fonctionne",
    fails: "Problème ici",
    idle: "Pas en cause",
    advice: "Ce que vous pouvez faire",
    owner: "Si ce site est le vôtre",
    again: "Réessayer",
    wait: "Réessayez dans",
    receipt: "Référence",
    reason: "Motif",
    footer: "Grâce à cette référence, le propriétaire du site peut retrouver cette requête précise.",
};

static GERMAN: Interface = Interface {
    colon: ":",
    error: "Fehler",
    path: "Wo es hakt",
    you: "Sie",
    proxy: "Rempart",
    website: "Website",
    works: "Läuft",
    fails: "Hier hakt es",
    idle: "Nicht beteiligt",
    advice: "Was Sie tun können",
    owner: "Falls das Ihre Website ist",
    again: "Noch einmal versuchen",
    wait: "Neuer Versuch in",
    receipt: "Vorgangsnummer",
    reason: "Grund",
    footer: "Mit der Vorgangsnummer findet der Betreiber der Website genau diese Anfrage wieder.",
};

/// The labels of a language.
pub fn interface(language: Language) -> &'static Interface {
    match language {
        Language::English => &ENGLISH,
        Language::French => &FRENCH,
        Language::German => &GERMAN,
    }
}

/// A wait in words: `30 seconds`, `2 minutes`, `3 heures`. Rounded up, so nobody comes back too early.
pub fn duration(seconds: u32, language: Language) -> String {
    let (count, unit) = match seconds {
        0..MINUTES_FROM => (seconds, Unit::Second),
        MINUTES_FROM..HOURS_FROM => (seconds.div_ceil(60), Unit::Minute),
        HOURS_FROM.. => (seconds.div_ceil(3600), Unit::Hour),
    };
    let plural = count != 1;
    let name = match (language, unit) {
        (Language::English, Unit::Second) => ["second", "seconds"],
        (Language::English, Unit::Minute) => ["minute", "minutes"],
        (Language::English, Unit::Hour) => ["hour", "hours"],
        (Language::French, Unit::Second) => ["seconde", "secondes"],
        (Language::French, Unit::Minute) => ["minute", "minutes"],
        (Language::French, Unit::Hour) => ["heure", "heures"],
        (Language::German, Unit::Second) => ["Sekunde", "Sekunden"],
        (Language::German, Unit::Minute) => ["Minute", "Minuten"],
        (Language::German, Unit::Hour) => ["Stunde", "Stunden"],
    };
    let [one, many] = name;
    format!("{count} {}", if plural { many } else { one })
}

enum Unit {
    Second,
    Minute,
    Hour,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_and_agree_in_number() {
        for (seconds, language, expected) in [
            (1, Language::English, "1 second"),
            (119, Language::English, "119 seconds"),
            (121, Language::English, "3 minutes"),
            (30, Language::French, "30 secondes"),
            (300, Language::French, "5 minutes"),
            (30, Language::German, "30 Sekunden"),
            (7201, Language::German, "3 Stunden"),
            (u32::MAX, Language::English, "1193047 hours"),
        ] {
            assert_eq!(duration(seconds, language), expected);
        }
    }
}
