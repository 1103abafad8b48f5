//! Sources that change, end, grow and lie.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;

use super::*;
use crate::gate::tests::made;

const LIMIT: u64 = 10_000;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn source(settings: FeedSource) -> Source {
    Source::new(&settings, LIMIT).unwrap()
}

#[test]
fn a_file_is_read_when_it_is_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.package");
    let mut source = source(FeedSource::File { path: path.clone() });
    block_on(async {
        let error = source.look(false).await.unwrap_err();
        assert!(error.to_string().contains("features.package"), "{error}");
        fs::write(&path, "one").unwrap();
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(b"one".to_vec()));
        assert_eq!(source.look(false).await.unwrap(), Looked::Unchanged);
        assert_eq!(source.look(true).await.unwrap(), Looked::Found(b"one".to_vec()));
        let other = folder.path().join("other");
        fs::write(&other, "two").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(b"two".to_vec()));
        fs::write(&path, vec![0; 10_001]).unwrap();
        assert!(matches!(source.look(false).await, Err(SourceError::TooLarge { limit: LIMIT, .. })));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(source.look(false).await.is_err());
    });
}

#[test]
fn a_file_that_is_still_written_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("features.package");
    fs::write(&path, "begun").unwrap();
    let mut source = source(FeedSource::File { path: path.clone() });
    block_on(async {
        let look = source.look(false);
        // The look has seen the file once; it grows before the second time.
        let write = async { fs::write(&path, "begun and done").unwrap() };
        let (looked, ()) = tokio::join!(biased; look, write);
        assert_eq!(looked.unwrap(), Looked::Unchanged);
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(b"begun and done".to_vec()));
    });
}

#[test]
fn of_a_folder_the_highest_generation_counts() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    let mut source = source(FeedSource::Folder { path: folder.path().to_owned() });
    block_on(async {
        assert!(matches!(source.look(false).await, Err(SourceError::Empty(_))));
        put("readme.txt", b"nothing");
        put("broken.package", b"no package");
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(b"no package".to_vec()));
        put("z.package", &made(2, 3, 0));
        put("a.package", &made(10, 3, 0));
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(made(10, 3, 0)));
        put("b.package", &made(9, 3, 0));
        assert_eq!(source.look(false).await.unwrap(), Looked::Unchanged);
        fs::remove_file(folder.path().join("a.package")).unwrap();
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(made(9, 3, 0)));
        (0..MAX_FILES).for_each(|number| put(&format!("{number}.package"), b""));
        assert!(matches!(source.look(false).await, Err(SourceError::TooMany(_))));
    });
}

/// A server that gives these answers, one connection each; answers what it was asked.
fn server(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/features.package", listener.local_addr().unwrap());
    let serve = move || {
        let answer = |answer: String| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                asked.push(byte[0]);
            }
            // Who has seen enough hangs up.
            ignore(stream.write_all(answer.as_bytes()));
            String::from_utf8(asked).unwrap().to_lowercase()
        };
        answers.into_iter().map(answer).collect()
    };
    (url, std::thread::spawn(serve))
}

fn ignore<T>(_: T) {}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}Connection: close\r\n\r\n{body}", body.len())
}

#[test]
fn a_url_is_asked_conditionally_and_not_followed_elsewhere() {
    let (url, served) = server(vec![
        answer("200 OK", "ETag: \"one\"\r\n", "first"),
        answer("304 Not Modified", "", ""),
        answer("200 OK", "", "second"),
        answer("302 Found", "Location: http://127.0.0.1:1/\r\n", ""),
        answer("404 Not Found", "", ""),
        answer("200 OK", "", &"x".repeat(10_001)),
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort".to_owned(),
    ]);
    let mut source = source(FeedSource::Url { url });
    block_on(async {
        assert_eq!(source.look(false).await.unwrap(), Looked::Found(b"first".to_vec()));
        assert_eq!(source.look(false).await.unwrap(), Looked::Unchanged);
        assert_eq!(source.look(true).await.unwrap(), Looked::Found(b"second".to_vec()));
        for expected in ["redirects are not followed", "404", "more than 10000 bytes", "broke off"] {
            let error = source.look(false).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    });
    let asked = served.join().unwrap();
    let conditional: Vec<bool> = asked.iter().map(|asked| asked.contains("if-none-match: \"one\"")).collect();
    assert_eq!(conditional, [false, true, false, false, false, false, false]);
}

#[test]
fn only_https_and_this_machine_are_asked() {
    for (url, allowed) in [
        ("https://data.example/features.package", true),
        ("http://127.0.0.1:8000/f", true),
        ("http://[::1]/f", true),
        ("http://data.example/f", false),
        ("http://localhost/f", false),
        ("ftp://127.0.0.1/f", false),
        ("/f", false),
    ] {
        let refused = matches!(
            Source::new(&FeedSource::Url { url: url.to_owned() }, LIMIT),
            Err(SourceError::NotSecure(_))
        );
        assert_eq!(refused, !allowed, "{url}");
    }
}
