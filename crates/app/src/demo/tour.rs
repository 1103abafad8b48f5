//! What the terminal says when the demo has started: what to open, and what to try.

/// The text, with the addresses Rempart listens on (`https://localhost:8443`, without a slash at the end).
pub fn tour(base_https: &str, base_http: &str) -> String {
    format!(
        "\
Rempart stands in front of its built-in demo site.

  Open      {base_https}/
            {base_http}/
            (the certificate is signed by Rempart's own development authority: the browser warns, and so
             does curl without -k)

  Try
    HTTP/2 and the trace     curl -k {base_https}/.rempart/trace
    what the website sees    curl -k {base_https}/headers
    Rempart's error page     curl -k {base_https}/crash
      as problem details     curl -k -H 'Accept: application/problem+json' {base_https}/crash
      in German              curl -k -H 'Accept-Language: de' {base_https}/crash
    the website's own error  curl -k -i {base_https}/fail
    a slow answer            curl -k '{base_https}/slow?seconds=5'
    server-sent events       curl -k -N {base_https}/events
    a large download         curl -k -o /dev/null '{base_https}/download?bytes=1073741824'
      a range of it          curl -k -r 64-127 '{base_https}/download?bytes=1073741824'
    an upload                head -c 100000000 /dev/zero | curl -k -T - {base_https}/upload
    the JSON API             curl -k {base_https}/api/notes --json '{{\"text\": \"hello\"}}'
    a request to refuse      curl --http1.1 -H 'Host:' {base_http}/
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tour_names_the_addresses_given() {
        let text = tour("https://localhost:8443", "http://localhost:8080");
        assert!(text.contains("  Open      https://localhost:8443/\n"));
        assert!(text.contains("-H 'Host:' http://localhost:8080/\n"));
        assert!(text.contains("--json '{\"text\": \"hello\"}'"));
        assert!(!text.contains("{base"));
    }
}
