//! The listening sockets: opened here or given by systemd, kept for as long as they are configured, lent to edges.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd};

use api::diagnostic::{Diagnostic, Severity};
use api::process::{Adopted, ListenerOrder, WantedListener};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections the kernel holds for a socket until they are accepted.
const BACKLOG: i32 = 4096;

/// One listener and its sockets.
#[derive(Debug)]
pub struct Listening {
    /// Names it towards the edges.
    pub id: u64,
    /// Address as configured; port 0 stays 0.
    pub configured: SocketAddr,
    /// Address as bound.
    pub address: SocketAddr,
    /// Whether connections begin with a TLS handshake.
    pub tls: bool,
    /// Whether connections of trusted proxies begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Whether its sockets leave IPv4 to others. `None` where there is no such choice: any address but `[::]`, and sockets
    /// that somebody else has opened.
    only_v6: Option<bool>,
    sockets: Vec<TcpListener>,
}

/// Every listening socket of this Rempart.
#[derive(Debug, Default)]
pub struct Sockets {
    listeners: Vec<Listening>,
    /// Given by systemd and wanted by no listener yet.
    inherited: Vec<TcpListener>,
    metrics: Option<(SocketAddr, TcpListener)>,
    next: u64,
}

/// Listeners as they shall be: some stay, some are new.
#[derive(Debug)]
pub struct Plan {
    /// Position among those in force, or a new one, in the order wanted.
    wanted: Vec<Place>,
}

#[derive(Debug)]
enum Place {
    Kept { id: u64, tls: bool, proxy_protocol: bool },
    Fresh(Listening),
}

