//! Encryption between visitors and a site: where its certificate comes from, and what is asked of its visitors.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::Judge;
use super::acme::Wanted;
use super::certificate::Pair;
use crate::desired;
use crate::diagnostic::quote;
use crate::generation::{Certificate, ClientAuth, HostPattern, HostTable, Listener, SiteTls, TlsPolicy};

/// Shortest `max-age` with which a host is taken onto the list that browsers are shipped with (hstspreload.org).
const PRELOAD_AGE: Duration = Duration::from_secs(31_536_000);

/// Ways in, as far as encryption depends on them.
#[derive(Clone, Copy)]
pub(super) struct Entrances {
    /// Whether there is no listener with TLS although there are listeners.
    without_tls: bool,
    /// Whether there is a listener without TLS.
    plain: bool,
    /// Whether a proxy in front may do TLS instead.
    trusted_proxies: bool,
}

impl Entrances {
    pub fn new(listeners: &[Listener], trust: &desired::Trust) -> Self {
        Self {
            without_tls: !listeners.is_empty() && listeners.iter().all(|listener| !listener.tls),
            plain: listeners.iter().any(|listener| !listener.tls),
            trusted_proxies: !trust.proxies.is_empty(),
        }
    }
}

impl Judge<'_> {
    /// Where the certificate of a site comes from.
    pub(super) fn certificate(
        &mut self,
        site: &desired::Site,
        index: usize,
        hosts: &[HostPattern],
        wanted: Wanted,
        table: &HostTable,
        entrances: Entrances,
    ) -> Certificate {
        let Some(tls) = &site.tls else {
            return Certificate::Development;
        };
        let place = format!("site[{index}].tls");
        if entrances.without_tls && (tls.acme || tls.certificate.is_some()) {
            self.review.warning(
                &place,
                "certificate-unused",
                "this certificate is never used: no listener has TLS",
                "listen on port 443, or write `tls = true` in a [[listen]]",
            );
        }
        if tls.ocsp.is_some() && tls.certificate.is_none() {
            self.review.error(
                &format!("{place}.ocsp"),
                "conflicting-options",
                "an OCSP response goes with a certificate, and none is given here",
                "add `certificate` and `key`, or remove `ocsp`",
            );
        }
        if tls.acme && (tls.certificate.is_some() || tls.key.is_some()) {
            self.review.error(
                &format!("{place}.acme"),
                "conflicting-options",
                "a certificate is given here, and an authority is to be asked for one",
                "remove `acme = true`, or remove `certificate` and `key`",
            );
            return Certificate::Development;
        }
        if tls.acme {
            return self.issued(index, wanted, table);
        }
        let (certificate, key) = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => return Certificate::Development,
            (Some(_), None) => {
                let hint = "add `key = \"tls/key.pem\"`";
                self.review.error(&format!("{place}.key"), "missing-key", "`key` is missing here", hint);
                return Certificate::Development;
            }
            (None, Some(_)) => {
                let hint = "add `certificate = \"tls/certificate.pem\"`";
                let message = "`certificate` is missing here";
                self.review.error(&format!("{place}.certificate"), "missing-key", message, hint);
                return Certificate::Development;
            }
        };
        self.given(Pair { certificate, key }, tls.ocsp.as_deref(), &place, hosts)
    }

    /// A certificate given as files.
    fn given(
        &mut self,
        pair: Pair<'_>,
        ocsp: Option<&str>,
        place: &str,
        hosts: &[HostPattern],
    ) -> Certificate {
        let certificate_place = format!("{place}.certificate");
        let chain = self.file(pair.certificate, &certificate_place);
        let key = self.file(pair.key, &format!("{place}.key"));
        self.certificate_pair(chain.as_deref(), key.as_deref(), pair, place, hosts);
        let ocsp = ocsp.and_then(|path| {
            let place = format!("{place}.ocsp");
            let response = self.file(path, &place)?;
            self.ocsp(&response, path, &place);
            Some(response)
        });
        match (chain, key) {
            (Some(chain), Some(key)) => Certificate::Pem { chain, key, ocsp, place: certificate_place },
            // One of the two is missing, which was reported: this generation is never served.
            _ => Certificate::Development,
        }
    }

    /// What is offered to visitors of a site, and asked of them.
    pub(super) fn site_tls(&mut self, site: &desired::Site, place: &str, entrances: Entrances) -> SiteTls {
        let default = desired::SiteTls::default();
        let tls = site.tls.as_ref().unwrap_or(&default);
        let place = format!("{place}.tls");
        // Behind a proxy that does TLS, its word for the visitor's scheme counts: a redirect leads there.
        if tls.redirect && entrances.without_tls && !entrances.trusted_proxies {
            self.review.error(
                &format!("{place}.redirect"),
                "redirect-to-nowhere",
                "visitors would be sent to https, where nobody listens: no listener has TLS",
                "listen on port 443, or write `tls = true` in a [[listen]]; or remove `redirect`",
            );
        }
        SiteTls {
            policy: match tls.policy {
                desired::TlsPolicy::Intermediate => TlsPolicy::Intermediate,
                desired::TlsPolicy::Modern => TlsPolicy::Modern,
            },
            client: tls.client.as_ref().and_then(|client| self.client(client, &place, entrances)),
            redirect: tls.redirect,
            hsts: tls.hsts.as_ref().map(|hsts| self.hsts(hsts, tls.redirect, &place, entrances)),
        }
    }

    fn client(
        &mut self,
        client: &desired::SiteClient,
        place: &str,
        entrances: Entrances,
    ) -> Option<ClientAuth> {
        let place = format!("{place}.client");
        if client.required && entrances.without_tls {
            self.review.error(
                &place,
                "client-certificates-impossible",
                "nobody could show a certificate, so everybody would be turned away: no listener has TLS",
                "listen on port 443, or write `tls = true` in a [[listen]]",
            );
        }
        let place = format!("{place}.authorities");
        let authorities = self.file(&client.authorities, &place)?;
        self.authorities(&authorities, &client.authorities, &place);
        Some(ClientAuth { authorities, required: client.required, place })
    }

    /// The value of `Strict-Transport-Security` (RFC 6797 section 6.1).
    fn hsts(&mut self, hsts: &desired::Hsts, redirect: bool, place: &str, entrances: Entrances) -> Arc<str> {
        let place = format!("{place}.hsts");
        if entrances.without_tls && !entrances.trusted_proxies {
            self.review.warning(
                &place,
                "hsts-unused",
                "this is never told to anybody: it goes with https only, and no listener has TLS",
                "listen on port 443, or write `tls = true` in a [[listen]]",
            );
        }
        let max_age = Duration::from(hsts.max_age);
        let preload_place = format!("{place}.preload");
        if hsts.preload && (!hsts.include_subdomains || max_age < PRELOAD_AGE) {
            self.review.error(
                &preload_place,
                "hsts-preload",
                "browsers do not take this site onto their list: that needs every subdomain and at least a year",
                "add include_subdomains = true and max_age = \"365d\", or remove `preload`",
            );
        } else if hsts.preload && !redirect && entrances.plain {
            self.review.warning(
                &preload_place,
                "hsts-preload",
                "browsers take a site onto their list only if it redirects plain HTTP to https",
                "add `redirect = true` in [site.tls]",
            );
        }
        // A part of a second must not become the 0 that makes browsers forget.
        let seconds = max_age.as_secs() + u64::from(max_age.subsec_nanos() > 0);
        let mut value = String::from("max-age=");
        // Writing to a `String` cannot fail.
        let _written = write!(value, "{seconds}");
        if hsts.include_subdomains {
            value.push_str("; includeSubDomains");
        }
        if hsts.preload {
            value.push_str("; preload");
        }
        value.into()
    }

    /// Looks at an OCSP response: whether it is one, and whether it has an answer in it (RFC 6960 section 4.2.1).
    fn ocsp(&mut self, bytes: &[u8], path: &str, place: &str) {
        let (message, hint) = match ocsp_status(bytes) {
            Some(0) => return,
            Some(status) => (
                format!(
                    "{} holds an answer without content: the responder said no (status {status})",
                    quote(path)
                ),
                "ask the responder again",
            ),
            None if bytes.starts_with(b"-----BEGIN") => (
                format!("{} is PEM, and an OCSP response is DER", quote(path)),
                "name the file as it was fetched",
            ),
            None => (
                format!("{} is no OCSP response", quote(path)),
                "fetch one: openssl ocsp -issuer intermediate.pem -cert certificate.pem -url URL -respout ocsp.der",
            ),
        };
        self.review.error(place, "bad-ocsp", message, hint);
    }
}

