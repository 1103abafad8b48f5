//! Text of a `rempart.toml`, put together piece by piece. It is text on purpose: a test also writes broken ones.

use std::fmt::Write;

/// A configuration in the making.
#[derive(Clone, Debug)]
pub struct Config(String);

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// Metrics and access log off, nothing else.
    pub fn new() -> Self {
        Self("[metrics]\nlisten = \"off\"\n[log.access]\nto = \"off\"\n".into())
    }

    /// Nothing at all.
    pub fn empty() -> Self {
        Self(String::new())
    }

    /// Adds text as it is.
    pub fn raw(mut self, text: &str) -> Self {
        self.0.push_str(text);
        self.0.push('\n');
        self
    }

    /// Adds a listener; `address` may end in `:0`.
    pub fn listen(mut self, address: &str, tls: bool) -> Self {
        let _infallible = write!(self.0, "[[listen]]\naddress = \"{address}\"\ntls = {tls}\n");
        self
    }

    /// Adds a plain and a TLS listener on ports the system picks, in that order.
    pub fn listeners(self) -> Self {
        self.listen("127.0.0.1:0", false).listen("127.0.0.1:0", true)
    }

    /// Opens a site; what follows by `origin` and `raw` belongs to it.
    pub fn site(mut self, name: &str, hosts: &[&str]) -> Self {
        let _infallible = write!(self.0, "[[site]]\nname = \"{name}\"\nhosts = {hosts:?}\n");
        self
    }

    /// Adds an origin to the site opened last.
    pub fn origin(mut self, url: impl std::fmt::Display) -> Self {
        let _infallible = write!(self.0, "[[site.origin]]\nurl = \"{url}\"\n");
        self
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}
