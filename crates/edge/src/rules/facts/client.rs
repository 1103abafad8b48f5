//! What rules see of a visitor's connection: place, fingerprints, certificate, identifiers.

use std::cell::OnceCell;

use base::time::Timestamp;
use base64::Engine as _;
use expr::{Fetched, Value};

use super::{Facts, text};
use crate::forwarded::cloudflare::{DEFAULT_PLACE, ray};
use crate::tls::{ClientCertificate, HelloHashes, Version, hello_hashes};

/// What is worked out once of a connection.
#[derive(Default)]
pub struct ClientFacts {
    hello: OnceCell<Option<Box<HelloHashes>>>,
    texts: OnceCell<Box<Texts>>,
}

/// Texts made of numbers.
#[derive(Default)]
struct Texts {
    ray: OnceCell<String>,
    seed: OnceCell<[u8; 16]>,
    random: OnceCell<String>,
    metro: OnceCell<String>,
    latitude: OnceCell<String>,
    longitude: OnceCell<String>,
    not_before: OnceCell<String>,
    not_after: OnceCell<String>,
}

impl ClientFacts {
    fn texts(&self) -> &Texts {
        self.texts.get_or_init(Box::default)
    }
}

/// Text, or Unknown.
pub(super) fn known(found: Option<&str>) -> Fetched<'_> {
    found.map_or(Fetched::Unknown, |found| text(found.as_bytes()))
}

