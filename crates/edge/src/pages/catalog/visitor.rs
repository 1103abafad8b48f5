//! What is said when the request itself was the trouble: malformed, too large, too slow, or for nobody here.

use base::event::Fault::Visitor;

use super::{Entry, Words};

/// For every failure of this side that has no words of its own.
pub static GENERAL: Entry = Entry {
    reason: "",
    statuses: &[],
    fault: Visitor,
    en: Words {
        title: "This request cannot be served",
        cause: "The website has not been asked, because something about the request itself stands in the way.",
        advice: "Check the address and try again. If it keeps happening, ask the owner of the website.",
        owner: "",
    },
    fr: Words {
        title: "Cette requête ne peut pas aboutir",
        cause: "Le site n’a pas été sollicité, car la requête elle-même pose problème.",
        advice: "Vérifiez l’adresse et réessayez. Si cela se reproduit, contactez le propriétaire du site.",
        owner: "",
    },
    de: Words {
        title: "Diese Anfrage kann nicht bedient werden",
        cause: "Die Website wurde gar nicht erst gefragt, weil mit der Anfrage selbst etwas nicht stimmt.",
        advice: "Prüfen Sie die Adresse und versuchen Sie es noch einmal. Bleibt es dabei, fragen Sie den Betreiber der Website.",
        owner: "",
    },
};

