//! Stapled OCSP responses: made and read by OpenSSL, and left out or refused when they are no good.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use base::time::Timestamp;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use snapshot::generation::Certificate;
use tokio::io::AsyncReadExt;

use super::fixture::*;
use crate::tls::certificates::ocsp::{OcspError, Response, Unfit};
use crate::tls::{Certificates, LoadError, ServerTls, accept, provider};

fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// An authority with one certificate and its answers about it, all made by OpenSSL.
struct Authority {
    folder: tempfile::TempDir,
    chain: String,
    key: String,
    serial: String,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let make = |arguments: &[&str]| openssl(at, &[&["req"][..], &key, arguments].concat());
        make(&["-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ocsp authority", "-days", "30"]);
        make(&["-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=a.example"]);
        std::fs::write(at.join("extensions"), "subjectAltName=DNS:a.example\n").unwrap();
        openssl(
            at,
            &[
                "x509",
                "-req",
                "-in",
                "leaf.csr",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "20",
                "-extfile",
                "extensions",
                "-out",
                "leaf.pem",
            ],
        );
        let read = |file: &str| std::fs::read_to_string(at.join(file)).unwrap();
        let serial =
            String::from_utf8(openssl(at, &["x509", "-noout", "-serial", "-in", "leaf.pem"])).unwrap();
        let serial = serial.trim().strip_prefix("serial=").unwrap().to_owned();
        let (chain, key) = (read("leaf.pem"), read("leaf.key"));
        Self { chain, key, serial, folder }
    }

    /// What the authority answers while its book says this of the certificate; `more` are options of `openssl ocsp`.
    fn response(&self, entry: &str, more: &[&str]) -> Vec<u8> {
        let at = self.folder.path();
        std::fs::write(at.join("index.txt"), entry.replace("SERIAL", &self.serial)).unwrap();
        let fixed = [
            "ocsp",
            "-index",
            "index.txt",
            "-CA",
            "ca.pem",
            "-rsigner",
            "ca.pem",
            "-rkey",
            "ca.key",
            "-issuer",
            "ca.pem",
            "-cert",
            "leaf.pem",
            "-respout",
            "response.der",
            "-noverify",
        ];
        openssl(at, &[&fixed[..], more].concat());
        std::fs::read(at.join("response.der")).unwrap()
    }

    fn good(&self) -> Vec<u8> {
        self.response("V\t391231235959Z\t\tSERIAL\tunknown\t/CN=a.example\n", &["-ndays", "2"])
    }

    fn load(&self, response: &[u8]) -> Result<Arc<Certificates>, Vec<LoadError>> {
        load_with(&self.chain, &self.key, response)
    }
}

fn load_with(chain: &str, key: &str, response: &[u8]) -> Result<Arc<Certificates>, Vec<LoadError>> {
    let certificate = Certificate::Pem {
        chain: chain.as_bytes().into(),
        key: key.as_bytes().into(),
        ocsp: Some(response.into()),
        place: "site[0].tls.certificate".to_owned(),
    };
    load(&generation(vec![site(0, &["a.example"], certificate)]), None)
}

/// Accepts any certificate, but only with exactly this staple.
#[derive(Debug)]
struct Stapled(Vec<u8>);

impl ServerCertVerifier for Stapled {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if ocsp == self.0 {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(format!("{} bytes of staple", ocsp.len())))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

async fn is_shown(certificates: Arc<Certificates>, staple: &[u8]) -> bool {
    let server = ServerTls::new().unwrap().settings(certificates).unwrap();
    let mut shown = Vec::new();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = ClientConfig::builder_with_provider(provider().clone())
            .with_protocol_versions(&[version])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Stapled(staple.to_vec())))
            .with_no_client_auth();
        shown.push(join(&Arc::new(config), "a.example", &server).await.0.is_ok());
    }
    assert_eq!(shown[0], shown[1], "TLS 1.3 and 1.2 differ");
    shown[0]
}

#[tokio::test]
async fn a_good_response_is_shown_until_it_ends() {
    let authority = Authority::new();
    let response = authority.good();
    let certificates = authority.load(&response).unwrap();
    assert!(certificates.warnings().is_empty(), "{:?}", certificates.warnings());
    assert!(is_shown(certificates.clone(), &response).await);
    let stapled = |now: Timestamp| certificates.choose(Some("a.example"), || now).unwrap().ocsp.is_some();
    assert!(stapled(now()) && stapled(now().plus(DAY)));
    assert!(!stapled(now().plus(DAY * 2)), "without one a visitor goes on, with an old one it may not");
    let codes = |now: Timestamp| -> Vec<_> {
        certificates
            .warnings_at(now)
            .iter()
            .map(|warning| warning.code)
            .filter(|code| code.starts_with("ocsp"))
            .collect()
    };
    assert!(codes(now()).is_empty());
    assert_eq!(codes(now().plus(DAY * 2)), ["ocsp-expired"]);
    // Without a nextUpdate there is no end.
    let endless = authority.response("V\t391231235959Z\t\tSERIAL\tunknown\t/CN=a.example\n", &[]);
    let certificates = authority.load(&endless).unwrap();
    assert!(certificates.choose(None, || now().plus(DAY * 300)).unwrap().ocsp.is_some());
}

