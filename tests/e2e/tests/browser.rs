//! The demo site in headless Chromium over HTTP/2: what a person sees works. Screenshots are left beside the build.

use std::path::Path;
use std::process::Command;

use harness::rempart::Place;
use harness::tools;

use crate::heavy;

#[test]
fn the_demo_site_works_in_chromium_over_http2() {
    let _alone = heavy();
    let place = Place::new();
    let rempart = place.start(&["demo", "--listen", "https://127.0.0.1:0"]);
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&pictures).unwrap();
    let output = Command::new(tools::program("node"))
        .arg(tools::script("browser.mjs"))
        .arg(tools::node_modules())
        .arg(tools::program("chromium"))
        .arg(format!("https://localhost:{}", rempart.tls().port()))
        .arg(&pictures)
        .current_dir(place.path(""))
        .env("HOME", place.path(""))
        .output()
        .unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    println!("{text}\nscreenshots: {}", pictures.display());
    assert!(output.status.success() && text.contains("everything a visitor sees works"), "{text}");
}
