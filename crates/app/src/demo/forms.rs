//! Reading what browsers and programs send: bounded bodies, and the fields of an HTML form.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, StatusCode, header};

use super::reply::{Reply, text};

/// Largest body that is kept in memory.
pub const MAX_BODY_BYTES: usize = 16 * 1024;

/// The whole body, or the answer to give instead.
pub async fn body(request: Request<Incoming>) -> Result<Bytes, Reply> {
    match Limited::new(request.into_body(), MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(text(StatusCode::PAYLOAD_TOO_LARGE, "The demo site accepts 16 KiB here."))
        }
        Err(_) => Err(text(StatusCode::BAD_REQUEST, "The body of the request did not arrive whole.")),
    }
}

/// Whether the request has this media type, parameters aside.
pub fn is_of_type<B>(request: &Request<B>, media_type: &str) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(media_type)
}

/// A field of an `application/x-www-form-urlencoded` body (WHATWG URL, section 5.1); the first of that name.
pub fn field(body: &[u8], name: &str) -> Option<String> {
    body.split(|&byte| byte == b'&').find_map(|pair| {
        let mut halves = pair.splitn(2, |&byte| byte == b'=');
        let key = decoded(halves.next()?);
        (key == name).then(|| decoded(halves.next().unwrap_or_default()))
    })
}

/// `+` is a space and `%41` an A; what is not an escape stays as it is.
fn decoded(text: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escape = match (first, tail) {
            (b'%', [high, low, ..]) => hexadecimal(*high).zip(hexadecimal(*low)),
            _ => None,
        };
        match escape {
            Some((high, low)) => {
                bytes.push(high << 4 | low);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hexadecimal(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded() {
        let body = b"name=Ada+Lovelace&note=50%25+caf%C3%A9&broken=%zz%4&empty=&flag&name=second";
        for (name, expected) in [
            ("name", Some("Ada Lovelace")),
            ("note", Some("50% café")),
            ("broken", Some("%zz%4")),
            ("empty", Some("")),
            ("flag", Some("")),
            ("missing", None),
        ] {
            assert_eq!(field(body, name).as_deref(), expected, "{name}");
        }
    }
}
