//! The architecture as data: which package may use which, where foreign types live, which files are allowed to be long.

/// One package of the workspace.
pub struct Wall {
    /// Name of the package and of its folder.
    pub name: &'static str,
    /// Folder that holds its folder.
    pub under: &'static str,
    /// Packages of this workspace it may use; tests included.
    pub may_use: &'static [&'static str],
    /// No tokio, files, sockets, ambient clock or randomness: `PURE_MUST_NOT_USE` holds.
    pub pure: bool,
}

/// Packages that may exist, foundations first. One that is not listed here is a finding, so a new crate is a decision.
pub const WALLS: &[Wall] = &[
    Wall { name: "base", under: "crates", may_use: &[], pure: true },
    Wall { name: "api", under: "crates", may_use: &["base"], pure: false },
    Wall { name: "expr", under: "crates", may_use: &["base"], pure: true },
    Wall { name: "guard", under: "crates", may_use: &["base"], pure: true },
    // `api` for its diagnostics only: compile makes them, the admin socket carries them.
    Wall { name: "snapshot", under: "crates", may_use: &["base", "api", "expr", "guard"], pure: true },
    Wall { name: "cache", under: "crates", may_use: &["base"], pure: false },
    Wall { name: "feed", under: "crates", may_use: &["base", "api", "snapshot"], pure: false },
    Wall { name: "mesh", under: "crates", may_use: &["base", "api"], pure: false },
    Wall { name: "compute", under: "crates", may_use: &["base"], pure: false },
    Wall { name: "learn", under: "crates", may_use: &["base", "guard"], pure: false },
    Wall {
        name: "edge",
        under: "crates",
        may_use: &["base", "api", "expr", "guard", "snapshot", "cache", "compute", "feed", "mesh"],
        pure: false,
    },
    Wall { name: "dns", under: "crates", may_use: &["base", "api", "snapshot", "feed"], pure: false },
    Wall {
        name: "control",
        under: "crates",
        may_use: &["base", "api", "snapshot", "feed", "mesh"],
        pure: false,
    },
    Wall { name: "analytics", under: "crates", may_use: &["base", "api", "snapshot"], pure: false },
    Wall { name: "watch", under: "crates", may_use: &["base", "api"], pure: false },
    Wall { name: "acme", under: "crates", may_use: &["base", "api"], pure: false },
    // Drills see the Rempart they put to the test from outside, as an operator and as a visitor would.
    Wall { name: "drills", under: "tests", may_use: &["base", "api", "snapshot", "feed"], pure: false },
    Wall {
        name: "app",
        under: "crates",
        may_use: &[
            "base",
            "api",
            "expr",
            "guard",
            "snapshot",
            "cache",
            "feed",
            "mesh",
            "compute",
            "learn",
            "edge",
            "dns",
            "control",
            "analytics",
            "watch",
            "acme",
            // `rempart drill`: famous outages re-enacted by the binary itself, on the operator's own machine.
            "drills",
        ],
        pure: false,
    },
    // Tests see the binary from outside; they may only know what travels over the admin socket.
    Wall { name: "harness", under: "tests", may_use: &["base", "api"], pure: false },
    Wall { name: "e2e", under: "tests", may_use: &["base", "api", "harness", "snapshot"], pure: false },
    // Fuzz targets call parsers directly, as no other test outside their crate may.
    Wall {
        name: "fuzzing",
        under: "tests",
        may_use: &["base", "api", "expr", "snapshot", "edge"],
        pure: false,
    },
    Wall { name: "xtask", under: "", may_use: &[], pure: false },
];

/// What a pure crate must not name as a dependency: what reaches for files, sockets, clocks or randomness. What `std` offers of the same is banned by the crate's clippy.toml.
pub const PURE_MUST_NOT_USE: &[&str] = &[
    "async-std",
    "chrono",
    "crossbeam-channel",
    "fastrand",
    "getrandom",
    "h2",
    "hickory-proto",
    "hickory-resolver",
    "hyper",
    "hyper-util",
    "jiff",
    "libc",
    "mio",
    "nix",
    "notify",
    "quinn",
    "rand",
    "rayon",
    "reqwest",
    "rusqlite",
    "rustix",
    "rustls-native-certs",
    "smol",
    "socket2",
    "tempfile",
    "time",
    "tokio",
    "tokio-rustls",
    "tokio-util",
    "tracing-subscriber",
    "ureq",
];

