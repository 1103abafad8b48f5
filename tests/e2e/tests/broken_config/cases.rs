//! The kinds of broken configuration: what is spoiled, which words the diagnostic must contain, and where it points.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;

use harness::certificates::Validity;
use harness::rempart::Rempart;

use super::{HOST, Shop};

/// What the diagnostic can point at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// A line of the configuration or of a file it names.
    Line,
    /// The file as a whole.
    File,
}

/// One kind.
pub struct Broken {
    pub name: &'static str,
    /// Spoils the good files.
    pub spoil: Box<dyn Fn(&Shop)>,
    /// Lower-case words of which the diagnostic must contain one.
    pub says: &'static [&'static str],
    pub place: Where,
    /// Only a running Rempart can know, `check` need not.
    pub only_running: bool,
}

fn broken(
    name: &'static str,
    place: Where,
    says: &'static [&'static str],
    spoil: impl Fn(&Shop) + 'static,
) -> Broken {
    Broken { name, spoil: Box::new(spoil), says, place, only_running: false }
}

/// Replaces a piece of the good configuration, once.
fn edit(
    name: &'static str,
    from: &'static str,
    to: impl Into<String>,
    says: &'static [&'static str],
) -> Broken {
    let to = to.into();
    broken(name, Where::Line, says, move |shop| {
        assert!(shop.good.contains(from), "{name}: there is no {from} to replace");
        shop.place.write("rempart.toml", shop.good.replacen(from, &to, 1));
    })
}

/// Adds text behind the good configuration, which ends with the origin of the site.
fn append(name: &'static str, text: impl Into<String>, says: &'static [&'static str]) -> Broken {
    let text = text.into();
    broken(name, Where::Line, says, move |shop| {
        shop.place.write("rempart.toml", format!("{}{text}\n", shop.good));
    })
}

/// Replaces the whole file.
fn whole(
    name: &'static str,
    content: impl Into<Vec<u8>>,
    place: Where,
    says: &'static [&'static str],
) -> Broken {
    let content = content.into();
    broken(name, place, says, move |shop| shop.place.write("rempart.toml", &content))
}

/// All kinds, for a running Rempart and a port somebody else has.
pub fn all(shop: &Shop, rempart: &Rempart, taken: SocketAddr) -> Vec<Broken> {
    let mut cases = syntax(shop);
    cases.extend(values());
    cases.extend(meaning(rempart, taken));
    cases.extend(certificates());
    cases.extend(encryption());
    cases.extend(authorities());
    cases.extend(files());
    cases
}

fn syntax(shop: &Shop) -> Vec<Broken> {
    let half = shop.good.find("hosts = ").map_or(0, |at| at + 12);
    let latin = [shop.good.as_bytes(), b"# caf\xe9\n"].concat();
    let mut deep = String::from("via = ");
    deep.push_str(&"[".repeat(50_000));
    vec![
        whole("0 bytes", "", Where::File, &["rempart.toml"]),
        whole("only a comment", "# nothing yet\n", Where::File, &["rempart.toml", "listen", "site"]),
        whole(
            "binary junk",
            (0..=255).cycle().skip(128).take(4096).collect::<Vec<u8>>(),
            Where::File,
            &["utf-8", "text"],
        ),
        whole("not UTF-8", latin, Where::File, &["utf-8"]),
        whole("truncated in a string", shop.good[..half].to_owned(), Where::Line, &["rempart.toml"]),
        whole("JSON instead of TOML", "{\"site\": []}", Where::Line, &["rempart.toml"]),
        whole("a web page", "<html><body>Not found</body></html>", Where::Line, &["rempart.toml"]),
        whole("nesting without end", deep, Where::File, &["rempart.toml"]),
        whole("a NUL inside", format!("{}\0", shop.good), Where::File, &["rempart.toml"]),
        edit(
            "the same key twice",
            "name = \"shop\"",
            "name = \"shop\"\nname = \"again\"",
            &["duplicate", "twice", "name"],
        ),
        edit(
            "the same section twice",
            "[metrics]",
            "[metrics]\n[metrics]",
            &["duplicate", "twice", "metrics"],
        ),
        edit("a quotation mark missing", "name = \"shop\"", "name = \"shop", &["rempart.toml"]),
    ]
}

