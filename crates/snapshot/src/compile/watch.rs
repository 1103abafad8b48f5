//! Compiles `[watch]`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use api::roles::{NotifyChannel, NotifyWay, SecretPlace, SmtpSecurity, WatchSettings, WatchedSite};

use super::Judge;
use super::feed::is_loopback;
use super::listen::reaches;
use crate::desired;
use crate::diagnostic::quote;
use crate::generation::{HostPattern, Listener, Site};

/// Sites that are asked; beyond that nobody would read the page.
const WATCHED_SITES: usize = 1_000;
/// Octets of a URL or a path.
const URL_OCTETS: usize = 2_000;
/// Characters of a title, a name of a channel and an address of mail.
const TITLE_CHARACTERS: usize = 80;
const NAME_CHARACTERS: usize = 64;
const MAIL_OCTETS: usize = 254;

impl Judge<'_> {
    pub(super) fn watch(
        &mut self,
        watch: &desired::Watch,
        listeners: &[Listener],
        metrics: Option<SocketAddr>,
        sites: &[Arc<Site>],
    ) -> Option<WatchSettings> {
        let listen = self.status_page(watch, listeners, metrics);
        if let Some(url) = &watch.url {
            self.web_address(url, "watch.url", false);
        }
        let is_text =
            |text: &str, most| !text.is_empty() && text.chars().count() <= most && !has_control(text);
        if !is_text(&watch.title, TITLE_CHARACTERS) {
            let message = format!("{} is no title", quote(&watch.title));
            let hint = format!("write one line of 1 to {TITLE_CHARACTERS} characters: title = \"Example\"");
            self.review.error("watch.title", "bad-title", message, hint);
        }
        let path = &watch.probe.path;
        if !path.starts_with('/')
            || path.len() > URL_OCTETS
            || path.contains(|c: char| !c.is_ascii_graphic() || c == '#')
        {
            let message = format!("{} is no path", quote(path));
            let hint = "write what stands behind the host in a URL, such as \"/\" or \"/health\"";
            self.review.error("watch.probe.path", "bad-probe-path", message, hint);
        }
        let mut names = BTreeSet::new();
        let channels = watch.notify.iter().enumerate();
        let channels = channels.filter_map(|(index, notify)| {
            self.channel(notify, &format!("watch.notify[{index}]"), &mut names)
        });
        let channels = channels.collect();
        let every = Duration::from(watch.probe.every).as_secs().max(1);
        watch.enabled.then(|| WatchSettings {
            listen,
            url: watch.url.clone(),
            title: watch.title.clone(),
            probe_seconds: if watch.probe.enabled { every } else { 0 },
            proxies: Vec::new(),
            sites: sites.iter().take(WATCHED_SITES).map(|site| watched(site, path)).collect(),
            channels,
            as_before: false,
        })
    }

    fn status_page(
        &mut self,
        watch: &desired::Watch,
        listeners: &[Listener],
        metrics: Option<SocketAddr>,
    ) -> Option<SocketAddr> {
        let place = "watch.listen";
        if watch.listen == "off" {
            return None;
        }
        let hint = |_: &str| "write an address and a port, such as \"127.0.0.1:9180\", or \"off\"".to_owned();
        let address = self.address(&watch.listen, place, hint)?;
        let taken = listeners.iter().map(|listener| (listener.address, "the listener"));
        let taken = taken.chain(metrics.map(|metrics| (metrics, "the metrics")));
        for (other, what) in taken {
            if reaches(other, address) || reaches(address, other) {
                let message = format!("the status page on {address} is in the way of {what} on {other}");
                self.review.error(place, "status-page-in-the-way", message, "give it another port");
                break;
            }
        }
        Some(address)
    }

    /// An absolute URL without a name or password; with `alone`, `http` is for loopback addresses.
    fn web_address(&mut self, url: &str, place: &str, alone: bool) -> bool {
        let form = "write a URL such as \"https://status.example.org/\"";
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let not_graphic = |c: char| !c.is_ascii_graphic() || c == '#' || c == '"';
        // What stands behind the host may be a secret, so it is not repeated.
        let (message, hint) = if url.len() > URL_OCTETS || authority.is_empty() || url.contains(not_graphic) {
            ("this is no URL".to_owned(), form)
        } else if authority.contains('@') {
            ("this URL holds a user name or password".to_owned(), form)
        } else if scheme == "https" || (scheme == "http" && (!alone || is_loopback(authority))) {
            return true;
        } else {
            let hint = "use https; http is for 127.0.0.1 and [::1] only, where nobody is on the way";
            (format!("nothing is sent to {}", quote(&format!("{scheme}://{authority}"))), hint)
        };
        self.review.error(place, "bad-url", message, hint);
        false
    }

    fn channel<'d>(
        &mut self,
        notify: &'d desired::Notify,
        place: &str,
        names: &mut BTreeSet<&'d str>,
    ) -> Option<NotifyChannel> {
        let at = |key: &str| format!("{place}.{key}");
        let name = &notify.name;
        if name.is_empty() || name.chars().count() > NAME_CHARACTERS || has_control(name) {
            let message = format!("{} is no name for a channel", quote(name));
            let hint = format!("write 1 to {NAME_CHARACTERS} characters: name = \"pager\"");
            self.review.error(&at("name"), "bad-channel-name", message, hint);
        } else if !names.insert(name) {
            let message = format!("there is another channel {}", quote(name));
            self.review.error(&at("name"), "duplicate-channel", message, "give each a name of its own");
        }
        let way = match (&notify.webhook, &notify.smtp) {
            (Some(url), None) => self.webhook(url, notify.secret.as_ref(), &at),
            (None, Some(smtp)) => {
                if notify.secret.is_some() {
                    let message = "only webhooks are signed".to_owned();
                    let hint = "remove it; the password of a mail server is `smtp.password`";
                    self.review.error(&at("secret"), "secret-without-webhook", message, hint);
                }
                self.smtp(smtp, &at("smtp"))
            }
            (webhook, _) => {
                let what =
                    if webhook.is_some() { "a webhook and a mail server" } else { "nowhere to send to" };
                let message = format!("the channel {} has {what}", quote(name));
                let hint = "give it either `webhook = \"https://..\"` or `smtp = { .. }`";
                self.review.error(place, "channel-not-one-way", message, hint);
                None
            }
        };
        Some(NotifyChannel { name: name.clone(), way: way? })
    }

    fn webhook(
        &mut self,
        url: &str,
        secret: Option<&desired::Secret>,
        at: &impl Fn(&str) -> String,
    ) -> Option<NotifyWay> {
        let is_good = self.web_address(url, &at("webhook"), true);
        let secret = match secret {
            Some(secret) => Some(self.secret(secret, &at("secret"))?),
            None => None,
        };
        is_good.then(|| NotifyWay::Webhook { url: url.to_owned(), secret })
    }

    fn smtp(&mut self, smtp: &desired::Smtp, place: &str) -> Option<NotifyWay> {
        let at = |key: &str| format!("{place}.{key}");
        let is_alone = smtp.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let is_host = !smtp.host.is_empty()
            && smtp.host.len() <= MAIL_OCTETS
            && smtp.host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte));
        if !is_host {
            let message = format!("{} is no name of a server", quote(&smtp.host));
            self.review.error(
                &at("host"),
                "bad-mail-server",
                message,
                "write its name: host = \"mail.example.org\"",
            );
        }
        let (security, port) = match smtp.security {
            desired::SmtpSecurity::StartTls => (SmtpSecurity::StartTls, 587),
            desired::SmtpSecurity::Tls => (SmtpSecurity::Tls, 465),
            desired::SmtpSecurity::None => (SmtpSecurity::None, 25),
        };
        if security == SmtpSecurity::None && !is_alone {
            let message = format!("mail would go to {} for everybody on the way to read", quote(&smtp.host));
            let hint = "use \"starttls\" or \"tls\"; \"none\" is for 127.0.0.1 and ::1 only";
            self.review.error(&at("security"), "mail-unprotected", message, hint);
        }
        self.mail_address(&smtp.from, &at("from"));
        if smtp.to.is_empty() {
            self.review.error(
                &at("to"),
                "no-recipients",
                "nobody would be told",
                "write to = [\"ops@example.org\"]",
            );
        }
        for (index, address) in smtp.to.iter().enumerate() {
            self.mail_address(address, &format!("{place}.to[{index}]"));
        }
        let login = match (&smtp.user, &smtp.password) {
            (Some(user), Some(password)) => Some((user.clone(), self.secret(password, &at("password"))?)),
            (None, None) => None,
            (user, _) => {
                let lacks =
                    if user.is_some() { "a user without a password" } else { "a password without a user" };
                let hint = "write both `user` and `password = { file = \"..\" }`, or neither";
                self.review.error(place, "half-a-login", format!("there is {lacks}"), hint);
                None
            }
        };
        let (from, to) = (smtp.from.clone(), smtp.to.clone());
        let port = smtp.port.unwrap_or(port);
        Some(NotifyWay::Smtp { host: smtp.host.clone(), port, security, login, from, to })
    }

    /// `name@host`, or `Somebody <name@host>`.
    fn mail_address(&mut self, text: &str, place: &str) {
        let inner = match text.split_once('<') {
            Some((_, rest)) => rest.strip_suffix('>').unwrap_or_default(),
            None => text,
        };
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>,;:@\"\\()[]".contains(&byte))
        };
        let is_address = text.len() <= MAIL_OCTETS
            && !has_control(text)
            && inner.split_once('@').is_some_and(|(name, host)| is_part(name) && is_part(host));
        if !is_address {
            let message = format!("{} is no address of mail", quote(text));
            let hint = "write \"ops@example.org\" or \"Somebody <ops@example.org>\"";
            self.review.error(place, "bad-mail-address", message, hint);
        }
    }

    fn secret(&mut self, secret: &desired::Secret, place: &str) -> Option<SecretPlace> {
        match (&secret.file, &secret.env) {
            (Some(path), None) => {
                self.path(path, &format!("{place}.file")).then(|| SecretPlace::File(path.into()))
            }
            (None, Some(name)) if is_variable(name) => Some(SecretPlace::Environment(name.clone())),
            (None, Some(name)) => {
                let message = format!("{} is no name of an environment variable", quote(name));
                let hint = "use letters, digits and underscores; the secret itself does not belong here";
                self.review.error(&format!("{place}.env"), "bad-variable", message, hint);
                None
            }
            _ => {
                let message = "a secret lies in a file or in an environment variable".to_owned();
                let hint = "write either { file = \"PATH\" } or { env = \"NAME\" }";
                self.review.error(place, "secret-not-one-place", message, hint);
                None
            }
        }
    }
}

fn is_variable(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=NAME_CHARACTERS).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

/// A site, as it is asked: by its first host without a wildcard, else by a name that only its wildcard has.
fn watched(site: &Site, path: &str) -> WatchedSite {
    let exact = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => Some(host.to_string()),
        HostPattern::Suffix(_) | HostPattern::Any => None,
    };
    let below = |pattern: &HostPattern| match pattern {
        HostPattern::Suffix(parent) => Some(format!("rempart-watch.{parent}")),
        HostPattern::Exact(_) | HostPattern::Any => None,
    };
    let hosts = || site.hosts.iter();
    let host = hosts().find_map(exact).or_else(|| hosts().find_map(below));
    WatchedSite {
        name: site.name.to_string(),
        host: host.unwrap_or_else(|| "rempart-watch.invalid".to_owned()),
        path: path.to_owned(),
        at: Vec::new(),
        asks_for_certificates: site.tls.client.as_ref().is_some_and(|client| client.required),
    }
}
