//! Certificates from an authority: which names are wanted for which site, of whom, and how control over them is shown.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::host;
use super::site::pattern;
use super::{Judge, origin};
use crate::desired::{self, Desired};
use crate::diagnostic::quote;
use crate::generation::{Acme, AcmeAuthority, AcmeChallenge, Certificate, HostPattern, HostTable, Listener};
use crate::source::{ISSUED, Unreadable};

/// Authorities that have a short name, and the URLs of their directories.
const KNOWN_AUTHORITIES: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];
/// Octets of a directory's URL.
const URL_OCTETS: usize = 2_000;

/// What one site wants of an authority.
#[derive(Default)]
pub(super) struct Wanted {
    /// One certificate each.
    names: Vec<Arc<str>>,
    /// Those of `acme.on_demand` that fall within the hosts of this site.
    on_demand: Vec<HostPattern>,
}

/// What all sites want of authorities.
pub(super) struct AcmePlan {
    /// For the keeper of certificates; `None` when no site asks for any.
    pub settings: Option<Acme>,
    /// In the order of the sites.
    pub sites: Vec<Wanted>,
}

/// The hosts of all sites, as `acme` needs them.
pub(super) struct SiteHosts<'a> {
    /// In the order of the sites.
    pub patterns: &'a [Vec<HostPattern>],
    /// Host name to site.
    pub table: &'a HostTable,
    /// Where each is written.
    pub places: &'a HashMap<HostPattern, String>,
}

/// Whether a site asks an authority for its certificates.
fn asks(site: &desired::Site) -> bool {
    site.tls.as_ref().is_some_and(|tls| tls.acme)
}

/// The name of the certificate that is wanted for a host, unless there can be none ahead of a visit.
fn certificate_name(host: &HostPattern, challenge: desired::AcmeChallenge) -> Option<Arc<str>> {
    match host {
        HostPattern::Exact(name) if name.parse::<IpAddr>().is_err() => Some(name.clone()),
        HostPattern::Suffix(_) if challenge == desired::AcmeChallenge::Dns01 => Some(host.to_string().into()),
        HostPattern::Exact(_) | HostPattern::Suffix(_) | HostPattern::Any => None,
    }
}

/// Virtual path and place of every certificate that sites want ahead of a visit.
pub(super) fn wanted_files(desired: &Desired) -> impl Iterator<Item = (String, String)> {
    let sites = desired.site.iter().enumerate().filter(|(_, site)| asks(site));
    sites.flat_map(|(index, site)| {
        let names = site.hosts.iter().filter_map(|text| pattern(text).ok());
        let names = names.filter_map(|host| certificate_name(&host, desired.acme.challenge));
        names.map(move |name| (format!("{ISSUED}{name}"), format!("site[{index}].tls.acme")))
    })
}

/// Whether every name that `inner` stands for is one that `outer` stands for.
fn falls_within(inner: &HostPattern, outer: &HostPattern) -> bool {
    let below =
        |name: &str, parent: &str| name.strip_suffix(parent).is_some_and(|front| front.ends_with('.'));
    match (inner, outer) {
        (_, HostPattern::Any) => true,
        (HostPattern::Any, _) | (HostPattern::Suffix(_), HostPattern::Exact(_)) => false,
        (HostPattern::Exact(name), HostPattern::Exact(other)) => name == other,
        (HostPattern::Exact(name), HostPattern::Suffix(parent)) => below(name, parent),
        (HostPattern::Suffix(name), HostPattern::Suffix(parent)) => name == parent || below(name, parent),
    }
}

