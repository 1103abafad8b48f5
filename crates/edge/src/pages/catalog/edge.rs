//! What is said when Rempart itself could not do its part.

use base::event::Fault::Edge;

use super::{Entry, Words};

/// For every failure of this side that has no words of its own.
pub static GENERAL: Entry = Entry {
    reason: "",
    statuses: &[],
    fault: Edge,
    en: Words {
        title: "Rempart could not handle this request",
        cause: "Rempart stands in front of this website and could not do its part. The website itself may be fine.",
        advice: "Try again in a moment.",
        owner: "Search Rempart’s log for the receipt.",
    },
    fr: Words {
        title: "Rempart n’a pas pu traiter cette requête",
        cause: "Rempart se trouve devant ce site et n’a pas pu faire sa part. Le site lui-même va peut-être bien.",
        advice: "Réessayez dans un instant.",
        owner: "Cherchez la référence dans le journal de Rempart.",
    },
    de: Words {
        title: "Rempart konnte diese Anfrage nicht bearbeiten",
        cause: "Rempart steht vor dieser Website und konnte seinen Teil nicht tun. Die Website selbst ist womöglich in Ordnung.",
        advice: "Versuchen Sie es gleich noch einmal.",
        owner: "Suchen Sie die Vorgangsnummer im Protokoll von Rempart.",
    },
};

