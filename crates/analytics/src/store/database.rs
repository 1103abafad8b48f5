//! The tables and what is asked of them (SQLite, write-ahead log: a process that is killed loses nothing that was committed).

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::analytics::{Filter, Minute, RequestView};
use api::roles::AnalyticsSettings;
use base::happening::Happening;
use base::time::Timestamp;
use rusqlite::types::ToSql;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction};
use serde::de::DeserializeOwned;

use super::Entry;

/// Version of the tables; a database of a later version is not touched.
const SCHEMA_VERSION: i64 = 1;
/// How long another process may hold the database before that is an error.
const BUSY: Duration = Duration::from_secs(2);
/// Bytes that the write-ahead log is cut to.
const LOG_BYTES: i64 = 4 << 20;
/// Rounds of deleting the oldest eighth, at most, each time the size is looked at.
const ROUNDS: usize = 32;
/// Minutes of all sites told in one answer at most.
const MAX_MINUTES: i64 = 100_000;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS minute (
        at INTEGER NOT NULL, site TEXT NOT NULL, requests INTEGER NOT NULL, errors INTEGER NOT NULL,
        minute TEXT NOT NULL, PRIMARY KEY (at, site)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS lost (at INTEGER PRIMARY KEY, requests INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS sample (
        at INTEGER NOT NULL, site TEXT NOT NULL, status INTEGER NOT NULL, request TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS sample_at ON sample (at);
    CREATE TABLE IF NOT EXISTS happening (
        at INTEGER NOT NULL, what TEXT NOT NULL, site TEXT, happening TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS happening_at ON happening (at);";

/// Why the database does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite says so.
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    /// An entry has no text form.
    #[error("an entry cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Made by a later Rempart.
    #[error("the database is of version {0}, later than {SCHEMA_VERSION}: a newer Rempart made it")]
    Later(i64),
}

impl DatabaseError {
    /// Whether what is in the file can no longer be relied on.
    pub fn is_damage(&self) -> bool {
        let Self::Sqlite(rusqlite::Error::SqliteFailure(error, _)) = self else { return false };
        matches!(error.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    }
}

/// A connection to the database.
pub struct Database(Connection);

impl Database {
    /// Opens it, or makes a new one, readable by this user only.
    pub fn open(path: &Path) -> Result<Self, DatabaseError> {
        make_private(path);
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        // Before the first table, or it has no effect.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        connection.pragma_update(None, "synchronous", "NORMAL")?;
        connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version > SCHEMA_VERSION {
            return Err(DatabaseError::Later(version));
        }
        connection.execute_batch(TABLES)?;
        connection.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        Ok(Self(connection))
    }

    /// Opens one that exists, to read only.
    pub fn open_to_read(path: &Path) -> Result<Self, DatabaseError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(Self(connection))
    }

    /// Writes all of these, or none.
    pub fn write(&mut self, entries: &[&Entry]) -> Result<(), DatabaseError> {
        let transaction = self.0.transaction()?;
        for entry in entries {
            insert(&transaction, entry)?;
        }
        transaction.commit()?;
        Ok(())
    }

    /// Deletes what is too old, then the oldest until what is left is small enough.
    pub fn tidy(&mut self, settings: &AnalyticsSettings, now: Timestamp) -> Result<(), DatabaseError> {
        let before = |days: u32| now.0.saturating_sub(u64::from(days) * 86_400_000_000) as i64;
        let (minutes, samples) = (before(settings.minutes_days), before(settings.samples_days));
        for (table, limit) in
            [("minute", minutes), ("lost", minutes), ("happening", minutes), ("sample", samples)]
        {
            self.0.execute(&format!("DELETE FROM {table} WHERE at < ?1"), [limit])?;
        }
        for _ in 0..ROUNDS {
            if self.used_bytes()? <= settings.max_bytes {
                break;
            }
            // Samples first: figures and happenings are small and are asked for longest.
            let tables = ["sample", "minute", "lost", "happening"];
            let mut deleted = 0;
            for table in tables {
                deleted = self.delete_oldest(table)?;
                if deleted > 0 {
                    break;
                }
            }
            if deleted == 0 {
                break;
            }
        }
        // One row for each page that is given back.
        let mut vacuum = self.0.prepare("PRAGMA incremental_vacuum")?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
        drop(rows);
        drop(vacuum);
        self.0.pragma_update_and_check(None, "wal_checkpoint", "TRUNCATE", |_| Ok(()))?;
        Ok(())
    }

    /// Deletes the oldest eighth of a table; answers how many that were.
    fn delete_oldest(&self, table: &str) -> Result<usize, DatabaseError> {
        let sql = format!(
            "DELETE FROM {table} WHERE at <= (SELECT at FROM {table} ORDER BY at LIMIT 1 \
             OFFSET (SELECT count(*) / 8 FROM {table}))"
        );
        Ok(self.0.execute(&sql, [])?)
    }

    /// Bytes of the pages that are in use.
    pub fn used_bytes(&self) -> Result<u64, DatabaseError> {
        let number = |name: &str| self.0.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = number("page_count")? - number("freelist_count")?;
        Ok((pages * number("page_size")?).unsigned_abs())
    }

    /// Samples of requests the filter takes, the newest so many, oldest first.
    pub fn samples(&self, filter: &Filter, limit: u32) -> Result<Vec<RequestView>, DatabaseError> {
        let (from, to) = filter.status.unwrap_or((0, u16::MAX));
        let since = filter.since.unwrap_or_default().0 as i64;
        let mut newest: Vec<RequestView> = self.texts(
            "SELECT request FROM sample WHERE at >= ?1 AND status BETWEEN ?2 AND ?3 AND (?4 IS NULL OR site = ?4)
             ORDER BY at DESC LIMIT ?5",
            &[&since, &from, &to, &filter.site, &limit],
        )?;
        newest.reverse();
        Ok(newest)
    }

    /// Operational events the filter takes, the newest so many, oldest first.
    pub fn happenings(&self, filter: &Filter, limit: u32) -> Result<Vec<Happening>, DatabaseError> {
        let since = filter.since.unwrap_or_default().0 as i64;
        let mut newest: Vec<Happening> = self.texts(
            "SELECT happening FROM happening WHERE at >= ?1 AND (?2 IS NULL OR site = ?2)
             ORDER BY at DESC LIMIT ?3",
            &[&since, &filter.site, &limit],
        )?;
        newest.reverse();
        Ok(newest)
    }

    /// Minutes from this time on, oldest first; of one site, if one is given.
    pub fn minutes(&self, since: Timestamp, site: Option<&str>) -> Result<Vec<Minute>, DatabaseError> {
        self.texts(
            "SELECT minute FROM minute WHERE at >= ?1 AND (?2 IS NULL OR site = ?2) ORDER BY at, site LIMIT ?3",
            &[&(since.0 as i64), &site, &MAX_MINUTES],
        )
    }

    /// Requests that nobody was told of, from this time on.
    pub fn lost(&self, since: Timestamp) -> Result<u64, DatabaseError> {
        let sql = "SELECT coalesce(sum(requests), 0) FROM lost WHERE at >= ?1";
        let sum: i64 = self.0.query_row(sql, [since.0 as i64], |row| row.get(0))?;
        Ok(sum.unsigned_abs())
    }

    /// Entries of which nothing can be read, as a later version may write, are left out.
    fn texts<T: DeserializeOwned>(&self, sql: &str, values: &[&dyn ToSql]) -> Result<Vec<T>, DatabaseError> {
        let mut statement = self.0.prepare(sql)?;
        let mut rows = statement.query(values)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let text: String = row.get(0)?;
            found.extend(serde_json::from_str(&text).ok());
        }
        Ok(found)
    }

    #[cfg(test)]
    pub(super) fn connection(&self) -> &Connection {
        &self.0
    }
}

/// SQLite gives its other files the mode of the first. What stands in the way of that is told when SQLite opens it.
fn make_private(path: &Path) {
    crate::ignore(fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path));
}

fn insert(transaction: &Transaction<'_>, entry: &Entry) -> Result<(), DatabaseError> {
    let time = |at: Timestamp| at.0 as i64;
    match entry {
        // A second part of the same minute, after this process was replaced, stands beside the first under a later time.
        Entry::Minute(minute) => {
            let mut at = time(minute.at);
            let site = minute.site.as_deref().unwrap_or_default();
            let taken = "SELECT coalesce(max(at), ?1 - 1) FROM minute WHERE at BETWEEN ?1 AND ?1 + 999999 AND site = ?2";
            let last: i64 = transaction.query_row(taken, (at, site), |row| row.get(0))?;
            at = at.max(last + 1);
            let values: (i64, &str, i64, i64, String) = (
                at,
                site,
                minute.figures.requests as i64,
                minute.figures.errors() as i64,
                serde_json::to_string(minute)?,
            );
            let sql = "INSERT INTO minute (at, site, requests, errors, minute) VALUES (?1, ?2, ?3, ?4, ?5)";
            transaction.execute(sql, values)?;
        }
        Entry::Sample(request) => {
            let site = request.site.as_deref().unwrap_or_default();
            let values = (time(request.at), site, request.status, serde_json::to_string(request)?);
            let sql = "INSERT INTO sample (at, site, status, request) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, values)?;
        }
        Entry::Happening(happening) => {
            let text = serde_json::to_string(happening)?;
            let what = serde_json::to_string(&happening.what)?;
            let values = (time(happening.at), what.trim_matches('"'), happening.site.as_deref(), text);
            let sql = "INSERT INTO happening (at, what, site, happening) VALUES (?1, ?2, ?3, ?4)";
            transaction.execute(sql, values)?;
        }
        Entry::Lost(at, requests) => {
            let sql = "INSERT INTO lost (at, requests) VALUES (?1, ?2)
                ON CONFLICT (at) DO UPDATE SET requests = requests + excluded.requests";
            transaction.execute(sql, (time(*at), *requests as i64))?;
        }
    }
    Ok(())
}

/// Moves a database out of the way, and the one that was moved before goes. Answers where it lies now.
pub(super) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let with = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let aside = with(".damaged");
    fs::rename(path, &aside)?;
    for log in ["-wal", "-shm"] {
        match fs::remove_file(with(log)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}