#[tokio::test]
async fn openssl_reads_what_is_stapled() {
    let authority = Authority::new();
    let server = ServerTls::new().unwrap().settings(authority.load(&authority.good()).unwrap()).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = authority.folder.path().to_owned();
    let run = tokio::task::spawn_blocking(move || {
        let arguments =
            ["s_client", "-connect", &address, "-servername", "a.example", "-status", "-CAfile", "ca.pem"];
        Command::new("openssl")
            .args(arguments)
            .current_dir(folder)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap()
    });
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut accepted = accept(stream, &server).await.unwrap();
        // Until the client, whose input is at its end, leaves.
        crate::ignore(accepted.stream.read_to_end(&mut Vec::new()).await);
    };
    let (output, ()) = tokio::join!(run, serve);
    let text = String::from_utf8_lossy(&output.as_ref().unwrap().stdout).into_owned();
    assert!(
        text.contains("OCSP Response Status: successful") && text.contains("Cert Status: good"),
        "{text}"
    );
    assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
}

#[tokio::test]
async fn an_unfit_response_is_left_out_and_said() {
    let authority = Authority::new();
    let other = self_signed(&["a.example"], -1, 30);
    let good = authority.good();
    let left_out = |loaded: Result<Arc<Certificates>, Vec<LoadError>>| {
        let certificates = loaded.unwrap();
        let warnings = certificates.warnings();
        assert_eq!((warnings.len(), warnings[0].code), (1, "ocsp-unfit"));
        assert_eq!(warnings[0].place, "site[0].tls.ocsp");
        (certificates.clone(), warnings[0].message.clone())
    };
    let (certificates, message) = left_out(load_with(&other.0, &other.1, &good));
    assert!(message.ends_with(&Unfit::Other.to_string()), "{message}");
    assert!(is_shown(certificates, b"").await);
    let revoked =
        authority.response("R\t391231235959Z\t250101000000Z\tSERIAL\tunknown\t/CN=a.example\n", &[]);
    assert!(left_out(authority.load(&revoked)).1.ends_with(&Unfit::Revoked.to_string()));
    let unknown = authority.response("", &[]);
    assert!(left_out(authority.load(&unknown)).1.ends_with(&Unfit::Unknown.to_string()));

    let serial: Vec<u8> = (0..authority.serial.len() / 2)
        .map(|index| u8::from_str_radix(&authority.serial[2 * index..2 * index + 2], 16).unwrap())
        .collect();
    // DER writes a number whose high bit is set with a zero in front.
    let serial = if serial[0] & 0x80 == 0 { serial } else { [&[0][..], &serial].concat() };
    let read = Response::read(&good).unwrap();
    let until = read.fit_until(&serial, now()).unwrap().unwrap();
    assert_eq!(read.fit_until(&serial, until), Err(Unfit::Expired));
    assert_eq!(read.fit_until(&serial, ago(DAY)), Err(Unfit::NotYetValid));
    assert_eq!(read.fit_until(&serial[1..], now()), Err(Unfit::Other));
}

#[test]
fn what_is_no_response_is_refused_and_no_byte_of_one_can_do_harm() {
    let authority = Authority::new();
    let good = authority.good();
    for (bytes, expected) in [
        (&b""[..], OcspError::Malformed),
        (b"-----BEGIN OCSP RESPONSE-----", OcspError::Malformed),
        (b"\x30\x03\x0a\x01\x00", OcspError::Malformed),
        (b"\x30\x03\x0a\x01\x03", OcspError::Unsuccessful("tryLater")),
        (b"\x30\x03\x0a\x01\x06", OcspError::Unsuccessful("unauthorized")),
        (b"\x30\x03\x0a\x01\x09", OcspError::Malformed),
        (b"\x30\x80\x0a\x01\x00\x00\x00", OcspError::Malformed),
        (b"\x30\x84\xff\xff\xff\xff", OcspError::Malformed),
        (&[0x30; 70_000], OcspError::TooLarge(70_000)),
    ] {
        assert_eq!(Response::read(bytes).unwrap_err(), expected);
        let errors = authority.load(bytes).unwrap_err();
        assert_eq!((errors[0].code, &*errors[0].place), ("ocsp-unreadable", "site[0].tls.ocsp"));
    }
    assert!(Response::read(&good).is_ok());
    assert!(Response::read(&[&good[..], b"\0"].concat()).is_err(), "something follows");
    for position in 0..good.len() {
        assert!(Response::read(&good[..position]).is_err(), "cut at {position}");
        for value in [0, 1, 0x30, 0x7f, 0x80, 0x82, 0xff] {
            let mut altered = good.clone();
            altered[position] = value;
            // Whatever comes out, it comes out.
            if let Ok(read) = Response::read(&altered) {
                crate::ignore(read.fit_until(&[1], now()));
            }
        }
    }
}
