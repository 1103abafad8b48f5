//! A table as the answer of a ClickHouse to a query: for whoever makes the packages of a feed.
//!
//! Asked over its HTTP interface with GET, which may only read. What its answer cannot mean in a table is an error with the
//! line it stands in; nothing is guessed, cut off or left out.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};

use crate::source::web::{client, is_loopback, reason};

/// A query and its whole answer take no longer.
const QUERY: Duration = Duration::from_secs(120);
/// Longest query, in bytes: it travels in the address.
const MAX_QUERY: usize = 16 << 10;
/// Bytes of a refusal that are shown.
const MAX_REFUSAL: usize = 400;
/// The form in which answers say what their columns hold.
const FORMAT: &str = "TabSeparatedWithNamesAndTypes";
/// What a cell without a value looks like.
const NULL: &str = "\\N";

/// Why there is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClickHouseError {
    /// Not one that is asked.
    #[error(
        "this address is not asked: it takes https, or http to a loopback address, and user and password by their own options"
    )]
    BadUrl,
    /// It does not fit into an address.
    #[error("the query has {0} bytes, and {MAX_QUERY} are allowed; make a view of it")]
    QueryTooLong(usize),
    /// The server could not be reached or has refused.
    #[error("{url}: {reason}")]
    NotAnswered {
        /// Which.
        url: String,
        /// Why.
        reason: String,
    },
    /// More than a feed may hold.
    #[error(
        "the answer has more than {0} bytes; nothing is cut off: have the query ask for less, or raise the limit"
    )]
    TooLarge(u64),
    /// An answer that is no table.
    #[error("line {line} of the answer: {reason}")]
    NoTable {
        /// Which, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

/// What is asked, and of whom.
#[derive(Clone)]
pub struct Query<'a> {
    /// Address of the HTTP interface, such as `http://127.0.0.1:8123/?database=bots`.
    pub url: &'a str,
    /// The query, without a FORMAT.
    pub sql: &'a str,
    /// Name and password; `None` is the server's default user.
    pub login: Option<(&'a str, &'a str)>,
    /// Longest answer, in bytes.
    pub limit: u64,
}

/// Asks, and makes a table of the answer (`snapshot::kind`, kind `table`).
pub async fn ask(query: &Query<'_>) -> Result<String, ClickHouseError> {
    let not_answered = |reason: String| ClickHouseError::NotAnswered { url: query.url.to_owned(), reason };
    let uri = address(query.url, query.sql)?;
    let plain = uri.scheme_str() == Some("http");
    let mut request = Request::get(uri);
    if let Some((user, password)) = query.login {
        request = request.header("x-clickhouse-user", user).header("x-clickhouse-key", password);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| not_answered(error.to_string()))?;
    let client = client(plain).map_err(not_answered)?;
    let whole = async {
        let answer = client.request(request).await.map_err(|error| not_answered(reason(&error)))?;
        let (status, most) = (answer.status(), usize::try_from(query.limit).unwrap_or(usize::MAX));
        let body = Limited::new(answer.into_body(), most).collect().await.map_err(|error| {
            match error.downcast_ref::<http_body_util::LengthLimitError>() {
                Some(_) => ClickHouseError::TooLarge(query.limit),
                None => not_answered(format!("the answer broke off: {error}")),
            }
        })?;
        let body = body.to_bytes();
        if status.is_success() {
            return Ok(body);
        }
        let said: String = String::from_utf8_lossy(&body).trim().chars().take(MAX_REFUSAL).collect();
        Err(not_answered(format!("it answered {status}: {said}")))
    };
    let late = |_| not_answered(format!("no answer within {} s", QUERY.as_secs()));
    table_of(&tokio::time::timeout(QUERY, whole).await.map_err(late)??)
}