/// A foreign crate whose types stay in a few places, so that replacing it is one module's work.
pub struct Foreign {
    /// Name as written in a Rust path.
    pub path: &'static str,
    /// Files, or folders with a `/` at the end, that may name it.
    pub homes: &'static [&'static str],
}

/// Protocol libraries and their homes.
pub const FOREIGN: &[Foreign] = &[
    Foreign { path: "aws_lc_rs", homes: &["crates/edge/src/tls/", "crates/api/src/seal.rs"] },
    Foreign { path: "h2", homes: &["crates/edge/src/h2/"] },
    Foreign { path: "instant_acme", homes: &["crates/acme/"] },
    Foreign { path: "hickory_resolver", homes: &["crates/edge/src/upstream/resolve.rs"] },
    Foreign {
        path: "rustls",
        homes: &[
            "crates/edge/src/tls/",
            // A generation owns the settings its listeners and origins use.
            "crates/edge/src/generation.rs",
            "crates/edge/src/upstream/transport.rs",
            // Whether a key belongs to its certificate, computed without any connection.
            "crates/snapshot/src/compile/certificate.rs",
            // How the keeper of certificates speaks to authorities, and what its tests answer challenges with.
            "crates/acme/src/http.rs",
            // How packages are fetched.
            "crates/feed/src/source/web.rs",
            // How webhooks are sent, and sites are asked from outside.
            "crates/watch/src/notify/webhook.rs",
            "crates/watch/src/probe/",
            "crates/acme/tests/",
            // Certificates whose facts rules see.
            "crates/edge/src/rules/facts/tests/",
            // A visitor of a drill, with TLS.
            "tests/drills/src/wire.rs",
        ],
    },
    Foreign {
        path: "tokio_rustls",
        homes: &[
            "crates/edge/src/tls/",
            "crates/edge/src/io.rs",
            "crates/edge/src/upstream/transport.rs",
            "crates/watch/src/probe/",
            "crates/acme/tests/",
            "tests/drills/src/wire.rs",
        ],
    },
    Foreign { path: "lettre", homes: &["crates/watch/src/notify/mail.rs"] },
    Foreign { path: "maud", homes: &["crates/watch/src/page/", "tests/drills/src/"] },
    Foreign { path: "rusqlite", homes: &["crates/analytics/src/store/"] },
    Foreign {
        path: "rcgen",
        homes: &[
            "crates/edge/src/tls/",
            "crates/snapshot/tests/",
            "crates/snapshot/src/kind/tests.rs",
            "crates/watch/src/probe/tests.rs",
            "crates/acme/",
            // Certificates whose facts rules see.
            "crates/edge/src/rules/facts/tests/",
        ],
    },
    Foreign { path: "brotli", homes: &["crates/edge/src/compress/"] },
    Foreign { path: "flate2", homes: &["crates/edge/src/compress/"] },
    Foreign { path: "zstd", homes: &["crates/snapshot/src/package.rs", "crates/edge/src/compress/"] },
];

/// Lines a Rust file may have.
pub const FILE_LINES: usize = 600;

/// Files that may be longer, and why.
pub const LONG_FILES: &[(&str, &str)] = &[];

/// Lines ARCHITECTURE.md may have: past that nobody reads it to the end.
pub const ARCHITECTURE_LINES: usize = 300;

/// Files a newcomer looks for first.
pub const MUST_EXIST: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "STYLE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "LICENSE",
    "deny.toml",
    "docs/README.md",
    "changelog.d/README.md",
];

/// A file may hold this many KiB; larger things belong elsewhere.
pub const FILE_KIB: usize = 1024;