/// The `responseStatus` of an OCSP response; `None` when it is no DER sequence of exactly this length that begins with one.
fn ocsp_status(bytes: &[u8]) -> Option<u8> {
    let [0x30, first, rest @ ..] = bytes else { return None };
    let (length, content) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, content) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), content)
        }
        _ => return None,
    };
    match content {
        [0x0a, 0x01, status, ..] if content.len() == length => Some(*status),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_ocsp_response_is_found() {
        for (bytes, status) in [
            (&[0x30, 3, 0x0a, 1, 6][..], Some(6)),
            (&[0x30, 5, 0x0a, 1, 0, 0xa0, 0], Some(0)),
            (&[0x30, 0x81, 3, 0x0a, 1, 0], Some(0)),
            (&[0x30, 0x82, 0, 3, 0x0a, 1, 0], Some(0)),
            (&[0x30, 4, 0x0a, 1, 0], None),
            (&[0x30, 3, 0x02, 1, 0], None),
            (&[0x30, 0x80, 0x0a, 1, 0], None),
            (&[0x30, 0x84, 0], None),
            (&[0x30], None),
            (&[], None),
            (b"-----BEGIN", None),
        ] {
            assert_eq!(ocsp_status(bytes), status, "{bytes:x?}");
        }
    }
}