impl Sockets {
    /// With what systemd has passed (sd_listen_fds(3)), if anything.
    pub fn inherit() -> Self {
        let mut passed = listenfd::ListenFd::from_env();
        let mut inherited = Vec::new();
        for index in 0..passed.len() {
            match passed.take_tcp_listener(index) {
                Ok(Some(socket)) => match socket.set_nonblocking(true) {
                    Ok(()) => inherited.push(socket),
                    Err(error) => tracing::warn!(index, %error, "a socket that was passed in cannot be used"),
                },
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(index, %error, "a socket that was passed in is not a TCP listener")
                }
            }
        }
        Self { inherited, ..Self::default() }
    }

    /// Takes over what an edge hands over: the sockets of its listeners, and of its metrics.
    pub fn adopt(&mut self, adopted: &Adopted, descriptors: Vec<std::os::fd::OwnedFd>) {
        let mut sockets = descriptors.into_iter().map(TcpListener::from);
        for ListenerOrder { id, configured, address, tls, proxy_protocol, sockets: count } in
            adopted.listeners.iter().cloned()
        {
            let sockets: Vec<_> = sockets.by_ref().take(count).collect();
            let only_v6 = sockets.first().and_then(leaves_ipv4);
            self.next = self.next.max(id + 1);
            self.listeners.push(Listening { id, configured, address, tls, proxy_protocol, only_v6, sockets });
        }
        if adopted.metrics
            && let Some(socket) = sockets.next()
            && let Some(configured) = adopted.loaded.as_ref().and_then(|loaded| loaded.metrics)
        {
            self.metrics = Some((configured, socket));
        }
    }

    /// Opens what is wanted and not there; when something cannot be opened, nothing has changed.
    pub fn plan(&mut self, wanted: &[WantedListener], threads: usize) -> Result<Plan, Vec<Diagnostic>> {
        let mut left: Vec<(u64, SocketAddr, bool)> =
            self.listeners.iter().map(|held| (held.id, held.configured, held.tls)).collect();
        let (mut places, mut errors) = (Vec::with_capacity(wanted.len()), Vec::new());
        // Ports this process has on another address, or on this one and may be giving up.
        let mut ours: Vec<u16> = self.listeners.iter().map(|held| held.address.port()).collect();
        for listener in wanted {
            // The same address can be wanted several times when its port is 0.
            let same = |held: &&(u64, SocketAddr, bool)| held.1 == listener.address;
            let alike = left.iter().position(|held| same(&held) && held.2 == listener.tls);
            let mut address = listener.address;
            if let Some(found) = alike.or_else(|| left.iter().position(|held| same(&held))) {
                let (id, _, _) = left.remove(found);
                let held = self.listeners.iter().find(|held| held.id == id);
                // Who takes IPv4 cannot be changed on a socket that is there: it is opened anew beside it.
                match held.filter(|held| held.only_v6.is_some_and(|only| only != leave_ipv4(address, wanted)))
                {
                    None => {
                        let WantedListener { tls, proxy_protocol, .. } = *listener;
                        places.push(Place::Kept { id, tls, proxy_protocol });
                        continue;
                    }
                    Some(held) => address = held.address,
                }
            }
            let opened = self.open(listener, address, wanted, threads, &ours);
            ours.push(address.port());
            match opened {
                Ok(fresh) => places.push(Place::Fresh(fresh)),
                Err(error) => errors.push(bind_error(listener, &error)),
            }
        }
        if errors.is_empty() { Ok(Plan { wanted: places }) } else { Err(errors) }
    }

    fn open(
        &mut self,
        wanted: &WantedListener,
        address: SocketAddr,
        all: &[WantedListener],
        threads: usize,
        ours: &[u16],
    ) -> io::Result<Listening> {
        let WantedListener { address: configured, tls, proxy_protocol, .. } = *wanted;
        let passed = self
            .inherited
            .iter()
            .position(|socket| socket.local_addr().is_ok_and(|bound| bound == configured));
        let sockets = match passed {
            // One socket, shared by all threads.
            Some(at) => vec![self.inherited.swap_remove(at)],
            None => bind(address, leave_ipv4(configured, all), threads, ours.contains(&address.port()))?,
        };
        let address = sockets.first().map_or(Ok(address), TcpListener::local_addr)?;
        let only_v6 = sockets.first().and_then(leaves_ipv4);
        self.next += 1;
        Ok(Listening { id: self.next, configured, address, tls, proxy_protocol, only_v6, sockets })
    }

    /// What an edge is told so that it has the listeners of a plan. `holds`: it has those in force already.
    pub fn orders<'a>(&'a self, plan: &'a Plan, holds: bool) -> (Vec<ListenerOrder>, Vec<BorrowedFd<'a>>) {
        let (mut orders, mut descriptors) = (Vec::new(), Vec::new());
        for place in &plan.wanted {
            let (listening, tls, proxy_protocol, send) = match place {
                Place::Fresh(fresh) => (fresh, fresh.tls, fresh.proxy_protocol, true),
                Place::Kept { id, tls, proxy_protocol } => {
                    match self.listeners.iter().find(|held| held.id == *id) {
                        Some(held) => (held, *tls, *proxy_protocol, !holds),
                        None => continue,
                    }
                }
            };
            let sockets = if send { listening.sockets.len() } else { 0 };
            orders.push(ListenerOrder {
                id: listening.id,
                configured: listening.configured,
                address: listening.address,
                tls,
                proxy_protocol,
                sockets,
            });
            if send {
                descriptors.extend(listening.sockets.iter().map(std::os::fd::AsFd::as_fd));
            }
        }
        (orders, descriptors)
    }

    /// What an edge without any listeners is told so that it has those in force.
    pub fn all_orders(&self) -> (Vec<ListenerOrder>, Vec<BorrowedFd<'_>>) {
        let orders = self.listeners.iter().map(|held| ListenerOrder {
            id: held.id,
            configured: held.configured,
            address: held.address,
            tls: held.tls,
            proxy_protocol: held.proxy_protocol,
            sockets: held.sockets.len(),
        });
        let sockets = self.listeners.iter().flat_map(|held| &held.sockets);
        (orders.collect(), sockets.map(std::os::fd::AsFd::as_fd).collect())
    }

    /// The plan is in force: what it does not want is closed.
    pub fn put_in_force(&mut self, plan: Plan) {
        let mut before = std::mem::take(&mut self.listeners);
        for place in plan.wanted {
            match place {
                Place::Fresh(fresh) => self.listeners.push(fresh),
                Place::Kept { id, tls, proxy_protocol } => {
                    if let Some(at) = before.iter().position(|held| held.id == id) {
                        self.listeners.push(Listening { tls, proxy_protocol, ..before.swap_remove(at) });
                    }
                }
            }
        }
    }

    /// The copies of what a plan does not want are closed, so that the edge's own are the last: it takes what waits in
    /// the backlog before it closes them.
    pub fn release(&mut self, plan: &Plan) {
        for held in &mut self.listeners {
            let kept =
                plan.wanted.iter().any(|place| matches!(place, Place::Kept { id, .. } if *id == held.id));
            if !kept {
                held.sockets.clear();
            }
        }
    }

    /// A change that had released sockets was not made after all: they are opened again.
    pub fn restore(&mut self, threads: usize) {
        for held in self.listeners.iter_mut().filter(|held| held.sockets.is_empty()) {
            for _ in 0..threads.max(1) {
                match open(held.address, held.only_v6.unwrap_or(false), true) {
                    Ok(socket) => held.sockets.push(socket),
                    Err(error) => {
                        tracing::error!(address = %held.address, %error, "a listener could not be opened again");
                        break;
                    }
                }
            }
        }
    }

    /// Closes everything: whoever connects now is refused instead of waiting for nobody.
    pub fn close(&mut self) {
        *self = Self { next: self.next, ..Self::default() };
    }

    /// The listeners in force.
    pub fn in_force(&self) -> &[Listening] {
        &self.listeners
    }

    /// Opens, moves or closes the metrics socket. Answers whether it is another one now.
    pub fn serve_metrics(&mut self, wanted: Option<SocketAddr>) -> io::Result<bool> {
        if self.metrics.as_ref().map(|(configured, _)| *configured) == wanted {
            return Ok(false);
        }
        let had = self.metrics.take().is_some();
        let Some(address) = wanted else { return Ok(had) };
        self.metrics = Some((address, TcpListener::bind(address)?));
        Ok(true)
    }

    /// The metrics socket.
    pub fn metrics(&self) -> Option<BorrowedFd<'_>> {
        self.metrics.as_ref().map(|(_, socket)| socket.as_fd())
    }
}