impl Judge<'_> {
    /// Judges `[acme]` and everything sites want of it.
    pub(super) fn acme(
        &mut self,
        desired: &Desired,
        hosts: &SiteHosts<'_>,
        listeners: &[Listener],
    ) -> AcmePlan {
        let acme = &desired.acme;
        let challenge = self.challenge(acme);
        let authorities = self.authority_list(acme);
        let contact = self.contacts(acme);
        let mut sites: Vec<Wanted> = desired.site.iter().map(|_| Wanted::default()).collect();
        let Some(first) = desired.site.iter().position(asks) else {
            if self.review.places.contains("acme") {
                self.review.warning(
                    "acme",
                    "acme-unused",
                    "this has no effect: no site asks for certificates of an authority",
                    "write `acme = true` in a [site.tls]",
                );
            }
            return AcmePlan { settings: None, sites };
        };
        if !acme.agree_to_terms {
            let written = self.review.places.contains("acme");
            let place = if written { "acme.agree_to_terms" } else { &format!("site[{first}].tls.acme") };
            self.review.error(
                place,
                "acme-terms",
                "no certificate can be asked for before you agree to the terms of the authority",
                "read them (those of Let's Encrypt: https://letsencrypt.org/repository/; others name theirs in the \
                 directory, as `termsOfService`) and write in [acme]: agree_to_terms = true",
            );
        }
        let on_demand = self.on_demand(desired, hosts, &mut sites);
        for (index, wanted) in
            sites.iter_mut().enumerate().filter(|(index, _)| desired.site.get(*index).is_some_and(asks))
        {
            self.names(hosts.patterns.get(index).map_or(&[], Vec::as_slice), acme.challenge, hosts, wanted);
        }
        self.reachable(&challenge, listeners);
        let names = sites.iter().flat_map(|wanted| wanted.names.iter().cloned()).collect();
        AcmePlan { settings: Some(Acme { contact, authorities, challenge, names, on_demand }), sites }
    }

    /// The names of one site, and what stands in the way of the others.
    fn names(
        &mut self,
        patterns: &[HostPattern],
        challenge: desired::AcmeChallenge,
        hosts: &SiteHosts<'_>,
        wanted: &mut Wanted,
    ) {
        for host in patterns {
            if let Some(name) = certificate_name(host, challenge) {
                wanted.names.push(name);
                continue;
            }
            if wanted.on_demand.iter().any(|pattern| falls_within(pattern, host)) {
                continue;
            }
            let (message, hint) = match host {
                HostPattern::Exact(address) => (
                    format!("no authority is asked for a certificate of an address, such as {address}"),
                    "give the address a [[site]] of its own, with a `certificate` and `key` or without [site.tls]",
                ),
                HostPattern::Suffix(_) => (
                    format!(
                        "a certificate for {} is only issued with the challenge dns-01",
                        quote(&host.to_string())
                    ),
                    "in [acme], write challenge = \"dns-01\" and a dns_command, or list hosts in on_demand; or name \
                     each host here",
                ),
                HostPattern::Any => (
                    "no certificate is issued for every host there is".to_owned(),
                    "name the hosts here, or list them in on_demand in [acme]",
                ),
            };
            let place = hosts.places.get(host).map_or("site", String::as_str);
            self.review.error(place, "acme-host", message, hint);
        }
    }

    /// Reads `acme.on_demand`, and enters each at the site it falls into.
    fn on_demand(
        &mut self,
        desired: &Desired,
        hosts: &SiteHosts<'_>,
        sites: &mut [Wanted],
    ) -> Vec<HostPattern> {
        let mut seen = HashSet::new();
        let mut out = Vec::new();
        for (position, text) in desired.acme.on_demand.iter().enumerate() {
            let place = format!("acme.on_demand[{position}]");
            let pattern = match pattern(text) {
                Ok(pattern) => pattern,
                Err(error) => {
                    self.review.error(&place, "bad-host", error.message, error.hint);
                    continue;
                }
            };
            if let Some((message, hint)) = never_on_demand(&pattern) {
                self.review.error(&place, "acme-host", message, hint);
                continue;
            }
            // A wildcard is looked up as if `*` were a label: it is where the names below it go.
            let site = hosts.table.find(&pattern.to_string());
            let site = site.filter(|index| desired.site.get(*index).is_some_and(asks));
            let Some(index) = site else {
                let message = format!("no site with `acme = true` has the host {}", quote(text));
                let hint = "add it to the hosts of such a site, or remove it here";
                self.review.error(&place, "on-demand-without-site", message, hint);
                continue;
            };
            if hosts
                .patterns
                .get(index)
                .is_some_and(|own| matches!(pattern, HostPattern::Exact(_)) && own.contains(&pattern))
            {
                let message = format!(
                    "{} is a host of a site, so its certificate is there before anybody asks",
                    quote(text)
                );
                self.review.warning(&place, "on-demand-unneeded", message, "remove it here");
            } else if seen.insert(pattern.clone()) {
                if let Some(wanted) = sites.get_mut(index) {
                    wanted.on_demand.push(pattern.clone());
                }
                out.push(pattern);
            } else {
                self.review.warning(
                    &place,
                    "duplicate-host",
                    format!("{} is listed twice", quote(text)),
                    "remove one of the two",
                );
            }
        }
        out
    }

    fn challenge(&mut self, acme: &desired::Acme) -> AcmeChallenge {
        let place = "acme.dns_command";
        match (acme.challenge, acme.dns_command.first()) {
            (desired::AcmeChallenge::Dns01, None) => self.review.error(
                "acme.challenge",
                "dns-command-missing",
                "the challenge dns-01 needs a program that publishes a TXT record",
                "add: dns_command = [\"/usr/local/bin/dns-hook\"]",
            ),
            (desired::AcmeChallenge::Dns01, Some(program)) => {
                if !program.starts_with('/') {
                    let message = format!("{} is no absolute path", quote(program));
                    let hint =
                        "name the program with its whole path: dns_command = [\"/usr/local/bin/dns-hook\"]";
                    self.review.error(&format!("{place}[0]"), "bad-path", message, hint);
                }
                for (position, word) in acme.dns_command.iter().enumerate() {
                    if word.contains('\0') {
                        let message = format!("{} holds a NUL", quote(word));
                        self.review.error(
                            &format!("{place}[{position}]"),
                            "bad-path",
                            message,
                            "write it without",
                        );
                    }
                }
            }
            (_, Some(_)) => self.review.error(
                place,
                "conflicting-options",
                "this program is for the challenge dns-01, which is not the one in use",
                "write challenge = \"dns-01\", or remove dns_command",
            ),
            (_, None) => {}
        }
        match acme.challenge {
            desired::AcmeChallenge::Http01 => AcmeChallenge::Http01,
            desired::AcmeChallenge::TlsAlpn01 => AcmeChallenge::TlsAlpn01,
            desired::AcmeChallenge::Dns01 => AcmeChallenge::Dns01(acme.dns_command.clone()),
        }
    }

    /// Whether an authority finds the challenge where it looks for it: RFC 8555 section 8.3, RFC 8737 section 3.
    fn reachable(&mut self, challenge: &AcmeChallenge, listeners: &[Listener]) {
        let (port, tls, what, hint) = match challenge {
            AcmeChallenge::Http01 => (80, false, "without TLS", "add: [[listen]] address = \":80\""),
            AcmeChallenge::TlsAlpn01 => (443, true, "with TLS", "add: [[listen]] address = \":443\""),
            AcmeChallenge::Dns01(_) => return,
        };
        let there = |listener: &Listener| listener.address.port() == port && listener.tls == tls;
        if !listeners.is_empty() && !listeners.iter().any(there) {
            self.review.warning(
                "acme.challenge",
                "challenge-unreachable",
                format!("the authority will ask on port {port}, where no listener {what} is"),
                format!("{hint}; or forward port {port} to a listener {what}, and leave this as it is"),
            );
        }
    }

    fn contacts(&mut self, acme: &desired::Acme) -> Vec<String> {
        let mut out = Vec::new();
        for (position, text) in acme.contact.iter().enumerate() {
            match contact(text) {
                Some(contact) => out.push(contact),
                None => self.review.error(
                    &format!("acme.contact[{position}]"),
                    "bad-contact",
                    format!("{} is no mail address", quote(text)),
                    "write one address: \"ops@example.org\"",
                ),
            }
        }
        out
    }

    fn authority_list(&mut self, acme: &desired::Acme) -> Vec<AcmeAuthority> {
        if acme.authority.is_empty() {
            self.review.error(
                "acme.authority",
                "no-authority",
                "there is no authority to ask",
                "remove this line for Let's Encrypt, or write [[acme.authority]] and a `directory` below",
            );
        }
        let mut out: Vec<AcmeAuthority> = Vec::new();
        for (index, authority) in acme.authority.iter().enumerate() {
            let place = format!("acme.authority[{index}]");
            let Some(authority) = self.acme_authority(authority, &place) else { continue };
            if out.iter().any(|other| other.directory == authority.directory) {
                self.review.error(
                    &format!("{place}.directory"),
                    "duplicate-authority",
                    format!("{} is an authority already", quote(&authority.directory)),
                    "remove one of the two",
                );
            }
            out.push(authority);
        }
        out
    }

    fn acme_authority(&mut self, authority: &desired::AcmeAuthority, place: &str) -> Option<AcmeAuthority> {
        let directory = match directory(&authority.directory) {
            Ok(directory) => Some(directory),
            Err(error) => {
                self.review.error(&format!("{place}.directory"), "bad-authority", error.message, error.hint);
                None
            }
        };
        if let Some(path) = &authority.roots {
            let place = format!("{place}.roots");
            if let Some(pem) = self.file(path, &place) {
                self.authorities(&pem, path, &place);
            }
        }
        let eab = match (&authority.eab_kid, &authority.eab_key) {
            (Some(kid), Some(path)) => {
                self.eab(kid, path, place);
                Some((kid.clone(), path.clone()))
            }
            (None, None) => None,
            (Some(_), None) => {
                let hint = "add: eab_key = \"eab.key\", the file with the key the authority gave with it";
                self.review.error(
                    &format!("{place}.eab_key"),
                    "missing-key",
                    "`eab_key` is missing here",
                    hint,
                );
                None
            }
            (None, Some(_)) => {
                let hint = "add: eab_kid = \"..\", the key id the authority gave with the key";
                self.review.error(
                    &format!("{place}.eab_kid"),
                    "missing-key",
                    "`eab_kid` is missing here",
                    hint,
                );
                None
            }
        };
        Some(AcmeAuthority { directory: directory?, roots: authority.roots.clone(), eab })
    }

    /// An external account binding: the key is a MAC key in base64url (RFC 8555 section 7.3.4).
    fn eab(&mut self, kid: &str, path: &str, place: &str) {
        if kid.is_empty() || kid.contains(char::is_control) {
            let message = format!("{} is no key id", quote(kid));
            let hint = "copy it from the authority's page about your account";
            self.review.error(&format!("{place}.eab_kid"), "bad-eab", message, hint);
        }
        let place = format!("{place}.eab_key");
        let Some(bytes) = self.file(path, &place) else { return };
        let key = bytes.trim_ascii();
        let unpadded = key.strip_suffix(b"==").or_else(|| key.strip_suffix(b"=")).unwrap_or(key);
        if !unpadded.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
            let message = format!("{} holds no key in base64url", quote(path));
            let hint =
                "put nothing but the key in it, as the authority gave it: letters, digits, `-` and `_`";
            self.review.error(&place, "bad-eab", message, hint);
        }
    }

    /// The certificates of a site with `acme = true`, as far as they have been issued.
    pub(super) fn issued(&mut self, index: usize, wanted: Wanted, table: &HostTable) -> Certificate {
        let place = format!("site[{index}].tls.acme");
        let Wanted { names, on_demand } = wanted;
        let names: Vec<_> = names
            .into_iter()
            .map(|name| {
                let issued = self.issued_file(&name, &place);
                (name, issued)
            })
            .collect();
        let asked: HashSet<&str> = names.iter().map(|(name, _)| &**name).collect();
        let tree = self.tree;
        let mut demanded = Vec::new();
        for name in tree.files().filter_map(|(path, _)| path.strip_prefix(ISSUED)) {
            let exact = HostPattern::Exact(name.into());
            let ours = !name.starts_with("*.")
                && !asked.contains(name)
                && table.find(name) == Some(index)
                && on_demand.iter().any(|pattern| falls_within(&exact, pattern));
            if ours && let Some(bytes) = self.issued_file(name, &place) {
                demanded.push((name.into(), bytes));
            }
        }
        Certificate::Acme { names, demanded, on_demand, place }
    }

    /// What has been issued for a name. What a machine wrote never stands in the way of a person: what cannot be used is
    /// told and left out.
    fn issued_file(&mut self, name: &str, place: &str) -> Option<Arc<[u8]>> {
        let content = self.tree.get(&format!("{ISSUED}{name}"));
        let problem = match content {
            Ok(bytes) => match self.issued_problem(&bytes, name, place) {
                None => return Some(bytes),
                Some(problem) => problem,
            },
            Err(Unreadable::NotFound) => return None,
            Err(reason) => reason.to_string(),
        };
        self.review.warning(
            place,
            "issued-unusable",
            format!("the certificate issued for {} cannot be used: {problem}", quote(name)),
            "it is asked for again; until then, visitors get one of the development authority",
        );
        None
    }
}