/// The address that asks: an error comes as a status only when the server has waited for the end of the query.
fn address(url: &str, sql: &str) -> Result<Uri, ClickHouseError> {
    let bad = || ClickHouseError::BadUrl;
    let sql = sql.trim().trim_end_matches(';');
    if sql.len() > MAX_QUERY {
        return Err(ClickHouseError::QueryTooLong(sql.len()));
    }
    let uri: Uri = url.parse().map_err(|_| bad())?;
    let (scheme, authority) = (uri.scheme_str().ok_or_else(bad)?, uri.authority().ok_or_else(bad)?);
    let allowed = scheme == "https" || (scheme == "http" && is_loopback(authority.host()));
    if !allowed || authority.as_str().contains('@') {
        return Err(bad());
    }
    let before = uri.query().map_or(String::new(), |query| format!("{query}&"));
    let asked = format!("{before}wait_end_of_query=1&default_format={FORMAT}&query={}", escaped(sql));
    format!("{scheme}://{authority}{}?{asked}", uri.path()).parse().map_err(|_| bad())
}

/// RFC 3986 section 2.1: every byte but the unreserved ones.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len() * 3), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

/// Makes a table of an answer in the form `TabSeparatedWithNamesAndTypes`. Rows stay in their order; doubled keys, numbers that
/// are none and the like are for the kind to find.
pub fn table_of(answer: &[u8]) -> Result<String, ClickHouseError> {
    let wrong = |line: usize, reason: &str| ClickHouseError::NoTable { line, reason: reason.to_owned() };
    let text = std::str::from_utf8(answer).map_err(|_| wrong(1, "it is not UTF-8"))?;
    let count = text.split_terminator('\n').count();
    if !text.ends_with('\n') {
        return Err(wrong(count.max(1), "it has no end: the answer is empty or was cut off"));
    }
    let mut lines = (1..).zip(text.split_terminator('\n'));
    let (Some((_, names)), Some((_, types))) = (lines.next(), lines.next()) else {
        return Err(wrong(
            1,
            "there are no two lines with the names and types of columns; leave FORMAT out of the query",
        ));
    };
    let (names, types): (Vec<_>, Vec<_>) = (names.split('\t').collect(), types.split('\t').collect());
    if names.len() != types.len() {
        return Err(wrong(2, "it has not as many types as there are names; leave FORMAT out of the query"));
    }
    let mut table = String::with_capacity(text.len() + 64);
    table.push_str("#columns");
    for (name, of) in names.iter().zip(&types) {
        if name.is_empty() || name.contains([' ', ':', '\\']) {
            return Err(wrong(1, &format!("{name:?} cannot name a column; write `AS name` in the query")));
        }
        let holds = if is_number(of) { "number" } else { "text" };
        table.push_str(&format!(" {name}:{holds}"));
    }
    table.push('\n');
    for (number, line) in lines {
        for (at, cell) in line.split('\t').enumerate() {
            if at > 0 {
                table.push('\t');
            }
            push_cell(&mut table, cell).map_err(|reason| wrong(number, reason))?;
        }
        table.push('\n');
    }
    Ok(table)
}

/// Whether cells of this type of ClickHouse are numbers.
fn is_number(of: &str) -> bool {
    let inner = |of: &'_ str, around: &str| -> Option<String> {
        Some(of.strip_prefix(around)?.strip_prefix('(')?.strip_suffix(')')?.to_owned())
    };
    let mut of = of.to_owned();
    // Both may be there, one in the other.
    for around in ["LowCardinality", "Nullable"] {
        of = inner(&of, around).unwrap_or(of);
    }
    ["Int", "UInt", "Float", "BFloat", "Decimal"].iter().any(|number| of.starts_with(number))
        && !of.starts_with("Interval")
}

/// A cell, with its escapes undone.
fn push_cell(table: &mut String, cell: &str) -> Result<(), &'static str> {
    if cell == NULL {
        return Err(
            "a cell is NULL, which a table cannot hold: unknown is neither zero nor empty; choose a value or leave the row out in the query",
        );
    }
    let mut characters = cell.chars();
    while let Some(character) = characters.next() {
        match (character, character == '\\') {
            (_, false) => table.push(character),
            _ => match characters.next() {
                Some('\\') => table.push('\\'),
                Some('\'') => table.push('\''),
                _ => {
                    return Err(
                        "a cell holds a tab, a line end or another control character, which a table cannot",
                    );
                }
            },
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