/// One socket per thread on the same address; the kernel spreads connections over them.
fn bind(configured: SocketAddr, only_v6: bool, threads: usize, ours: bool) -> io::Result<Vec<TcpListener>> {
    if configured.port() != 0 && !ours {
        // Sockets that share a port do not refuse each other: only a plain one finds out whether the port is taken.
        drop(open(configured, only_v6, false)?);
    }
    let first = open(configured, only_v6, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..threads {
        sockets.push(open(address, only_v6, true)?);
    }
    Ok(sockets)
}

/// `[::]` takes IPv4 too, unless all of IPv4 is somebody else's on the list. A single IPv4 address can be beside it: the
/// system prefers the socket that says more.
fn leave_ipv4(address: SocketAddr, all: &[WantedListener]) -> bool {
    let all_of_ipv4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    address.ip() == Ipv6Addr::UNSPECIFIED
        && address.port() != 0
        && all.iter().any(|other| other.address == all_of_ipv4)
}

/// Whether a socket on `[::]` leaves IPv4 to others; `None` for another address, and for a socket that was not opened here,
/// which cannot be opened anew beside itself.
fn leaves_ipv4(socket: &TcpListener) -> Option<bool> {
    let any = socket.local_addr().ok()?.ip() == Ipv6Addr::UNSPECIFIED;
    let socket = SockRef::from(socket);
    (any && socket.reuse_port().ok()?).then(|| socket.only_v6().ok()).flatten()
}

fn open(address: SocketAddr, only_v6: bool, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(only_v6)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_error(listener: &WantedListener, error: &io::Error) -> Diagnostic {
    let address = listener.address;
    let (code, message, hint) = match error.kind() {
        io::ErrorKind::AddrInUse => (
            "port-in-use",
            format!("another program listens on {address} already"),
            format!("stop that program (`ss -ltnp` names it) or choose another port than {}", address.port()),
        ),
        io::ErrorKind::PermissionDenied => (
            "port-not-allowed",
            format!("this user may not listen on {address}"),
            "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE; or choose a higher port"
                .to_owned(),
        ),
        io::ErrorKind::AddrNotAvailable => (
            "address-not-here",
            format!("no interface of this machine has the address {}", address.ip()),
            "write an address of this machine, or 0.0.0.0 or [::] for all of them".to_owned(),
        ),
        _ => (
            "cannot-listen",
            format!("cannot listen on {address}: {error}"),
            "see the system's log for the cause".to_owned(),
        ),
    };
    Diagnostic {
        severity: Severity::Error,
        code: code.to_owned(),
        message,
        location: listener.location.clone(),
        hint: Some(hint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(addresses: &[(&str, bool)]) -> Vec<WantedListener> {
        let listener = |(address, tls): &(&str, bool)| {
            let address = address.parse().unwrap();
            WantedListener { address, tls: *tls, proxy_protocol: false, location: None }
        };
        addresses.iter().map(listener).collect()
    }

    fn put(sockets: &mut Sockets, addresses: &[(&str, bool)]) -> (Vec<ListenerOrder>, usize) {
        let plan = sockets.plan(&wanted(addresses), 2).unwrap();
        let (orders, descriptors) = sockets.orders(&plan, true);
        let told = (orders, descriptors.len());
        sockets.put_in_force(plan);
        told
    }

    #[test]
    fn what_stays_keeps_its_number_and_its_sockets() {
        let mut sockets = Sockets::default();
        let (first, sent) = put(&mut sockets, &[("127.0.0.1:0", false), ("127.0.0.1:0", true)]);
        assert_eq!((sent, first[0].sockets, first[1].sockets), (4, 2, 2));
        let (second, sent) = put(&mut sockets, &[("127.0.0.1:0", true), ("[::1]:0", false)]);
        assert_eq!((second[0].id, second[0].address), (first[1].id, first[1].address));
        assert_eq!((sent, second[0].sockets), (2, 0), "only the new one is sent");
        assert_eq!(sockets.all_orders().1.len(), 4, "a process that has none gets all");
        assert!(std::net::TcpStream::connect(first[0].address).is_err(), "what is not wanted is closed");
        assert!(std::net::TcpStream::connect(second[1].address).is_ok());
        let (third, _) = put(&mut sockets, &[("127.0.0.1:0", false)]);
        assert_eq!((third[0].id, third[0].tls), (second[0].id, false), "TLS can change on the same sockets");
    }

    #[test]
    fn who_takes_ipv4_follows_the_list_on_the_same_port() {
        let mut sockets = Sockets::default();
        let (first, _) = put(&mut sockets, &[("[::]:0", false)]);
        let port = first[0].address.port();
        let (six, four) = (format!("[::]:{port}"), format!("0.0.0.0:{port}"));
        let one = format!("127.0.0.1:{port}");
        drop(sockets);
        let mut sockets = Sockets::default();
        let mut number = 0;
        for (addresses, only_v6, opened_anew) in [
            (vec![&six], Some(false), true),
            (vec![&six, &one], Some(false), false),
            (vec![&six, &four], Some(true), true),
            (vec![&six, &four], Some(true), false),
            (vec![&six], Some(false), true),
        ] {
            let wanted: Vec<_> = addresses.iter().map(|address| (address.as_str(), false)).collect();
            let (orders, _) = put(&mut sockets, &wanted);
            let held = sockets.in_force().iter().find(|held| held.address.is_ipv6()).unwrap();
            assert_eq!((held.only_v6, held.sockets.len()), (only_v6, 2), "{addresses:?}");
            assert_eq!(orders[0].id != number, opened_anew, "{addresses:?}");
            number = orders[0].id;
            assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "{addresses:?}");
        }
        // Opened again after a change that was not made, they are as they were.
        let plan = sockets.plan(&[], 2).unwrap();
        sockets.release(&plan);
        sockets.restore(2);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    #[test]
    fn a_port_in_use_changes_nothing() {
        let mut sockets = Sockets::default();
        put(&mut sockets, &[("127.0.0.1:0", false)]);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let found =
            sockets.plan(&wanted(&[(address.as_str(), false), ("127.0.0.1:0", false)]), 2).unwrap_err();
        assert_eq!(found[0].code, "port-in-use");
        assert_eq!(sockets.in_force().len(), 1);
    }

    #[test]
    fn what_was_released_for_a_change_that_failed_is_opened_again() {
        let mut sockets = Sockets::default();
        let (before, _) = put(&mut sockets, &[("127.0.0.1:0", false)]);
        let plan = sockets.plan(&[], 2).unwrap();
        sockets.release(&plan);
        assert!(std::net::TcpStream::connect(before[0].address).is_err());
        sockets.restore(2);
        assert!(std::net::TcpStream::connect(before[0].address).is_ok());
        assert_eq!(sockets.all_orders().1.len(), 2);
    }

    #[test]
    fn a_socket_that_was_passed_in_serves_the_listener_with_its_address() {
        let passed = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = passed.local_addr().unwrap().to_string();
        let mut sockets = Sockets { inherited: vec![passed], ..Sockets::default() };
        let (orders, sent) = put(&mut sockets, &[(address.as_str(), true)]);
        assert_eq!((orders[0].sockets, sent), (1, 1), "one socket, shared by all threads");
    }
}
