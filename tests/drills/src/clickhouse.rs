//! A real ClickHouse server of a drill: tables in two databases, and a reader whose grants can be widened while it runs.
//!
//! `system.columns` shows a reader the columns of every database it may use. A query that does not name the database gets each
//! column twice once a second database with the same table has been granted: the trigger of 18 November 2025.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::cluster::{PATIENCE, free_addresses, wait_for};
use crate::error::DrillError;

/// Where Debian has the server.
const PROGRAM: &str = "/usr/sbin/clickhouse-server";
/// How long one query may take.
const QUERY: Duration = Duration::from_secs(30);
/// Largest answer read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;
/// The database everybody uses, and the one that holds the same table for storage.
pub const DATABASES: [&str; 2] = ["default", "storage"];
/// The table whose columns are the features.
pub const TABLE: &str = "features";

/// Whether the server is installed.
pub fn is_installed() -> bool {
    Path::new(PROGRAM).exists()
}

/// One server; ends when this is dropped, or with the drill.
#[derive(Debug)]
pub struct Node {
    folder: PathBuf,
    /// Where it answers HTTP.
    pub address: SocketAddr,
    process: Child,
}

impl Node {
    /// Starts one in a folder that does not exist yet, with a table of so many features in both databases.
    pub fn start(folder: PathBuf, features: usize) -> Result<Self, DrillError> {
        let failed =
            || DrillError::system(format!("a ClickHouse could not be started in {}", folder.display()));
        fs::create_dir_all(&folder).map_err(failed())?;
        let [address] = free_addresses()?;
        let config = folder.join("config.xml");
        fs::write(&config, settings(&folder, address)).map_err(failed())?;
        fs::write(folder.join("users.xml"), users(&DATABASES[..1])).map_err(failed())?;
        let mut command = Command::new(PROGRAM);
        command.arg(format!("--config={}", config.display())).current_dir(&folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(failed())?;
        let node = Self { folder, address, process };
        let ready = wait_for(PATIENCE, || node.ask("admin", "SELECT 1").is_ok_and(|answer| answer == "1\n"));
        let late = DrillError::Late {
            what: "the first answer of a ClickHouse".to_owned(),
            seconds: PATIENCE.as_secs(),
            said: fs::read_to_string(node.folder.join("errors.txt")).unwrap_or_default(),
        };
        ready.ok_or(late)?;
        node.ask("admin", &format!("CREATE DATABASE {}", DATABASES[1]))?;
        let columns: Vec<String> =
            (1..=features).map(|number| format!("feature_{number:03} Float64")).collect();
        for database in DATABASES {
            let columns = columns.join(", ");
            node.ask("admin", &format!("CREATE TABLE {database}.{TABLE} ({columns}) ENGINE = Memory"))?;
        }
        Ok(node)
    }

    /// Lets the reader use so many of the two databases from now on.
    pub fn grant(&self, databases: usize) -> Result<(), DrillError> {
        let text = users(DATABASES.get(..databases).unwrap_or(&DATABASES));
        let written = fs::write(self.folder.join("users.xml"), text);
        written.map_err(DrillError::system("the grants could not be changed"))?;
        self.ask("admin", "SYSTEM RELOAD CONFIG").map(drop)
    }

    /// What it answers this user to a query.
    pub fn ask(&self, user: &str, query: &str) -> Result<String, DrillError> {
        let failed = || DrillError::system("a ClickHouse could not be asked");
        let mut stream = TcpStream::connect_timeout(&self.address, QUERY).map_err(failed())?;
        stream.set_read_timeout(Some(QUERY)).map_err(failed())?;
        // With HTTP/1.0 the answer ends with the connection.
        let head = format!("POST /?user={user} HTTP/1.0\r\nContent-Length: {}\r\n\r\n", query.len());
        stream.write_all((head + query).as_bytes()).map_err(failed())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).map_err(failed())?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        if head.split(' ').nth(1) == Some("200") {
            Ok(body.to_owned())
        } else {
            Err(DrillError::Unexpected(format!("ClickHouse refused {query:?}: {}", body.trim())))
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself; its folder goes with the drill's.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn settings(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "<?xml version=\"1.0\"?>\n<yandex>\n<logger><level>warning</level><log>{folder}/log.txt</log>\
         <errorlog>{folder}/errors.txt</errorlog></logger>\n<http_port>{}</http_port>\n\
         <listen_host>{}</listen_host>\n<path>{folder}/data/</path>\n<tmp_path>{folder}/temporary/</tmp_path>\n\
         <users_config>{folder}/users.xml</users_config>\n<default_profile>default</default_profile>\n\
         <default_database>default</default_database>\n<mark_cache_size>16777216</mark_cache_size>\n</yandex>\n",
        address.port(),
        address.ip()
    )
}

/// An administrator, and a reader that may use these databases.
fn users(databases: &[&str]) -> String {
    let allowed: String = databases.iter().map(|name| format!("<database>{name}</database>")).collect();
    let user = |name: &str, more: &str| {
        format!(
            "<{name}><password></password><networks><ip>127.0.0.1</ip></networks><profile>default</profile>\
             <quota>default</quota>{more}</{name}>\n"
        )
    };
    let reader = user("reader", &format!("<allow_databases>{allowed}</allow_databases>"));
    format!(
        "<?xml version=\"1.0\"?>\n<yandex>\n<profiles><default><max_threads>1</max_threads></default></profiles>\n\
         <quotas><default></default></quotas>\n<users>\n{}{reader}</users>\n</yandex>\n",
        user("admin", "")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The premise of the drill, seen with the real server.
    #[test]
    #[ignore = "needs the Debian package clickhouse-server"]
    fn a_second_grant_doubles_the_rows_of_a_query_that_names_no_database() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start(folder.path().join("node"), 60).unwrap();
        let query = format!("SELECT name FROM system.columns WHERE table = '{TABLE}' ORDER BY name");
        let rows = || node.ask("reader", &query).unwrap().lines().count();
        assert_eq!(rows(), 60);
        node.grant(2).unwrap();
        assert_eq!(rows(), 120);
        node.grant(1).unwrap();
        assert_eq!(rows(), 60);
    }
}
