//! What is in `packaging/`: the units are accepted by systemd, and the configurations by the binary.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::rempart::Place;
use harness::tools;

/// Exposure that `systemd-analyze security` may give the service, in tenths.
const EXPOSURE: &str = "--threshold=20";

fn packaging() -> PathBuf {
    tools::root().join("packaging")
}

fn read(name: &str) -> String {
    let path = packaging().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs `systemd-analyze`; answers whether it ended well, and what it said.
fn analyze(arguments: &[&str], files: &[PathBuf]) -> (bool, String) {
    let output =
        Command::new(tools::program("systemd-analyze")).args(arguments).args(files).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.success(), said)
}

/// The units with a program that exists on this machine, and a change to the service.
fn units(place: &Place, change: impl Fn(String) -> String) -> Vec<PathBuf> {
    let program = tools::program("true");
    let service = read("systemd/rempart.service").replace("/usr/bin/rempart", program.to_str().unwrap());
    place.write("rempart.service", change(service));
    place.write("rempart.socket", read("systemd/rempart.socket"));
    vec![place.path("rempart.service"), place.path("rempart.socket")]
}

#[test]
fn systemd_accepts_the_units() {
    let place = Place::new();
    // The manual page is not part of this check.
    let verify = ["verify", "--man=no", "--recursive-errors=no"];
    let (good, said) = analyze(&verify, &units(&place, |text| text));
    assert!(good && said.trim().is_empty(), "{said}");
    let misspelt = |text: String| text.replace("KillMode=process", "KillMode=proces");
    let (_, said) = analyze(&verify, &units(&place, misspelt));
    assert!(said.contains("Failed to parse"), "a mistake would not be noticed: {said}");
}

#[test]
fn the_service_can_do_little_beyond_its_task() {
    let place = Place::new();
    let security = ["security", "--offline=true", EXPOSURE];
    let files = units(&place, |text| text);
    let (good, said) = analyze(&security, &files[..1]);
    assert!(good, "{said}");
    let open = |text: String| text.replace("SystemCallFilter=", "# ");
    let (good, _) = analyze(&security, &units(&place, open)[..1]);
    assert!(!good, "a service that may call everything passes too");
}

#[test]
fn the_configurations_can_be_used_also_with_what_is_commented_out() {
    let place = Place::new();
    let check = |text: &str| {
        place.write("rempart.toml", text);
        let (code, report) = place.check("rempart.toml");
        assert_eq!(code, Some(0), "{:?}\n{text}", report.diagnostics);
        assert!(report.diagnostics.is_empty(), "{:?}\n{text}", report.diagnostics);
    };
    let text = read("rempart.toml");
    check(&text);
    check(&read("container/rempart.toml"));
    // Every `# key =` and `# [table]` except the alternatives to what stands before them.
    let alternatives = ["# to = ", "# certificate = ", "# key = "];
    let full: Vec<&str> = text
        .lines()
        .filter(|line| !alternatives.iter().any(|start| line.starts_with(start)))
        .map(|line| line.strip_prefix("# ").filter(|rest| is_toml(rest)).unwrap_or(line))
        .collect();
    let full = full.join("\n").replace("hosts = [\"*\"]", "hosts = [\"example.org\"]");
    for wanted in ["\n[acme]", "\n[drain]", "\n[trust]", "\n[site.tls]"] {
        assert!(full.contains(wanted), "{wanted:?} is no longer among what is commented out");
    }
    check(&full);
}

/// Whether a line that was commented out is configuration rather than a sentence.
fn is_toml(line: &str) -> bool {
    let key = line.split(" = ").next().unwrap_or_default();
    let is_key =
        line.contains(" = ") && key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_');
    is_key || (line.starts_with('[') && line.ends_with(']') && !line.starts_with("[["))
}