fn values() -> Vec<Broken> {
    vec![
        edit("wrong type", "tls = true", "tls = \"yes\"", &["true"]),
        edit(
            "a list instead of a string",
            "name = \"shop\"",
            "name = [\"shop\"]",
            &["string", "text", "name"],
        ),
        edit(
            "a string instead of a list",
            "hosts = [",
            "hosts = \"shop.test\"\n_ = [",
            &["hosts", "list", "array", "sequence"],
        ),
        edit("unknown key", "tls = true", "tls = true\nadress = \"127.0.0.1:1\"", &["adress"]),
        edit("unknown section", "[metrics]", "[metrix]", &["metrix"]),
        edit("unknown choice", "to = \"off\"", "to = \"sydout\"", &["sydout"]),
        append("bad duration", "[site.limits]\ntunnel = \"10 parsecs\"", &["parsecs", "tunnel"]),
        append("a number without a unit", "[site.limits]\ntunnel = 10", &["tunnel", "unit"]),
        append("duration out of range", "[site.limits]\ntunnel = \"9999999d\"", &["tunnel"]),
        append("negative number", "[site.retry]\nattempts = -1", &["attempts", "-1"]),
        append("number out of range", "[site.retry]\nattempts = 4000000000", &["attempts"]),
        append("weight 0", "weight = 0", &["weight"]),
        append("bad size", "[site.limits]\nbody_bytes = \"much\"", &["body_bytes", "much"]),
        edit("bad prefix", "[metrics]", "[trust]\nproxies = [\"10.0.0.0/33\"]\n[metrics]", &["10.0.0.0/33"]),
        edit(
            "prefix that is a name",
            "[metrics]",
            "[trust]\nproxies = [\"localhost\"]\n[metrics]",
            &["localhost"],
        ),
        edit(
            "bad address",
            "address = \"127.0.0.1:0\"",
            "address = \"127.0.0.1:99999\"",
            &["99999", "address"],
        ),
        edit("URL without a scheme", "url = \"http://", "url = \"", &["url", "http"]),
        edit("URL of another protocol", "url = \"http://", "url = \"ftp://", &["ftp"]),
        broken("via that is no token", Where::Line, &["via"], |shop| {
            shop.place.write("rempart.toml", format!("via = \"a b\"\n{}", shop.good));
        }),
    ]
}

fn meaning(rempart: &Rempart, taken: SocketAddr) -> Vec<Broken> {
    let site = |name: &str, host: &str| format!("[[site]]\nname = \"{name}\"\nhosts = [\"{host}\"]\n");
    let origin = "[[site.origin]]\nurl = \"http://127.0.0.1:9\"\n";
    let itself = rempart.plain();
    let mut cases = vec![
        edit("the same host twice", "hosts = [", format!("hosts = [\"{HOST}\", "), &["shop.test"]),
        append("a host on two sites", site("other", HOST) + origin, &["shop.test"]),
        append("a host on two sites in other letters", site("other", "SHOP.test") + origin, &["shop.test"]),
        append("a site without an origin", site("other", "other.test"), &["origin"]),
        append(
            "a site without hosts",
            format!("[[site]]\nname = \"other\"\nhosts = []\n{origin}"),
            &["hosts"],
        ),
        append("a host with a pattern", site("other", "shop[0-9]+.test") + origin, &["shop[0-9]+.test"]),
        append("a host with a scheme", site("other", "https://other.test") + origin, &["other.test"]),
        append("a host with a port", site("other", "other.test:443") + origin, &["other.test:443"]),
        append("a star inside a host", site("other", "www.*.test") + origin, &["www.*.test"]),
        append(
            "a PROXY header and HTTP/2",
            "http = \"2\"\nproxy_protocol = \"v1\"",
            &["proxy header", "http/2"],
        ),
        append("a PROXY header of no known version", "proxy_protocol = \"v3\"", &["v3"]),
        append("no connections at all", "max_connections = 0", &["max_connections", "out of bounds"]),
        edit(
            "PROXY headers from nobody",
            "tls = true",
            "tls = true\nproxy_protocol = true",
            &["trust.proxies"],
        ),
        append("TLS settings for an http origin", "[site.origin.tls]\nverify = true", &["tls", "https"]),
        edit(
            "metrics for everybody",
            "listen = \"off\"",
            "listen = \"0.0.0.0:9145\"",
            &["loopback", "127.0.0.1"],
        ),
        append("one address twice", "[[listen]]\naddress = \"127.0.0.1:1\"\n".repeat(2), &["127.0.0.1:1"]),
        edit("misspelt section", "[[listen]]", "[[listen_]]", &["listen"]),
    ];
    let mut port =
        append("a port in use", format!("[[listen]]\naddress = \"{taken}\"\n"), &["in use", "in-use"]);
    let round = format!("{}[[site.origin]]\nurl = \"http://{itself}\"\n", site("self", "self.test"));
    cases.push(append("a loop to itself", round, &["itself", "loop"]));
    // Whether a port is free, only the running process finds out.
    port.only_running = true;
    cases.push(port);
    cases.push(broken("no site", Where::File, &["site"], |shop| {
        let end = shop.good.find("[[site]]").unwrap_or(0);
        shop.place.write("rempart.toml", &shop.good[..end]);
    }));
    cases
}

