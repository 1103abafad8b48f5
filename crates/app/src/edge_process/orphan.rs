//! An edge whose supervisor has ended goes on serving, and hands itself over to the next one.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::process::{Adopted, ListenerOrder, Word};

use super::{EdgeProcess, Parts};
use crate::admin;
use crate::channel::Channel;

/// A socket in the state folder, open for as long as this process serves.
pub struct Rendezvous {
    listener: UnixListener,
    path: PathBuf,
}

impl Rendezvous {
    /// Opens it, named after this process.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join(format!("{}.sock", std::process::id()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }
}

impl Drop for Rendezvous {
    fn drop(&mut self) {
        // A socket that stays behind refuses connections, by which the next supervisor knows it as dead.
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "a rendezvous socket was not removed");
        }
    }
}

/// Serves on until a supervisor comes. `None`: this process serves nothing and may end.
pub fn wait_for_supervisor(process: &Arc<EdgeProcess>) -> anyhow::Result<Option<Arc<Channel>>> {
    let (waiting, serves) = {
        let parts = process.lock();
        (parts.waiting.clone(), !parts.listeners.is_empty())
    };
    #[cfg(feature = "faults")]
    let serves = serves && !edge::fault::without("orphan");
    let Some(waiting) = waiting.filter(|_| serves) else { return Ok(None) };
    process.lock_living().1 = None;
    tracing::error!("the supervisor has ended: this edge serves on, and waits for another one");
    loop {
        let (stream, _) = waiting.listener.accept()?;
        if !admin::is_allowed(&stream)? {
            continue;
        }
        let channel = Arc::new(Channel::new(stream)?);
        match hand_over(process, &channel) {
            Ok(()) => {
                process.talk_to(channel.clone());
                tracing::info!("this edge has a supervisor again");
                return Ok(Some(channel));
            }
            Err(error) => tracing::warn!(%error, "a supervisor came and went"),
        }
    }
}

fn hand_over(process: &EdgeProcess, channel: &Channel) -> io::Result<()> {
    channel.send(&process.hello(), &[])?;
    let mut parts = process.lock();
    let held = parts.held.take();
    let Parts { in_force, listeners, metrics_socket, tickets, supervision, .. } = &*parts;
    let mut descriptors: Vec<BorrowedFd<'_>> = Vec::new();
    descriptors.extend(in_force.as_ref().map(|ready| ready.package.as_fd()));
    let mut orders = Vec::with_capacity(listeners.len());
    for (listener, sockets) in listeners {
        descriptors.extend(sockets.iter().map(std::os::fd::AsFd::as_fd));
        orders.push(ListenerOrder { sockets: sockets.len(), ..listener.clone() });
    }
    descriptors.extend(metrics_socket.as_ref().map(std::os::fd::AsFd::as_fd));
    descriptors.extend(held.as_ref().map(std::os::fd::AsFd::as_fd));
    let adopted = Adopted {
        loaded: in_force.as_ref().map(|ready| ready.loaded.clone()),
        source: in_force.as_ref().map_or(api::admin::GenerationSource::Defaults, |ready| ready.source),
        listeners: orders,
        metrics: metrics_socket.is_some(),
        tickets: tickets.clone(),
        admin: held.is_some(),
        supervision: supervision.clone(),
    };
    channel.send(&Word::Adopt(Box::new(adopted)), &descriptors)
}
