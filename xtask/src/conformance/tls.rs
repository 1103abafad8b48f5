//! sslyze against Mozilla's intermediate recommendation: Rempart, nginx as it is configured for the benchmark, and a control
//! that takes whatever its library still has.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Score, rempart};
use crate::peers::{Name, Origin, Place, Server};
use crate::shell::{Background, succeed};
use crate::{ports, setup};

/// The edition that judges; it brings Mozilla's recommendation along.
const PACKAGE: &str = "sslyze==6.3.1";

/// Runs it against the three targets.
pub fn run(place: &Place) -> Result<Vec<Score>> {
    let program = setup::pypi_program(place.workspace, PACKAGE)?;
    certificate(place)?;
    let origin = Origin::start(place)?;
    let server = rempart(place, origin.port)?;
    let mut scores = vec![score(place, &program, server.name.shown(), server.tls_port)?];
    drop(server);
    let nginx = Server::start(place, Name::Nginx, origin.port)?;
    scores.push(score(place, &program, nginx.name.shown(), nginx.tls_port)?);
    drop(nginx);
    let (_lax, port) = lax(place)?;
    let control = score(place, &program, "control: openssl with everything on", port)?;
    scores.push(Score { control: true, ..control });
    Ok(scores)
}

/// `authority.pem`, and a P-256 certificate for localhost from it in the place of the self-signed one: part of the
/// recommendation is that clients can follow the certificate to an authority.
fn certificate(place: &Place) -> Result<()> {
    let openssl = |arguments: &[&str]| {
        let mut command = place.workspace.command("openssl");
        command.current_dir(&place.folder).args(arguments).stderr(Stdio::null());
        succeed(&mut command).context("cannot make a certificate")
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority =
        ["-days", "2", "-subj", "/CN=Conformance", "-keyout", "authority.key", "-out", "authority.pem"];
    let may_sign = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"];
    openssl(&[&["req", "-x509"], &key[..], &authority, &may_sign].concat())?;
    let wish = ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "wish.pem"];
    openssl(&[&["req"], &key[..], &wish].concat())?;
    let extensions = "subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
        extendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\n";
    fs::write(place.folder.join("extensions"), extensions)?;
    let by = ["-CA", "authority.pem", "-CAkey", "authority.key", "-days", "2", "-extfile", "extensions"];
    openssl(&[&["x509", "-req", "-in", "wish.pem", "-out", "chain.pem"], &by[..]].concat())
}

/// openssl's test server with every cipher and version it still has.
fn lax(place: &Place) -> Result<(Background, u16)> {
    let port = ports::free()?;
    let mut openssl = place.workspace.command("openssl");
    openssl.current_dir(&place.folder).args([
        "s_server",
        "-quiet",
        "-www",
        "-cert",
        "chain.pem",
        "-key",
        "key.pem",
    ]);
    openssl.args(["-cipher", "ALL:@SECLEVEL=0", "-accept", &format!("127.0.0.1:{port}")]);
    openssl.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Background::start("openssl s_server", &mut openssl)?;
    ports::wait_for(&mut server, port)?;
    Ok((server, port))
}

fn score(place: &Place, program: &Path, target: &str, port: u16) -> Result<Score> {
    println!("sslyze against {target}");
    let report = place.folder.join("sslyze.json");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let mut command = place.workspace.command(program);
    command.arg("--mozilla_config=intermediate").arg(format!("--json_out={}", report.display()));
    command.arg(format!("--certinfo_ca_file={}", place.folder.join("authority.pem").display()));
    command.arg(format!("localhost:{port}"));
    let result = command.output().context("cannot start sslyze")?;
    let said = String::from_utf8_lossy(&result.stdout).into_owned();
    let json: Value = serde_json::from_str(&fs::read_to_string(&report).with_context(|| {
        format!("sslyze wrote no report about {target}: {said}{}", String::from_utf8_lossy(&result.stderr))
    })?)?;
    if json["server_scan_results"][0]["scan_status"] != "COMPLETED" {
        bail!("sslyze could not scan {target}: {said}");
    }
    let deviations = deviations(&said);
    let compliant = result.status.success();
    if compliant != deviations.is_empty() {
        bail!("sslyze ended with {} and said about {target}: {said}", result.status);
    }
    Ok(Score {
        target: target.to_owned(),
        counts: vec![("compliant", usize::from(compliant)), ("deviations", deviations.len())],
        misses: deviations,
        control: false,
        defects: 0,
    })
}

/// The lines below the verdict, one for each point that is not as recommended.
fn deviations(said: &str) -> Vec<String> {
    let verdict = said.split("FAILED - Not compliant.").nth(1).unwrap_or_default();
    verdict.lines().filter_map(|line| line.trim().strip_prefix("* ")).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_are_read() {
        let said = " COMPLIANCE AGAINST TLS CONFIGURATION\n\n    localhost:1: FAILED - Not compliant.\n        * ciphers: a\n        * tls_versions: b\n";
        assert_eq!(deviations(said), ["ciphers: a", "tls_versions: b"]);
        assert!(deviations("    localhost:1: OK - Compliant.\n").is_empty());
    }
}