impl Facts<'_> {
    pub(super) fn ray(&self) -> Fetched<'_> {
        let Some(id) = &self.surroundings.id else { return Fetched::Unknown };
        text(self.client().texts().ray.get_or_init(|| ray(id, DEFAULT_PLACE)).as_bytes())
    }

    pub(super) fn seed(&self) -> Fetched<'_> {
        let Some(random) = self.surroundings.link.random() else { return Fetched::Unknown };
        let seed = self.client().texts().seed.get_or_init(|| {
            let mut seed = [0; 16];
            seed.iter_mut()
                .zip(random.into_iter().flat_map(u64::to_be_bytes))
                .for_each(|(to, from)| *to = from);
            seed
        });
        text(seed)
    }

    pub(super) fn latitude(&self) -> Fetched<'_> {
        let Some((degrees, _)) = self.lists.position(self.address()) else { return Fetched::Unknown };
        text(self.client().texts().latitude.get_or_init(|| degrees.to_string()).as_bytes())
    }

    pub(super) fn longitude(&self) -> Fetched<'_> {
        let Some((_, degrees)) = self.lists.position(self.address()) else { return Fetched::Unknown };
        text(self.client().texts().longitude.get_or_init(|| degrees.to_string()).as_bytes())
    }

    pub(super) fn metro(&self) -> Fetched<'_> {
        let Some(code) = self.lists.metro_code(self.address()) else { return Fetched::Unknown };
        text(self.client().texts().metro.get_or_init(|| code.to_string()).as_bytes())
    }

    /// `TLSv1.3`; empty without TLS.
    pub(super) fn tls_version(&self) -> Fetched<'_> {
        let version = self.surroundings.link.tls().map(|tls| tls.version);
        text(match version {
            Some(Version::Tls12) => b"TLSv1.2",
            Some(Version::Tls13) => b"TLSv1.3",
            None => b"",
        })
    }

    /// As BoringSSL calls it, for so Cloudflare's rules do; empty without TLS.
    pub(super) fn tls_cipher(&self) -> Fetched<'_> {
        text(self.surroundings.link.tls().map_or("", |tls| boringssl_name(tls.cipher)).as_bytes())
    }

    /// What is computed of the ClientHello. Without TLS there is none; one that cannot be read is Unknown.
    fn hello<'f>(
        &'f self,
        read: impl FnOnce(&'f HelloHashes) -> Fetched<'f>,
        none: Fetched<'f>,
    ) -> Fetched<'f> {
        let link = self.surroundings.link;
        if link.tls().is_none() {
            return none;
        }
        let hashes = self.client().hello.get_or_init(|| link.hello().and_then(hello_hashes).map(Box::new));
        hashes.as_deref().map_or(Fetched::Unknown, read)
    }

    pub(super) fn hello_text(&self, read: fn(&HelloHashes) -> &str) -> Fetched<'_> {
        self.hello(|hashes| text(read(hashes).as_bytes()), text(b""))
    }

    pub(super) fn hello_length(&self) -> Fetched<'_> {
        let Some(hello) = self.surroundings.link.hello() else {
            let plain = self.surroundings.link.tls().is_none();
            return if plain { Fetched::Value(Value::Int(0)) } else { Fetched::Unknown };
        };
        i64::try_from(hello.raw.len()).map_or(Fetched::Unknown, |length| Fetched::Value(Value::Int(length)))
    }

    pub(super) fn hello_random(&self) -> Fetched<'_> {
        let Some(hello) = self.surroundings.link.hello() else {
            let plain = self.surroundings.link.tls().is_none();
            return if plain { text(b"") } else { Fetched::Unknown };
        };
        let Some(view) = hello.view() else { return Fetched::Unknown };
        let encode = || base64::engine::general_purpose::STANDARD.encode(view.random);
        text(self.client().texts().random.get_or_init(encode).as_bytes())
    }

    pub(super) fn ja4(&self) -> Fetched<'_> {
        let link = self.surroundings.link;
        if link.tls().is_none() {
            return text(b"");
        }
        link.ja4().map_or(Fetched::Unknown, |ja4| text(ja4.as_str().as_bytes()))
    }

    /// The visitor's certificate, if this site asks for one and its own authorities have signed it.
    pub(super) fn certificate(&self) -> Option<&ClientCertificate> {
        let wanted = self.surroundings.site.site.tls.client.as_ref()?;
        let tls = self.surroundings.link.tls()?;
        tls.certificate_for(wanted).map(|certificate| &**certificate)
    }

    pub(super) fn certificate_text(&self, read: fn(&ClientCertificate) -> &str) -> Fetched<'_> {
        text(self.certificate().map(read).unwrap_or_default().as_bytes())
    }

    pub(super) fn not_before(&self) -> Fetched<'_> {
        let date = || self.certificate().map(|found| openssl_date(found.not_before)).unwrap_or_default();
        text(self.client().texts().not_before.get_or_init(date).as_bytes())
    }

    pub(super) fn not_after(&self) -> Fetched<'_> {
        let date = || self.certificate().map(|found| openssl_date(found.not_after)).unwrap_or_default();
        text(self.client().texts().not_after.get_or_init(date).as_bytes())
    }
}

/// BoringSSL's name for a cipher suite with this name at IANA; those of this edge are all here.
fn boringssl_name(cipher: &str) -> &str {
    match cipher {
        "TLS_AES_128_GCM_SHA256" => "AEAD-AES128-GCM-SHA256",
        "TLS_AES_256_GCM_SHA384" => "AEAD-AES256-GCM-SHA384",
        "TLS_CHACHA20_POLY1305_SHA256" => "AEAD-CHACHA20-POLY1305-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256" => "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384" => "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" => "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384" => "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256" => "ECDHE-RSA-CHACHA20-POLY1305",
        other => other,
    }
}

/// `Dec 22 19:39:00 2018 GMT`, as OpenSSL prints dates of certificates.
fn openssl_date(at: Timestamp) -> String {
    let at = i64::try_from(at.seconds()).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map(|at| at.strftime("%b %e %H:%M:%S %Y GMT").to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cipher_suite_has_its_name() {
        for suite in &crate::tls::provider().cipher_suites {
            let name = crate::tls::accept::cipher_name(suite.suite());
            assert_ne!(boringssl_name(name), name, "{name}");
        }
    }
}