/// Entries whose fault lies with the visitor's browser or program.
pub static ENTRIES: &[Entry] = &[
    Entry {
        reason: "bad_request",
        statuses: &[400],
        fault: Visitor,
        en: Words {
            title: "This request could not be understood",
            cause: "Your browser or program sent something that does not follow the rules of HTTP, so it was not passed on.",
            advice: "Reload the page. If that does not help, clear the cookies of this website or try another browser.",
            owner: "",
        },
        fr: Words {
            title: "Cette requête est incompréhensible",
            cause: "Votre navigateur ou votre programme a envoyé quelque chose qui ne respecte pas les règles de HTTP ; rien n’a été transmis.",
            advice: "Rechargez la page. Si cela ne suffit pas, supprimez les cookies de ce site ou essayez un autre navigateur.",
            owner: "",
        },
        de: Words {
            title: "Diese Anfrage ist unverständlich",
            cause: "Ihr Browser oder Programm hat etwas gesendet, das nicht den Regeln von HTTP folgt. Es wurde nicht weitergeleitet.",
            advice: "Laden Sie die Seite neu. Hilft das nicht, löschen Sie die Cookies dieser Website oder nehmen Sie einen anderen Browser.",
            owner: "",
        },
    },
    Entry {
        reason: "bad_framing",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "It is unclear where this request ends",
            cause: "The length of the request is given in an invalid or contradictory way. Guessing could mix up two requests, so this one was refused and the connection closed.",
            advice: "Reload the page. If you wrote the program, send either one Content-Length or chunked Transfer-Encoding, never both.",
            owner: "",
        },
        fr: Words {
            title: "La fin de cette requête est ambiguë",
            cause: "La longueur de la requête est indiquée de façon invalide ou contradictoire. Deviner pourrait mélanger deux requêtes : celle-ci a été refusée et la connexion fermée.",
            advice: "Rechargez la page. Si vous avez écrit le programme, envoyez soit un seul Content-Length, soit Transfer-Encoding: chunked, jamais les deux.",
            owner: "",
        },
        de: Words {
            title: "Es ist unklar, wo diese Anfrage endet",
            cause: "Die Länge der Anfrage ist ungültig oder widersprüchlich angegeben. Raten könnte zwei Anfragen vermischen, deshalb wurde diese abgelehnt und die Verbindung geschlossen.",
            advice: "Laden Sie die Seite neu. Haben Sie das Programm geschrieben, senden Sie entweder ein einziges Content-Length oder Transfer-Encoding: chunked, nie beides.",
            owner: "",
        },
    },
    Entry {
        reason: "bad_header",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "A header of this request is not valid",
            cause: "One of the header lines sent with the request has a form or contains characters that HTTP does not allow.",
            advice: "Clear the cookies of this website, switch off extensions that change requests, and try again.",
            owner: "",
        },
        fr: Words {
            title: "Un en-tête de cette requête n’est pas valide",
            cause: "L’une des lignes d’en-tête de la requête a une forme ou contient des caractères que HTTP n’autorise pas.",
            advice: "Supprimez les cookies de ce site, désactivez les extensions qui modifient les requêtes, puis réessayez.",
            owner: "",
        },
        de: Words {
            title: "Eine Kopfzeile dieser Anfrage ist ungültig",
            cause: "Eine der Kopfzeilen, die mit der Anfrage kamen, hat eine Form oder enthält Zeichen, die HTTP nicht erlaubt.",
            advice: "Löschen Sie die Cookies dieser Website, schalten Sie Erweiterungen ab, die Anfragen verändern, und versuchen Sie es noch einmal.",
            owner: "",
        },
    },
    Entry {
        reason: "bad_target",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "This address is not valid",
            cause: "The address that was asked for has a form or contains characters that HTTP does not allow.",
            advice: "Look for stray spaces or signs in the link, or start from the home page of the website.",
            owner: "",
        },
        fr: Words {
            title: "Cette adresse n’est pas valide",
            cause: "L’adresse demandée a une forme ou contient des caractères que HTTP n’autorise pas.",
            advice: "Cherchez des espaces ou des signes égarés dans le lien, ou repartez de la page d’accueil du site.",
            owner: "",
        },
        de: Words {
            title: "Diese Adresse ist ungültig",
            cause: "Die angefragte Adresse hat eine Form oder enthält Zeichen, die HTTP nicht erlaubt.",
            advice: "Suchen Sie im Link nach verirrten Leer- oder Sonderzeichen, oder beginnen Sie auf der Startseite der Website.",
            owner: "",
        },
    },
    Entry {
        reason: "missing_host",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "The request does not say which website it is for",
            cause: "Several websites can share one address, so a request must name exactly one of them. This one names none, or more than one.",
            advice: "Update your browser or try another one. If you wrote the program, send exactly one Host header.",
            owner: "",
        },
        fr: Words {
            title: "La requête ne dit pas à quel site elle s’adresse",
            cause: "Plusieurs sites peuvent partager une même adresse : une requête doit donc en nommer un, et un seul. Celle-ci n’en nomme aucun, ou plusieurs.",
            advice: "Mettez votre navigateur à jour ou essayez-en un autre. Si vous avez écrit le programme, envoyez un seul en-tête Host.",
            owner: "",
        },
        de: Words {
            title: "Die Anfrage sagt nicht, für welche Website sie ist",
            cause: "Mehrere Websites können sich eine Adresse teilen, deshalb muss eine Anfrage genau eine davon nennen. Diese nennt keine oder mehr als eine.",
            advice: "Aktualisieren Sie Ihren Browser oder nehmen Sie einen anderen. Haben Sie das Programm geschrieben, senden Sie genau eine Host-Kopfzeile.",
            owner: "",
        },
    },
    Entry {
        reason: "plain_http_on_tls_port",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "This address needs an encrypted connection",
            cause: "The request came unencrypted, but only encrypted connections (HTTPS) are taken at this port.",
            advice: "Write https:// instead of http:// in front of the address.",
            owner: "",
        },
        fr: Words {
            title: "Cette adresse demande une connexion chiffrée",
            cause: "La requête est arrivée en clair, alors que ce port n’accepte que des connexions chiffrées (HTTPS).",
            advice: "Écrivez https:// au lieu de http:// devant l’adresse.",
            owner: "",
        },
        de: Words {
            title: "Diese Adresse braucht eine verschlüsselte Verbindung",
            cause: "Die Anfrage kam unverschlüsselt, an diesem Port werden aber nur verschlüsselte Verbindungen (HTTPS) angenommen.",
            advice: "Schreiben Sie https:// statt http:// vor die Adresse.",
            owner: "",
        },
    },
    Entry {
        reason: "request_timeout",
        statuses: &[408],
        fault: Visitor,
        en: Words {
            title: "The request took too long to arrive",
            cause: "A part of the request came in, but the rest did not follow in time.",
            advice: "Check your internet connection and try again.",
            owner: "",
        },
        fr: Words {
            title: "La requête a mis trop de temps à arriver",
            cause: "Une partie de la requête est arrivée, mais la suite n’est pas venue à temps.",
            advice: "Vérifiez votre connexion à Internet et réessayez.",
            owner: "",
        },
        de: Words {
            title: "Die Anfrage kam zu langsam an",
            cause: "Ein Teil der Anfrage ist angekommen, aber der Rest kam nicht rechtzeitig.",
            advice: "Prüfen Sie Ihre Internetverbindung und versuchen Sie es noch einmal.",
            owner: "",
        },
    },
    Entry {
        reason: "body_too_large",
        statuses: &[413],
        fault: Visitor,
        en: Words {
            title: "This upload is too large",
            cause: "What was sent is larger than this website accepts.",
            advice: "Send a smaller file, or send it in parts.",
            owner: "The largest accepted upload is a limit of the site in Rempart’s configuration.",
        },
        fr: Words {
            title: "Cet envoi est trop volumineux",
            cause: "Ce qui a été envoyé dépasse la taille que ce site accepte.",
            advice: "Envoyez un fichier plus petit, ou envoyez-le en plusieurs parties.",
            owner: "La taille maximale d’un envoi est une limite du site dans la configuration de Rempart.",
        },
        de: Words {
            title: "Dieser Upload ist zu groß",
            cause: "Was gesendet wurde, ist größer, als diese Website annimmt.",
            advice: "Senden Sie eine kleinere Datei, oder senden Sie sie in Teilen.",
            owner: "Die größte erlaubte Sendung ist ein Grenzwert der Site in der Konfiguration von Rempart.",
        },
    },
    Entry {
        reason: "target_too_long",
        statuses: &[414],
        fault: Visitor,
        en: Words {
            title: "This address is too long",
            cause: "The address that was asked for is longer than Rempart accepts.",
            advice: "Shorten the link. Often it is enough to leave out what follows the question mark.",
            owner: "",
        },
        fr: Words {
            title: "Cette adresse est trop longue",
            cause: "L’adresse demandée est plus longue que ce que Rempart accepte.",
            advice: "Raccourcissez le lien. Il suffit souvent d’enlever ce qui suit le point d’interrogation.",
            owner: "",
        },
        de: Words {
            title: "Diese Adresse ist zu lang",
            cause: "Die angefragte Adresse ist länger, als Rempart annimmt.",
            advice: "Kürzen Sie den Link. Oft genügt es, alles nach dem Fragezeichen wegzulassen.",
            owner: "",
        },
    },
    Entry {
        reason: "expectation_failed",
        statuses: &[417],
        fault: Visitor,
        en: Words {
            title: "The request expects something nobody offers",
            cause: "Its Expect header asks for something other than 100-continue, the only expectation HTTP knows.",
            advice: "If you wrote the program, leave the Expect header out.",
            owner: "",
        },
        fr: Words {
            title: "La requête attend quelque chose que personne n’offre",
            cause: "Son en-tête Expect demande autre chose que 100-continue, la seule attente que HTTP connaisse.",
            advice: "Si vous avez écrit le programme, n’envoyez pas l’en-tête Expect.",
            owner: "",
        },
        de: Words {
            title: "Die Anfrage erwartet etwas, das niemand anbietet",
            cause: "Ihre Expect-Kopfzeile verlangt etwas anderes als 100-continue, die einzige Erwartung, die HTTP kennt.",
            advice: "Haben Sie das Programm geschrieben, lassen Sie die Expect-Kopfzeile weg.",
            owner: "",
        },
    },
    Entry {
        reason: "unknown_host",
        statuses: &[421],
        fault: Visitor,
        en: Words {
            title: "There is no website of that name here",
            cause: "The request reached Rempart, but none of the websites it serves has this name.",
            advice: "Check the address for typing mistakes.",
            owner: "Add this host name to a site in Rempart’s configuration, or correct its DNS records.",
        },
        fr: Words {
            title: "Aucun site de ce nom ici",
            cause: "La requête est arrivée jusqu’à Rempart, mais aucun des sites qu’il sert ne porte ce nom.",
            advice: "Vérifiez que l’adresse ne contient pas de faute de frappe.",
            owner: "Ajoutez ce nom d’hôte à un site dans la configuration de Rempart, ou corrigez ses enregistrements DNS.",
        },
        de: Words {
            title: "Hier gibt es keine Website dieses Namens",
            cause: "Die Anfrage hat Rempart erreicht, aber keine der Websites, die es ausliefert, heißt so.",
            advice: "Prüfen Sie die Adresse auf Tippfehler.",
            owner: "Tragen Sie diesen Hostnamen bei einer Site in der Konfiguration von Rempart ein, oder berichtigen Sie seine DNS-Einträge.",
        },
    },
    Entry {
        reason: "client_certificate_required",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "This website asks for a certificate of yours",
            cause: "The connection was made without a certificate by which this website knows its visitors.",
            advice: "Open the website with https, in a new window, and choose your certificate when you are asked for it.",
            owner: "Visitors need a certificate signed by one of the authorities this site names under tls.client.",
        },
        fr: Words {
            title: "Ce site vous demande un certificat",
            cause: "La connexion a été établie sans certificat permettant à ce site de reconnaître ses visiteurs.",
            advice: "Ouvrez le site en https dans une nouvelle fenêtre, puis choisissez votre certificat lorsqu’il vous est demandé.",
            owner: "Les visiteurs ont besoin d’un certificat signé par l’une des autorités que ce site indique sous tls.client.",
        },
        de: Words {
            title: "Diese Website verlangt ein Zertifikat von Ihnen",
            cause: "Die Verbindung kam ohne ein Zertifikat zustande, an dem diese Website ihre Besucher erkennt.",
            advice: "Öffnen Sie die Website mit https in einem neuen Fenster, und wählen Sie Ihr Zertifikat, wenn danach gefragt wird.",
            owner: "Besucher brauchen ein Zertifikat, das eine der Stellen ausgestellt hat, die diese Site unter tls.client nennt.",
        },
    },
    Entry {
        reason: "headers_too_large",
        statuses: &[431],
        fault: Visitor,
        en: Words {
            title: "The headers of this request are too large",
            cause: "Cookies and other header lines add up to more than Rempart accepts.",
            advice: "Clear the cookies of this website and try again.",
            owner: "",
        },
        fr: Words {
            title: "Les en-têtes de cette requête sont trop volumineux",
            cause: "Les cookies et les autres lignes d’en-tête dépassent ensemble ce que Rempart accepte.",
            advice: "Supprimez les cookies de ce site et réessayez.",
            owner: "",
        },
        de: Words {
            title: "Die Kopfzeilen dieser Anfrage sind zu groß",
            cause: "Cookies und andere Kopfzeilen sind zusammen mehr, als Rempart annimmt.",
            advice: "Löschen Sie die Cookies dieser Website und versuchen Sie es noch einmal.",
            owner: "",
        },
    },
    Entry {
        reason: "method_not_supported",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "This method is not supported",
            cause: "The request uses an HTTP method that Rempart does not pass on.",
            advice: "Use one of the usual methods, such as GET or POST.",
            owner: "",
        },
        fr: Words {
            title: "Cette méthode n’est pas prise en charge",
            cause: "La requête utilise une méthode HTTP que Rempart ne transmet pas.",
            advice: "Utilisez l’une des méthodes habituelles, comme GET ou POST.",
            owner: "",
        },
        de: Words {
            title: "Diese Methode wird nicht unterstützt",
            cause: "Die Anfrage verwendet eine HTTP-Methode, die Rempart nicht weiterleitet.",
            advice: "Verwenden Sie eine der üblichen Methoden, etwa GET oder POST.",
            owner: "",
        },
    },
    Entry {
        reason: "transfer_coding_not_supported",
        statuses: &[],
        fault: Visitor,
        en: Words {
            title: "This transfer coding is not supported",
            cause: "The body of the request comes in a transfer coding other than chunked, the only one Rempart reads.",
            advice: "Send the body with Content-Length, or with chunked as its only transfer coding.",
            owner: "",
        },
        fr: Words {
            title: "Ce codage de transfert n’est pas pris en charge",
            cause: "Le corps de la requête utilise un codage de transfert autre que chunked, le seul que Rempart lise.",
            advice: "Envoyez le corps avec Content-Length, ou avec chunked comme seul codage de transfert.",
            owner: "",
        },
        de: Words {
            title: "Diese Transferkodierung wird nicht unterstützt",
            cause: "Der Inhalt der Anfrage kommt in einer anderen Transferkodierung als chunked, der einzigen, die Rempart liest.",
            advice: "Senden Sie den Inhalt mit Content-Length oder mit chunked als einziger Transferkodierung.",
            owner: "",
        },
    },
    Entry {
        reason: "version_not_supported",
        statuses: &[505],
        fault: Visitor,
        en: Words {
            title: "This version of HTTP is not supported",
            cause: "The request names a version of HTTP that Rempart does not speak here.",
            advice: "Use HTTP/1.1 or HTTP/2. A current browser does so by itself.",
            owner: "",
        },
        fr: Words {
            title: "Cette version de HTTP n’est pas prise en charge",
            cause: "La requête annonce une version de HTTP que Rempart ne parle pas ici.",
            advice: "Utilisez HTTP/1.1 ou HTTP/2. Un navigateur récent le fait de lui-même.",
            owner: "",
        },
        de: Words {
            title: "Diese HTTP-Version wird nicht unterstützt",
            cause: "Die Anfrage nennt eine HTTP-Version, die Rempart hier nicht spricht.",
            advice: "Verwenden Sie HTTP/1.1 oder HTTP/2. Ein aktueller Browser tut das von selbst.",
            owner: "",
        },
    },
];