/// Why a pattern can never be asked for by a visitor, and the way out.
fn never_on_demand(pattern: &HostPattern) -> Option<(String, &'static str)> {
    match pattern {
        HostPattern::Any => Some((
            "with \"*\" here, anybody could have certificates of any name asked for, until the authority refuses more"
                .to_owned(),
            "list the hosts: on_demand = [\"shop.example\", \"*.shops.example\"]",
        )),
        HostPattern::Exact(name) if name.parse::<IpAddr>().is_ok() => {
            Some((format!("no authority is asked for a certificate of an address, such as {name}"), "remove it"))
        }
        HostPattern::Exact(_) | HostPattern::Suffix(_) => None,
    }
}

/// `mailto:` URL of a mail address, with or without the scheme; only one address, without header fields (RFC 8555
/// section 7.3).
fn contact(text: &str) -> Option<String> {
    let address = text.strip_prefix("mailto:").unwrap_or(text);
    let (local, domain) = address.rsplit_once('@')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$&'*+-/=^_`{|}~.".contains(c);
    let fine = !local.is_empty()
        && local.chars().all(plain)
        && matches!(host::parse(domain), Ok(host::Host::Name(_)));
    fine.then(|| format!("mailto:{address}"))
}

/// The URL of a directory, from a short name or as it is.
fn directory(text: &str) -> Result<String, host::BadHost> {
    if let Some((_, url)) = KNOWN_AUTHORITIES.iter().find(|(name, _)| *name == text) {
        return Ok((*url).to_owned());
    }
    let bad = |what: &str, hint: &str| {
        Err(host::BadHost { message: format!("{} {what}", quote(text)), hint: hint.to_owned() })
    };
    let form = "write \"letsencrypt\", or the whole URL: \"https://ca.example/acme/directory\"";
    let Some((scheme, rest)) = text.split_once("://") else {
        return bad("is neither a known authority nor a URL", form);
    };
    if !scheme.eq_ignore_ascii_case("https") {
        return bad("is not an https URL, which RFC 8555 demands", form);
    }
    if text.len() > URL_OCTETS || text.contains(|c: char| !c.is_ascii_graphic() || c == '#' || c == '"') {
        return bad("is no URL", form);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.contains('@') {
        // The message does not repeat what may be a password.
        let message = "the URL of an authority holds a user name or password".to_owned();
        return Err(host::BadHost { message, hint: form.to_owned() });
    }
    Ok(format!("https://{}{path}", origin::authority(authority)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_falls_within_another() {
        for (inner, outer, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "*.example", true),
            ("a.b.example", "*.example", true),
            ("example", "*.example", false),
            ("xexample", "*.example", false),
            ("*.a.example", "*.example", true),
            ("*.example", "*.example", true),
            ("*.example", "a.example", false),
            ("*.example", "*", true),
            ("*", "*.example", false),
        ] {
            let (inner, outer) = (pattern(inner).unwrap(), pattern(outer).unwrap());
            assert_eq!(falls_within(&inner, &outer), expected, "{inner} in {outer}");
        }
    }

    #[test]
    fn contacts_become_mailto_urls() {
        for (written, meant) in [
            ("ops@example.org", Some("mailto:ops@example.org")),
            ("mailto:ops+tls@example.org", Some("mailto:ops+tls@example.org")),
            ("ops", None),
            ("@example.org", None),
            ("ops@", None),
            ("ops@192.0.2.1", None),
            ("a@example.org,b@example.org", None),
            ("a@example.org?subject=x", None),
            ("tel:+1234", None),
            ("", None),
        ] {
            assert_eq!(contact(written).as_deref(), meant, "{written}");
        }
    }

    #[test]
    fn directories_are_named_or_urls() {
        for (written, meant) in [
            ("letsencrypt", Some("https://acme-v02.api.letsencrypt.org/directory")),
            ("letsencrypt-staging", Some("https://acme-staging-v02.api.letsencrypt.org/directory")),
            ("https://localhost:14000/dir", Some("https://localhost:14000/dir")),
            ("HTTPS://CA.example", Some("https://ca.example")),
            ("https://[::1]:14000/dir?x=1", Some("https://[::1]:14000/dir?x=1")),
            ("http://ca.example/dir", None),
            ("lets-encrypt", None),
            ("https://", None),
            ("https://a:b@ca.example/", None),
            ("https://ca.example/a b", None),
            ("https://ca.example/#a", None),
            ("https://ca.example:port/", None),
        ] {
            assert_eq!(directory(written).ok().as_deref(), meant, "{written}");
        }
    }
}
