//! Answers of a ClickHouse, good and bad, and one server that gives them.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use base::time::Timestamp;
use snapshot::kind;

use super::*;

#[test]
fn an_answer_becomes_a_table_or_says_why_not() {
    let check =
        |answer: &str, expected: Result<&str, (usize, &str)>| match (table_of(answer.as_bytes()), expected) {
            (Ok(table), Ok(wanted)) => assert_eq!(table, wanted),
            (Err(ClickHouseError::NoTable { line, reason }), Err((wanted, part))) => {
                assert!(line == wanted && reason.contains(part), "{answer:?}: line {line}: {reason}");
            }
            (found, _) => panic!("{answer:?}: {found:?}"),
        };
    check(
        "name\tweight\tnote\nString\tNullable(Float64)\tLowCardinality(Nullable(String))\na\t0.5\t\nb\t-1\tit\\'s \\\\\n",
        Ok("#columns name:text weight:number note:text\na\t0.5\t\nb\t-1\tit's \\\n"),
    );
    check("n\tk\nLowCardinality(String)\tUInt64\n", Ok("#columns n:text k:number\n"));
    check("n\tk\nString\tIntervalDay\n", Ok("#columns n:text k:text\n"));
    check("n\tk\nString\tUInt8\na\t\\N\n", Err((3, "NULL")));
    check("n\tk\nString\tUInt8\na\t1\nb\\tc\t1\n", Err((4, "tab")));
    check("n\tk\nString\tUInt8\na\t1", Err((3, "cut off")));
    check("", Err((1, "empty")));
    check("a\t1\n", Err((1, "FORMAT")));
    check("n\tk\nString\n", Err((2, "FORMAT")));
    check("n\tcount()\nString\tUInt8\n", Ok("#columns n:text count():number\n"));
    check("n\tmax(a, b)\nString\tUInt8\n", Err((1, "AS name")));
}

#[test]
fn what_a_failed_query_gives_is_refused_by_the_kind() {
    let table = kind::find("table").unwrap();
    let codes = |rows: &str| {
        let text = table_of(format!("name\tweight\nString\tFloat64\n{rows}").as_bytes()).unwrap();
        let read = kind::read(table, text.as_bytes(), table.caps(), Timestamp(1));
        read.err().unwrap_or_default().into_iter().map(|finding| finding.code).collect::<Vec<_>>()
    };
    assert_eq!(codes("a\t1\nb\t2\n"), [""; 0]);
    assert_eq!(codes("a\t1\nb\t2\na\t1\nb\t2\n"), ["duplicate-keys", "duplicate-keys"]);
    assert_eq!(codes(""), ["empty"]);
    for broken in ["nan", "inf", "-inf"] {
        assert_eq!(codes(&format!("a\t{broken}\n")), ["not-finite"]);
    }
}

#[test]
fn only_addresses_that_nobody_listens_in_on_are_asked() {
    let address = |url: &str| address(url, "SELECT 'é' ;\n").map(|uri| uri.to_string());
    let asked =
        "wait_end_of_query=1&default_format=TabSeparatedWithNamesAndTypes&query=SELECT%20%27%C3%A9%27%20";
    assert_eq!(address("http://127.0.0.1:8123").unwrap(), format!("http://127.0.0.1:8123/?{asked}"));
    let with_database = format!("https://db.example/x?database=bots&{asked}");
    assert_eq!(address("https://db.example/x?database=bots").unwrap(), with_database);
    for url in ["http://db.example:8123", "ftp://127.0.0.1", "db.example", "https://me:secret@db.example", ""]
    {
        assert_eq!(address(url), Err(ClickHouseError::BadUrl));
    }
    let long = "x".repeat(MAX_QUERY + 1);
    assert_eq!(super::address("http://127.0.0.1", &long), Err(ClickHouseError::QueryTooLong(long.len())));
}

/// What a server gets, and what is made of its answer.
fn asked(status: &str, body: &str, limit: u64) -> (String, Result<String, ClickHouseError>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
        while !head.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "the request is whole");
            head.extend_from_slice(&buffer[..count]);
        }
        stream.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap().to_lowercase()
    });
    let query = Query { url: &url, sql: "SELECT 1", login: Some(("feeds", "secret")), limit };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made = runtime.block_on(ask(&query));
    (server.join().unwrap(), made)
}

#[test]
fn a_server_is_asked_and_its_refusals_are_shown() {
    let (head, table) = asked("200 OK", "n\tk\nString\tUInt8\na\t1\n", 1000);
    assert!(head.starts_with("get /?wait_end_of_query=1&"), "{head}");
    assert!(head.contains("x-clickhouse-user: feeds\r\nx-clickhouse-key: secret\r\n"), "{head}");
    assert_eq!(table.unwrap(), "#columns n:text k:number\na\t1\n");
    let (_, refused) = asked("404 Not Found", "Code: 60. DB::Exception: unknown table\n", 1000);
    let message = refused.unwrap_err().to_string();
    assert!(
        message.contains("404") && message.ends_with("Code: 60. DB::Exception: unknown table"),
        "{message}"
    );
    assert!(!message.contains("secret"));
    assert_eq!(asked("200 OK", &"x".repeat(101), 100).1, Err(ClickHouseError::TooLarge(100)));
}
