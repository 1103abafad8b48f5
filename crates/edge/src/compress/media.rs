//! Which media types are worth compressing, and which are compressed already.

/// What is known of a media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Text, or data that packs like text: what Cloudflare compresses without being told.
    Packs,
    /// Nothing is known; a rule may try.
    Unknown,
    /// Compressed by its format; a second time costs time and makes it larger.
    Packed,
}

/// Types without parameters, in lower case; one with a `/` at the end stands for all that begin so.
const TYPES: &[(Worth, &[&str])] = &[
    // Documents, styles, scripts and what is written like them.
    (
        Worth::Packs,
        &[
            "text/html",
            "text/plain",
            "text/css",
            "text/xml",
            "text/richtext",
            "text/javascript",
            "text/js",
            "text/x-script",
            "text/x-component",
            "text/x-java-source",
            "text/x-markdown",
            "application/javascript",
            "application/x-javascript",
            "application/javascript-binast",
            "application/x-perl",
            "application/x-httpd-cgi",
            "application/xml",
            "application/xhtml+xml",
            "application/rss+xml",
            "multipart/bag",
            "multipart/mixed",
        ],
    ),
    // Data.
    (
        Worth::Packs,
        &[
            "application/json",
            "application/vnd.api+json",
            "application/manifest+json",
            "application/ld+json",
            "application/graphql+json",
            "application/geo+json",
            "application/x-protobuf",
            "application/wasm",
        ],
    ),
    // Pictures and fonts whose format does not compress.
    (
        Worth::Packs,
        &[
            "image/svg+xml",
            "image/x-icon",
            "image/vnd.microsoft.icon",
            "font/ttf",
            "font/otf",
            "font/x-woff",
            "application/vnd.ms-fontobject",
            "application/ttf",
            "application/x-ttf",
            "application/otf",
            "application/x-otf",
            "application/truetype",
            "application/opentype",
            "application/x-opentype",
            "application/font-woff",
            "application/eot",
            "application/font",
            "application/font-sfnt",
        ],
    ),
    // Pictures, sound, film and fonts whose format compresses; archives.
    (
        Worth::Packed,
        &[
            "audio/",
            "video/",
            "image/avif",
            "image/gif",
            "image/heic",
            "image/heif",
            "image/jpeg",
            "image/jxl",
            "image/png",
            "image/webp",
            "font/woff",
            "font/woff2",
            "application/font-woff2",
            "application/gzip",
            "application/x-gzip",
            "application/zip",
            "application/zstd",
            "application/x-7z-compressed",
            "application/x-bzip2",
            "application/x-rar-compressed",
            "application/x-xz",
        ],
    ),
];

/// Looks a `Content-Type` up; parameters do not count (RFC 9110 section 8.3.1).
pub fn worth(content_type: &[u8]) -> Worth {
    let name = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |entry: &str| {
        let begins =
            name.get(..entry.len()).is_some_and(|start| start.eq_ignore_ascii_case(entry.as_bytes()));
        begins && (entry.ends_with('/') || name.len() == entry.len())
    };
    let row = TYPES.iter().find(|(_, entries)| entries.iter().any(|entry| is(entry)));
    row.map_or(Worth::Unknown, |(worth, _)| *worth)
}
