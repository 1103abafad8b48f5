//! Servers of other people, started for one test: nginx, HAProxy, Node, Python, and gRPC on Python.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use command_fds::{CommandFdExt, FdMapping};
use tempfile::TempDir;

use crate::process::Process;
use crate::{ports, tools};

/// A foreign server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    process: Process,
    folder: TempDir,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its folder; nginx serves the files in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it said on stderr.
    pub fn log(&self) -> String {
        self.process.stderr.text()
    }

    /// nginx serving the files of its folder, and whatever these further lines of its `server` block say.
    pub fn nginx(lines: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, root) = (ports::free(), folder.path().display().to_string());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {root}/{name};\n"))
            .concat();
        let config = format!(
            "worker_processes 1;\npid {root}/nginx.pid;\nerror_log stderr notice;\n\
             events {{ worker_connections 512; }}\n\
             http {{\n{temporary}access_log off;\ntypes {{ text/html html; text/plain txt; }}\n\
             keepalive_requests 1000000;\nclient_max_body_size 0;\n\
             server {{ listen 127.0.0.1:{port}; root {root};\n{lines}\n}}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(tools::program("nginx"));
        // The worker must be able to read the folder of a test that runs as root.
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        command.arg("-c").arg(&file).arg("-p").arg(folder.path());
        command.args(["-e", "stderr", "-g", &format!("daemon off; master_process off; {user}")]);
        let process = Process::start("nginx", &mut command);
        // Sockets are bound before the limits are told, so from here on connections wait instead of failing.
        let ready = process.stderr.wait_for(|line| line.contains("getrlimit"));
        assert!(ready.is_some(), "nginx does not start:\n{}", process.stderr.text());
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process, folder }
    }

    /// HAProxy on this socket, passing connections on to an address; `options` are those of its `server` line.
    pub fn haproxy(socket: &TcpListener, to: SocketAddr, options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // It takes over a socket that listens already, so from here on connections wait instead of failing.
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
             listen all\n  bind fd@3\n  server only {to} {options}\n"
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let mut command = Command::new(tools::program("haproxy"));
        command.args(["-db", "-f"]).arg(&file).current_dir(folder.path());
        let parent_fd = OwnedFd::from(socket.try_clone().unwrap());
        command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 3 }]).expect("one descriptor");
        let process = Process::start("haproxy", &mut command);
        Self { address: socket.local_addr().unwrap(), process, folder }
    }

    /// The Node origin of the `foreign` folder.
    pub fn node() -> Self {
        let mut command = Command::new(tools::program("node"));
        command.arg("--no-warnings").arg(tools::script("origin.mjs"));
        Self::announcing("node", &mut command)
    }

    /// The Python origin of the `foreign` folder.
    pub fn python() -> Self {
        let mut command = Command::new(tools::python());
        command.arg("-u").arg(tools::script("origin.py"));
        Self::announcing("python", &mut command)
    }

    /// The gRPC origin of the `foreign` folder.
    pub fn grpc() -> Self {
        let mut command = Command::new(tools::python());
        command.arg("-u").arg(tools::script("grpc_origin.py"));
        Self::announcing("grpc", &mut command)
    }

    /// Starts a server that prints `listening PORT` once it does.
    fn announcing(name: &str, command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Process::start(name, command.current_dir(folder.path()));
        let line = process.expect_line(|line| line.starts_with("listening "));
        let port: u16 = line["listening ".len()..].parse().unwrap();
        Self { address: SocketAddr::from(([127, 0, 0, 1], port)), process, folder }
    }
}