/// Entries whose fault lies with Rempart.
pub static ENTRIES: &[Entry] = &[
    Entry {
        reason: "edge_internal",
        statuses: &[500],
        fault: Edge,
        en: Words {
            title: "Something went wrong inside Rempart",
            cause: "Rempart stands in front of this website and ran into an error of its own. The website itself may be fine.",
            advice: "Try again. If it happens again, send the receipt below to the owner of the website.",
            owner: "Search Rempart’s log for the receipt, and report the error to the makers of Rempart.",
        },
        fr: Words {
            title: "Une erreur s’est produite dans Rempart",
            cause: "Rempart se trouve devant ce site et a rencontré une erreur qui lui est propre. Le site lui-même va peut-être bien.",
            advice: "Réessayez. Si cela se reproduit, envoyez la référence ci-dessous au propriétaire du site.",
            owner: "Cherchez la référence dans le journal de Rempart et signalez l’erreur aux auteurs de Rempart.",
        },
        de: Words {
            title: "In Rempart ist ein Fehler aufgetreten",
            cause: "Rempart steht vor dieser Website und ist auf einen eigenen Fehler gestoßen. Die Website selbst ist womöglich in Ordnung.",
            advice: "Versuchen Sie es noch einmal. Geschieht es wieder, schicken Sie dem Betreiber der Website die Vorgangsnummer unten.",
            owner: "Suchen Sie die Vorgangsnummer im Protokoll von Rempart und melden Sie den Fehler den Entwicklern von Rempart.",
        },
    },
    Entry {
        reason: "edge_overloaded",
        statuses: &[503],
        fault: Edge,
        en: Words {
            title: "Too many requests are arriving at once",
            cause: "Rempart, which stands in front of this website, has more work than it can take on. Your request was turned away before it reached the website.",
            advice: "Wait a moment, then try again.",
            owner: "Rempart has reached one of its limits: look at its metrics for open connections and refused requests.",
        },
        fr: Words {
            title: "Trop de requêtes arrivent en même temps",
            cause: "Rempart, qui se trouve devant ce site, a plus de travail qu’il ne peut en prendre. Votre requête a été écartée avant d’atteindre le site.",
            advice: "Patientez un instant, puis réessayez.",
            owner: "Rempart a atteint l’une de ses limites : regardez dans ses métriques les connexions ouvertes et les requêtes refusées.",
        },
        de: Words {
            title: "Es kommen zu viele Anfragen auf einmal",
            cause: "Rempart, das vor dieser Website steht, hat mehr zu tun, als es annehmen kann. Ihre Anfrage wurde abgewiesen, bevor sie die Website erreichte.",
            advice: "Warten Sie einen Augenblick und versuchen Sie es dann noch einmal.",
            owner: "Rempart ist an einem seiner Grenzwerte: Sehen Sie in den Metriken nach offenen Verbindungen und abgewiesenen Anfragen.",
        },
    },
    Entry {
        reason: "draining",
        statuses: &[],
        fault: Edge,
        en: Words {
            title: "Rempart is about to restart",
            cause: "Rempart, which stands in front of this website, is finishing its open requests and takes no new ones on this connection.",
            advice: "Try again in a few seconds.",
            owner: "",
        },
        fr: Words {
            title: "Rempart est sur le point de redémarrer",
            cause: "Rempart, qui se trouve devant ce site, termine les requêtes en cours et n’en prend plus de nouvelles sur cette connexion.",
            advice: "Réessayez dans quelques secondes.",
            owner: "",
        },
        de: Words {
            title: "Rempart startet gleich neu",
            cause: "Rempart, das vor dieser Website steht, beendet die offenen Anfragen und nimmt auf dieser Verbindung keine neuen an.",
            advice: "Versuchen Sie es in ein paar Sekunden noch einmal.",
            owner: "",
        },
    },
    Entry {
        reason: "no_configuration",
        statuses: &[],
        fault: Edge,
        en: Words {
            title: "This website is temporarily unavailable",
            cause: "Rempart, which stands in front of this website, is running without its configuration and does not know where the website is.",
            advice: "Nothing is wrong with your request. Try again in a few minutes.",
            owner: "No configuration could be used, not even an earlier one: rempart status says why, and rempart reload puts a corrected one in force.",
        },
        fr: Words {
            title: "Ce site est momentanément indisponible",
            cause: "Rempart, qui se trouve devant ce site, fonctionne sans sa configuration et ne sait pas où se trouve le site.",
            advice: "Votre requête n’est pas en cause. Réessayez dans quelques minutes.",
            owner: "Aucune configuration n’a pu être utilisée, pas même une ancienne : rempart status en donne la raison, et rempart reload applique celle que vous aurez corrigée.",
        },
        de: Words {
            title: "Diese Website ist vorübergehend nicht erreichbar",
            cause: "Rempart, das vor dieser Website steht, läuft ohne seine Konfiguration und weiß nicht, wo die Website ist.",
            advice: "An Ihrer Anfrage liegt es nicht. Versuchen Sie es in einigen Minuten noch einmal.",
            owner: "Keine Konfiguration war brauchbar, auch keine frühere: rempart status sagt, warum, und rempart reload setzt eine berichtigte in Kraft.",
        },
    },
    Entry {
        reason: "loop_detected",
        statuses: &[508],
        fault: Edge,
        en: Words {
            title: "This request is going in circles",
            cause: "The way to the website leads back to Rempart instead of to the website’s server, so the request would never arrive.",
            advice: "Only the owner of the website can put this right.",
            owner: "Enter the address of the web server itself as the origin: the present one leads back to Rempart.",
        },
        fr: Words {
            title: "Cette requête tourne en rond",
            cause: "Le chemin vers le site ramène à Rempart au lieu de mener au serveur du site : la requête n’arriverait jamais.",
            advice: "Seul le propriétaire du site peut y remédier.",
            owner: "Indiquez comme origine l’adresse du serveur web lui-même : l’origine actuelle ramène à Rempart.",
        },
        de: Words {
            title: "Diese Anfrage dreht sich im Kreis",
            cause: "Der Weg zur Website führt zurück zu Rempart statt zum Server der Website. So käme die Anfrage nie an.",
            advice: "Das kann nur der Betreiber der Website beheben.",
            owner: "Tragen Sie als Ursprung die Adresse des Webservers selbst ein: Die jetzige führt zurück zu Rempart.",
        },
    },
];