fn certificates() -> Vec<Broken> {
    let file = |name, file: &'static str, content: &'static str, says| {
        broken(name, Where::Line, says, move |shop| shop.place.write(file, content))
    };
    let dated = |name, validity, says| {
        broken(name, Where::Line, says, move |shop: &Shop| {
            let leaf = shop.authority.leaf(&[HOST], validity);
            shop.place.write("cert.pem", leaf.certificate);
            shop.place.write("key.pem", leaf.key);
        })
    };
    let gone = |name, file: &'static str, says| {
        broken(name, Where::Line, says, move |shop: &Shop| fs::remove_file(shop.place.path(file)).unwrap())
    };
    vec![
        gone("certificate missing", "cert.pem", &["cert.pem"]),
        gone("key missing", "key.pem", &["key.pem"]),
        dated("certificate expired", Validity::Expired, &["expired"]),
        dated("certificate not yet valid", Validity::NotYet, &["not yet", "not valid"]),
        broken("certificate for another host", Where::Line, &["shop.test"], |shop| {
            let leaf = shop.authority.leaf(&["elsewhere.test"], Validity::Good);
            shop.place.write("cert.pem", leaf.certificate);
            shop.place.write("key.pem", leaf.key);
        }),
        broken("key of another certificate", Where::Line, &["key"], |shop| {
            shop.place.write("key.pem", shop.authority.leaf(&[HOST], Validity::Good).key);
        }),
        broken("key and certificate exchanged", Where::Line, &["key", "certificate"], |shop| {
            let leaf = shop.authority.leaf(&[HOST], Validity::Good);
            shop.place.write("cert.pem", leaf.key);
            shop.place.write("key.pem", leaf.certificate);
        }),
        file("certificate empty", "cert.pem", "", &["cert.pem"]),
        file("key empty", "key.pem", "", &["key.pem"]),
        file("certificate that is no PEM", "cert.pem", "not a certificate\n", &["cert.pem"]),
        file(
            "PEM that is no certificate",
            "cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END CERTIFICATE-----\n",
            &["cert.pem"],
        ),
        file(
            "PEM that is no key",
            "key.pem",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            &["key.pem", "key"],
        ),
        edit(
            "certificate that is a folder",
            "certificate = \"cert.pem\"",
            "certificate = \".\"",
            &["certificate", "folder", "directory"],
        ),
        edit("certificate without a key", "key = \"key.pem\"", "", &["key"]),
    ]
}

/// What is asked of visitors, and what they are told.
fn encryption() -> Vec<Broken> {
    let pair = "certificate = \"cert.pem\"";
    vec![
        append("a list browsers would not take", "[site.tls.hsts]\npreload = true", &["include_subdomains"]),
        append(
            "client authorities missing",
            "[site.tls.client]\nauthorities = \"nobody.pem\"",
            &["nobody.pem"],
        ),
        append("client authorities not named", "[site.tls.client]\nrequired = true", &["authorities"]),
        edit("unknown policy", pair, format!("policy = \"old\"\n{pair}"), &["intermediate"]),
        edit("OCSP response missing", pair, format!("ocsp = \"ocsp.der\"\n{pair}"), &["ocsp.der"]),
        broken("OCSP response that is none", Where::Line, &["ocsp.der"], move |shop| {
            shop.place.write("ocsp.der", "not a response");
            let text = shop.good.replacen(pair, &format!("ocsp = \"ocsp.der\"\n{pair}"), 1);
            shop.place.write("rempart.toml", text);
        }),
        broken("a redirect to nowhere", Where::Line, &["no listener has tls"], move |shop| {
            let text = shop.good.replacen("tls = true", "tls = false", 1);
            shop.place.write("rempart.toml", text.replacen(pair, &format!("redirect = true\n{pair}"), 1));
        }),
        append("a drain without end", "[drain]\nrequests = \"9999d\"", &["9999d", "1d"]),
        broken("a standby of another kind", Where::Line, &["true or false"], |shop| {
            shop.place.write("rempart.toml", format!("standby = \"yes\"\n{}", shop.good));
        }),
    ]
}

