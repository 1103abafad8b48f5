//! A maker of data, from a ClickHouse to a package: what is wrong with an answer makes no package and touches none.

use std::net::TcpListener;

use clap::Parser as _;

use super::*;
use crate::cli::{Cli, Command};

/// Runs `rempart feed` with these arguments.
fn feed(arguments: &[&str]) -> anyhow::Result<u8> {
    let cli = Cli::try_parse_from([&["rempart", "feed"], arguments].concat())?;
    let Some(Command::Feed(arguments)) = cli.command else { bail!("another command") };
    run(arguments, &Terminal::new(true, crate::cli::Colour::Never))
}

/// A ClickHouse that answers once.
fn server(body: String) -> (String, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the request is whole");
            head.extend_from_slice(&buffer[..count]);
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        stream.write_all((head + &body).as_bytes()).unwrap();
    };
    (url, std::thread::spawn(answer))
}

#[test]
fn a_bad_answer_makes_no_package_and_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, query, output) = (path("key"), path("features.sql"), path("features.package"));
    assert_eq!(feed(&["keygen", &key]).unwrap(), EXIT_OK);
    assert!(feed(&["keygen", &key]).is_err(), "a key is never written over");
    fs::write(&query, "SELECT name, weight FROM features").unwrap();
    let rows = |count: u32| (0..count).map(|row| format!("feature-{row:03}\t0.{row}\n")).collect::<String>();
    let mut generation = 0;
    let mut check = |columns: &str, rows: &str, more: &[&str], expected: bool| {
        let before = fs::read(&output).ok();
        let (url, server) = server(format!("{columns}\nString\tFloat64\n{rows}"));
        let always = ["generate", "--clickhouse", &url, "--query", &query, "--name", "features"];
        let always = [&always[..], &["--key", &key, "-o", &output], more].concat();
        let code = feed(&always).unwrap();
        server.join().unwrap();
        assert_eq!(code == EXIT_OK, expected, "{columns} {more:?}");
        if expected {
            generation += 1;
            let manifest = package::peek(&fs::read(&output).unwrap()).unwrap();
            assert_eq!(manifest.generation, generation);
            assert_eq!(manifest.query_hash, Some(blake3::hash(&fs::read(&query).unwrap()).to_string()));
            assert_eq!(manifest.source, format!("features.sql at {url}"));
        } else {
            assert_eq!(fs::read(&output).ok(), before, "{columns} {more:?}");
        }
    };
    let columns = "name\tweight";
    check(columns, "", &[], false);
    check(columns, &rows(60), &[], true);
    check(columns, &rows(60).repeat(2), &[], false);
    check(columns, &rows(200), &["--max-entries", "200"], true);
    check(columns, &rows(201), &["--max-entries", "200"], false);
    check(columns, "feature-000\tnan\n", &["--force"], false);
    check(columns, &rows(100), &[], false);
    check(columns, &rows(100), &["--force"], true);
    check("name\tscore", &rows(100), &["--expect-columns", "name:text weight:number"], false);
    check(columns, &rows(101), &["--expect-columns", "name:text weight:number"], true);
}
