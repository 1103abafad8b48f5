//! Logging in: a form, a cookie, a page only for those who have one, and the way out.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};

use hyper::body::Incoming;
use hyper::{Request, StatusCode, header};

use super::reply::{Reply, see_other, text, uncached, with};
use super::{Site, forms, pages};

/// The name that may log in; shown on the page.
pub const NAME: &str = "demo";
/// Its password; shown on the page, for there is nothing to protect.
pub const PASSWORD: &str = "drawbridge";
/// Name of the cookie.
const COOKIE: &str = "demo_session";
/// How long a browser keeps the cookie, in seconds.
const COOKIE_SECONDS: u32 = 3600;
/// Sessions remembered; the oldest makes room.
const MAX_SESSIONS: usize = 256;
/// Bytes of the Cookie header that are looked at.
const MAX_COOKIE_BYTES: usize = 4096;

/// Who is logged in.
#[derive(Debug, Default)]
pub struct Sessions(VecDeque<String>);

impl Sessions {
    fn open(&mut self) -> String {
        if self.0.len() >= MAX_SESSIONS {
            self.0.pop_front();
        }
        let key = random_key();
        self.0.push_back(key.clone());
        key
    }

    fn knows(&self, key: &str) -> bool {
        self.0.iter().any(|known| known == key)
    }

    fn close(&mut self, key: &str) {
        self.0.retain(|known| known != key);
    }
}

/// 128 bits nobody can guess, in hexadecimal: the standard library seeds each hasher state from the system.
fn random_key() -> String {
    let draw = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", draw(), draw())
}

/// The form was sent.
pub async fn login(request: Request<Incoming>, site: &Site) -> Reply {
    if !forms::is_of_type(&request, "application/x-www-form-urlencoded") {
        return text(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Send the fields as application/x-www-form-urlencoded.",
        );
    }
    let secure = came_over_tls(&request);
    let body = match forms::body(request).await {
        Ok(body) => body,
        Err(reply) => return reply,
    };
    let is = |name: &str, expected: &str| forms::field(&body, name).as_deref() == Some(expected);
    if !(is("name", NAME) && is("password", PASSWORD)) {
        return pages::login(StatusCode::FORBIDDEN);
    }
    let Ok(mut sessions) = site.sessions.lock() else { return pages::failed() };
    let key = sessions.open();
    with(see_other("/account"), header::SET_COOKIE, cookie(&key, COOKIE_SECONDS, secure))
}

/// The page for those who are logged in; others are sent to the form.
pub fn account(request: &Request<Incoming>, site: &Site) -> Reply {
    let known = session(request).is_some_and(|key| site.sessions.lock().is_ok_and(|all| all.knows(key)));
    if known { pages::account(NAME) } else { uncached(see_other("/login")) }
}

/// Ends the session and takes the cookie back.
pub fn logout(request: &Request<Incoming>, site: &Site) -> Reply {
    if let (Some(key), Ok(mut sessions)) = (session(request), site.sessions.lock()) {
        sessions.close(key);
    }
    with(see_other("/login"), header::SET_COOKIE, cookie("", 0, came_over_tls(request)))
}

fn cookie(key: &str, seconds: u32, secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("{COOKIE}={key}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")
}

/// The proxy in front says how the visitor came; the demo listens on loopback only, so nobody else can.
fn came_over_tls<B>(request: &Request<B>) -> bool {
    request.headers().get("x-forwarded-proto").is_some_and(|value| value.as_bytes() == b"https")
}

/// The session's key from the Cookie header (RFC 6265 section 5.4).
fn session<B>(request: &Request<B>) -> Option<&str> {
    let mut fields = request.headers().get_all(header::COOKIE).into_iter();
    fields.find_map(|value| {
        let text = value.to_str().ok().filter(|text| text.len() <= MAX_COOKIE_BYTES)?;
        text.split(';').find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_makes_room() {
        let mut sessions = Sessions::default();
        let first = sessions.open();
        for _ in 0..MAX_SESSIONS {
            let next = sessions.open();
            assert!(sessions.knows(&next) && next != first);
        }
        assert_eq!(sessions.0.len(), MAX_SESSIONS);
        assert!(!sessions.knows(&first));
    }
}