/// What is wanted of certificate authorities. None of these ever asks one.
fn authorities() -> Vec<Broken> {
    const AGREED: &str = "[acme]\nagree_to_terms = true\n";
    let pair = "certificate = \"cert.pem\"\nkey = \"key.pem\"";
    let asking = |name, acme: &str, says| {
        let acme = acme.to_owned();
        broken(name, Where::Line, says, move |shop: &Shop| {
            let text = shop.good.replacen(pair, "acme = true", 1);
            shop.place.write("rempart.toml", format!("{text}{acme}\n"));
        })
    };
    let agreed = |name, more: &str, says| asking(name, &format!("{AGREED}{more}"), says);
    vec![
        asking("no consent to terms", "", &["agree_to_terms"]),
        asking("consent withheld", "[acme]\nagree_to_terms = false", &["agree_to_terms"]),
        edit("asked for and given", pair, format!("acme = true\n{pair}"), &["acme = true"]),
        edit(
            "a file that is a name of an issued one",
            "\"cert.pem\"",
            "\"acme:shop.test\"",
            &["acme:shop.test"],
        ),
        agreed("unknown challenge", "challenge = \"dns\"", &["dns-01"]),
        agreed("dns-01 without a program", "challenge = \"dns-01\"", &["dns_command"]),
        agreed("everybody on demand", "on_demand = [\"*\"]", &["on_demand"]),
        agreed("a host on demand that no site has", "on_demand = [\"else.test\"]", &["else.test"]),
        agreed("contact that is no address", "contact = [\"ops\"]", &["mail"]),
        agreed("unknown authority", "[[acme.authority]]\ndirectory = \"letsencript\"", &["letsencrypt"]),
        agreed("authority in the clear", "[[acme.authority]]\ndirectory = \"http://ca.test/\"", &["https"]),
        agreed(
            "roots missing",
            "[[acme.authority]]\ndirectory = \"https://ca.test/\"\nroots = \"roots.pem\"",
            &["roots.pem"],
        ),
        agreed(
            "half an account binding",
            "[[acme.authority]]\ndirectory = \"https://ca.test/\"\neab_kid = \"k\"",
            &["eab_key"],
        ),
        broken("a wildcard without dns-01", Where::Line, &["dns-01"], move |shop: &Shop| {
            let text = shop.good.replacen(pair, "acme = true", 1);
            let text = text.replacen("hosts = [", "hosts = [\"*.shop.test\", ", 1);
            shop.place.write("rempart.toml", format!("{text}{AGREED}"));
        }),
    ]
}

fn files() -> Vec<Broken> {
    let mut cases = vec![
        broken("configuration vanished", Where::File, &["rempart.toml"], |shop| {
            fs::remove_file(shop.place.config()).unwrap();
        }),
        broken("configuration is a folder", Where::File, &["rempart.toml"], |shop| {
            fs::remove_file(shop.place.config()).unwrap();
            fs::create_dir(shop.place.config()).unwrap();
        }),
        broken("configuration of 100 MB", Where::File, &["rempart.toml"], |shop| {
            let line = "# a comment of exactly sixty-four bytes, its line end included..\n";
            let mut text = shop.good.clone();
            while text.len() < 100_000_000 {
                let _infallible = text.write_str(line);
            }
            shop.place.write("rempart.toml", text);
        }),
        broken("certificate of 100 MB", Where::Line, &["cert.pem"], |shop| {
            shop.place.write("cert.pem", vec![b'\n'; 100_000_000]);
        }),
        broken("configuration is a link to itself", Where::File, &["rempart.toml"], |shop| {
            fs::remove_file(shop.place.config()).unwrap();
            std::os::unix::fs::symlink("rempart.toml", shop.place.config()).unwrap();
        }),
    ];
    // Permissions do not hold root back, so only others can see this one.
    if !rustix::process::geteuid().is_root() {
        cases.push(broken("configuration unreadable", Where::File, &["rempart.toml"], |shop| {
            use std::os::unix::fs::PermissionsExt;
            fs::set_permissions(shop.place.config(), fs::Permissions::from_mode(0o000)).unwrap();
        }));
    }
    cases
}
