//! What is said when the server behind the website did not answer, or answered something that cannot be passed on.

use base::event::Fault::Origin;

use super::{Entry, Words};

/// For every failure of this side that has no words of its own.
pub static GENERAL: Entry = Entry {
    reason: "",
    statuses: &[],
    fault: Origin,
    en: Words {
        title: "The website is not available right now",
        cause: "Your request arrived, but the server behind this website could not answer it.",
        advice: "Try again in a few minutes.",
        owner: "Check the web server and its log.",
    },
    fr: Words {
        title: "Le site n’est pas disponible pour le moment",
        cause: "Votre requête est bien arrivée, mais le serveur de ce site n’a pas pu y répondre.",
        advice: "Réessayez dans quelques minutes.",
        owner: "Vérifiez le serveur web et son journal.",
    },
    de: Words {
        title: "Die Website ist gerade nicht verfügbar",
        cause: "Ihre Anfrage ist angekommen, aber der Server hinter dieser Website konnte sie nicht beantworten.",
        advice: "Versuchen Sie es in ein paar Minuten noch einmal.",
        owner: "Sehen Sie nach dem Webserver und in sein Protokoll.",
    },
};

/// Entries whose fault lies with the website's own server.
pub static ENTRIES: &[Entry] = &[
    Entry {
        reason: "origin_connect_refused",
        statuses: &[521],
        fault: Origin,
        en: Words {
            title: "The website’s server is not accepting connections",
            cause: "The server behind this website turned the connection down. Most often that means it is not running.",
            advice: "Try again in a few minutes.",
            owner: "Check that the web server is running, and that it and its firewall let Rempart connect.",
        },
        fr: Words {
            title: "Le serveur du site n’accepte pas de connexion",
            cause: "Le serveur de ce site a refusé la connexion. Le plus souvent, c’est qu’il n’est pas démarré.",
            advice: "Réessayez dans quelques minutes.",
            owner: "Vérifiez que le serveur web est démarré, et que lui et son pare-feu laissent Rempart se connecter.",
        },
        de: Words {
            title: "Der Server der Website nimmt keine Verbindungen an",
            cause: "Der Server hinter dieser Website hat die Verbindung abgelehnt. Meistens heißt das, dass er nicht läuft.",
            advice: "Versuchen Sie es in ein paar Minuten noch einmal.",
            owner: "Prüfen Sie, ob der Webserver läuft und ob er und seine Firewall Verbindungen von Rempart zulassen.",
        },
    },
    Entry {
        reason: "origin_connect_failed",
        statuses: &[523],
        fault: Origin,
        en: Words {
            title: "The website’s server cannot be reached",
            cause: "Rempart found no way to the server behind this website.",
            advice: "Try again in a few minutes.",
            owner: "Check the origin’s address in Rempart’s configuration and the network between the two machines.",
        },
        fr: Words {
            title: "Le serveur du site est injoignable",
            cause: "Rempart n’a trouvé aucun chemin vers le serveur de ce site.",
            advice: "Réessayez dans quelques minutes.",
            owner: "Vérifiez l’adresse de l’origine dans la configuration de Rempart et le réseau entre les deux machines.",
        },
        de: Words {
            title: "Der Server der Website ist nicht erreichbar",
            cause: "Rempart hat keinen Weg zum Server hinter dieser Website gefunden.",
            advice: "Versuchen Sie es in ein paar Minuten noch einmal.",
            owner: "Prüfen Sie die Adresse des Ursprungs in der Konfiguration von Rempart und das Netz zwischen beiden Rechnern.",
        },
    },
    Entry {
        reason: "origin_dns",
        statuses: &[],
        fault: Origin,
        en: Words {
            title: "The website’s server cannot be found",
            cause: "Rempart looked up where the server behind this website is, and got no address.",
            advice: "Try again in a few minutes.",
            owner: "Check the origin’s name in Rempart’s configuration, and that it resolves on the machine Rempart runs on.",
        },
        fr: Words {
            title: "Le serveur du site est introuvable",
            cause: "Rempart a cherché où se trouve le serveur de ce site et n’a obtenu aucune adresse.",
            advice: "Réessayez dans quelques minutes.",
            owner: "Vérifiez le nom de l’origine dans la configuration de Rempart et sa résolution sur la machine où tourne Rempart.",
        },
        de: Words {
            title: "Der Server der Website ist nicht zu finden",
            cause: "Rempart hat nachgeschlagen, wo der Server hinter dieser Website steht, und keine Adresse erhalten.",
            advice: "Versuchen Sie es in ein paar Minuten noch einmal.",
            owner: "Prüfen Sie den Namen des Ursprungs in der Konfiguration von Rempart und ob er auf dem Rechner von Rempart aufgelöst wird.",
        },
    },
    Entry {
        reason: "origin_tls",
        statuses: &[525],
        fault: Origin,
        en: Words {
            title: "No secure connection to the website’s server",
            cause: "Rempart and the server behind this website could not agree on an encrypted connection, so your request was not sent.",
            advice: "Try again later. Nothing is wrong with your browser.",
            owner: "Check that the origin speaks TLS 1.2 or newer on this port.",
        },
        fr: Words {
            title: "Pas de connexion sécurisée avec le serveur du site",
            cause: "Rempart et le serveur de ce site n’ont pas pu s’entendre sur une connexion chiffrée : votre requête n’a pas été envoyée.",
            advice: "Réessayez plus tard. Votre navigateur n’y est pour rien.",
            owner: "Vérifiez que l’origine parle TLS 1.2 ou une version plus récente sur ce port.",
        },
        de: Words {
            title: "Keine sichere Verbindung zum Server der Website",
            cause: "Rempart und der Server hinter dieser Website konnten sich nicht auf eine verschlüsselte Verbindung einigen. Ihre Anfrage wurde nicht gesendet.",
            advice: "Versuchen Sie es später noch einmal. An Ihrem Browser liegt es nicht.",
            owner: "Prüfen Sie, ob der Ursprung auf diesem Port TLS 1.2 oder neuer spricht.",
        },
    },
    Entry {
        reason: "origin_certificate",
        statuses: &[526],
        fault: Origin,
        en: Words {
            title: "The website’s server could not prove who it is",
            cause: "The certificate of the server behind this website is not valid, so your request was not sent to it.",
            advice: "Try again later. Nothing is wrong with your browser.",
            owner: "Check that the origin’s certificate is in date, names the right host and comes from an authority Rempart trusts.",
        },
        fr: Words {
            title: "Le serveur du site n’a pas pu prouver son identité",
            cause: "Le certificat du serveur de ce site n’est pas valide : votre requête ne lui a pas été envoyée.",
            advice: "Réessayez plus tard. Votre navigateur n’y est pour rien.",
            owner: "Vérifiez que le certificat de l’origine est en cours de validité, qu’il porte le bon nom et vient d’une autorité reconnue par Rempart.",
        },
        de: Words {
            title: "Der Server der Website konnte sich nicht ausweisen",
            cause: "Das Zertifikat des Servers hinter dieser Website ist ungültig. Ihre Anfrage wurde ihm nicht gesendet.",
            advice: "Versuchen Sie es später noch einmal. An Ihrem Browser liegt es nicht.",
            owner: "Prüfen Sie, ob das Zertifikat des Ursprungs noch gilt, den richtigen Namen trägt und von einer Stelle stammt, der Rempart vertraut.",
        },
    },
    Entry {
        reason: "origin_bad_response",
        statuses: &[520],
        fault: Origin,
        en: Words {
            title: "The website’s server gave an invalid answer",
            cause: "The server behind this website answered, but not in a form that can safely be passed on.",
            advice: "Try again. If it keeps happening, tell the owner of the website.",
            owner: "Look for malformed header lines or contradictory lengths in what the origin sends.",
        },
        fr: Words {
            title: "Le serveur du site a donné une réponse invalide",
            cause: "Le serveur de ce site a répondu, mais pas sous une forme qui puisse être transmise sans risque.",
            advice: "Réessayez. Si cela se reproduit, prévenez le propriétaire du site.",
            owner: "Cherchez dans ce qu’envoie l’origine des lignes d’en-tête mal formées ou des longueurs contradictoires.",
        },
        de: Words {
            title: "Der Server der Website hat ungültig geantwortet",
            cause: "Der Server hinter dieser Website hat geantwortet, aber nicht in einer Form, die sich sicher weitergeben lässt.",
            advice: "Versuchen Sie es noch einmal. Bleibt es dabei, sagen Sie dem Betreiber der Website Bescheid.",
            owner: "Suchen Sie in dem, was der Ursprung sendet, nach fehlerhaften Kopfzeilen oder widersprüchlichen Längen.",
        },
    },
    Entry {
        reason: "origin_closed",
        statuses: &[],
        fault: Origin,
        en: Words {
            title: "The website’s server hung up",
            cause: "The server behind this website closed the connection before it had answered.",
            advice: "Try again. If you had just sent a form, first check whether it was received.",
            owner: "Look for a crash or a restart in the web server’s log.",
        },
        fr: Words {
            title: "Le serveur du site a raccroché",
            cause: "Le serveur de ce site a fermé la connexion avant d’avoir répondu.",
            advice: "Réessayez. Si vous veniez d’envoyer un formulaire, vérifiez d’abord s’il a été reçu.",
            owner: "Cherchez un arrêt brutal ou un redémarrage dans le journal du serveur web.",
        },
        de: Words {
            title: "Der Server der Website hat aufgelegt",
            cause: "Der Server hinter dieser Website hat die Verbindung geschlossen, bevor er geantwortet hatte.",
            advice: "Versuchen Sie es noch einmal. Haben Sie gerade ein Formular abgeschickt, prüfen Sie zuerst, ob es angekommen ist.",
            owner: "Suchen Sie im Protokoll des Webservers nach einem Absturz oder Neustart.",
        },
    },
    Entry {
        reason: "origin_busy",
        statuses: &[],
        fault: Origin,
        en: Words {
            title: "The website is very busy",
            cause: "The server behind this website already has as many requests as it can take.",
            advice: "Wait a moment, then try again.",
            owner: "As many requests are open to the origin as Rempart’s configuration allows.",
        },
        fr: Words {
            title: "Le site est très sollicité",
            cause: "Le serveur de ce site a déjà autant de requêtes qu’il peut en prendre.",
            advice: "Patientez un instant, puis réessayez.",
            owner: "Autant de requêtes sont ouvertes vers l’origine que la configuration de Rempart en permet.",
        },
        de: Words {
            title: "Die Website ist stark ausgelastet",
            cause: "Der Server hinter dieser Website hat schon so viele Anfragen, wie er annehmen kann.",
            advice: "Warten Sie einen Augenblick und versuchen Sie es dann noch einmal.",
            owner: "Zum Ursprung sind so viele Anfragen offen, wie die Konfiguration von Rempart erlaubt.",
        },
    },
    Entry {
        reason: "origin_connect_timeout",
        statuses: &[522],
        fault: Origin,
        en: Words {
            title: "The website’s server does not pick up",
            cause: "Rempart tried to connect to the server behind this website, but nothing came back in time.",
            advice: "Try again in a few minutes.",
            owner: "Check that the machine is up and that no firewall silently drops connections from Rempart.",
        },
        fr: Words {
            title: "Le serveur du site ne décroche pas",
            cause: "Rempart a essayé de se connecter au serveur de ce site, mais rien n’est revenu à temps.",
            advice: "Réessayez dans quelques minutes.",
            owner: "Vérifiez que la machine est allumée et qu’aucun pare-feu n’écarte en silence les connexions de Rempart.",
        },
        de: Words {
            title: "Der Server der Website hebt nicht ab",
            cause: "Rempart wollte sich mit dem Server hinter dieser Website verbinden, aber es kam nicht rechtzeitig etwas zurück.",
            advice: "Versuchen Sie es in ein paar Minuten noch einmal.",
            owner: "Prüfen Sie, ob der Rechner läuft und ob keine Firewall Verbindungen von Rempart stillschweigend verwirft.",
        },
    },
    Entry {
        reason: "origin_timeout",
        statuses: &[504, 524],
        fault: Origin,
        en: Words {
            title: "The website is taking too long",
            cause: "The server behind this website took the request but did not answer in time.",
            advice: "Try again later. If you had just sent a form, first check whether it was received.",
            owner: "Look for slow work in the web application, or allow the origin more time in Rempart’s configuration.",
        },
        fr: Words {
            title: "Le site met trop de temps à répondre",
            cause: "Le serveur de ce site a pris la requête, mais n’a pas répondu à temps.",
            advice: "Réessayez plus tard. Si vous veniez d’envoyer un formulaire, vérifiez d’abord s’il a été reçu.",
            owner: "Cherchez ce qui est lent dans l’application web, ou accordez plus de temps à l’origine dans la configuration de Rempart.",
        },
        de: Words {
            title: "Die Website braucht zu lange",
            cause: "Der Server hinter dieser Website hat die Anfrage angenommen, aber nicht rechtzeitig geantwortet.",
            advice: "Versuchen Sie es später noch einmal. Haben Sie gerade ein Formular abgeschickt, prüfen Sie zuerst, ob es angekommen ist.",
            owner: "Suchen Sie in der Webanwendung nach langsamer Arbeit, oder geben Sie dem Ursprung in der Konfiguration von Rempart mehr Zeit.",
        },
    },
];
