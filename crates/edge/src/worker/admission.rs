//! Which connections a thread takes, and which of those it has make room for others.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Worker;
use crate::connection::ListenerState;
use crate::pressure::Level;
use crate::seats::{Seat, State};
use crate::sources::{Refused, Ticket};
use crate::telemetry::metrics::{ClientCut, ConnectionRefused, OpenConnection};

impl Worker {
    /// Counts a connection in, or tells why not: the process is short of something, its network has its fill, or the thread
    /// has and nobody makes room.
    pub fn admit(
        self: &Rc<Self>,
        peer: SocketAddr,
        listener: &ListenerState,
    ) -> Result<Admission, ConnectionRefused> {
        let admission = self.judge(peer, listener);
        if let Err(reason) = &admission {
            self.shard.connection_refused(*reason);
        }
        admission
    }

    fn judge(
        self: &Rc<Self>,
        peer: SocketAddr,
        listener: &ListenerState,
    ) -> Result<Admission, ConnectionRefused> {
        let (now, shaking) = (Instant::now(), listener.tls.get());
        if listener.pressure.level() > Level::Normal {
            return Err(ConnectionRefused::Pressure);
        }
        let generation = self.generation();
        if generation.bans.contains(peer.ip()) {
            return Err(ConnectionRefused::Banned);
        }
        let limits = &generation.snapshot.limits;
        let ticket = self.charge(peer.ip(), listener, shaking, now)?;
        if self.connections.get() >= limits.connections && !self.make_room(false, now) {
            return Err(ConnectionRefused::Connections);
        }
        let open = self.shared.connections.load(Ordering::Relaxed);
        if !listener.pressure.has_room(open) && !self.make_room(false, now) {
            return Err(ConnectionRefused::Descriptors);
        }
        if shaking && self.handshakes.get() >= limits.handshakes && !self.make_room(true, now) {
            return Err(ConnectionRefused::Handshakes);
        }
        Ok(self.seat(peer, shaking, ticket, now))
    }

    /// Counts a connection in with its network. Proxies that are trusted bring visitors of many, and have no budget.
    fn charge(
        &self,
        address: IpAddr,
        listener: &ListenerState,
        shaking: bool,
        now: Instant,
    ) -> Result<Ticket, ConnectionRefused> {
        let generation = self.generation();
        if listener.rehearsal.is_some() || generation.snapshot.trusted_proxies.contains(address) {
            return Ok(Ticket::free());
        }
        let limits = &generation.snapshot.limits.per_address;
        let charged = self.shared.sources.charge(address, limits, shaking, now.into_std());
        charged.map_err(|refused| match refused {
            Refused::Connections => ConnectionRefused::AddressConnections,
            Refused::Rate => ConnectionRefused::AddressRate,
            Refused::Handshakes => ConnectionRefused::AddressHandshakes,
        })
    }

    fn seat(self: &Rc<Self>, peer: SocketAddr, shaking: bool, ticket: Ticket, now: Instant) -> Admission {
        self.connections.set(self.connections.get() + 1);
        self.handshakes.set(self.handshakes.get() + usize::from(shaking));
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.next_connection.set(self.next_connection.get() + 1);
        let seat = Rc::new(Seat::new(self.next_connection.get(), peer.ip(), shaking, now));
        Admission {
            worker: self.clone(),
            place: self.seats.borrow_mut().insert(seat.clone()),
            seat,
            ticket,
            shaking,
            _open: self.shard.connection_opened(),
        }
    }

    /// Asks one connection to make room. It goes when its task runs next, so for that long there is one too many.
    fn make_room(&self, shaking: bool, now: Instant) -> bool {
        let random = |bound| self.with_random(|random| random.below(bound));
        let open = |address| self.shared.sources.open(address);
        let asked = self.seats.borrow().make_room(shaking, now, random, open);
        match asked {
            Some(State::Idle) => self.shard.client_cut(ClientCut::Idle),
            Some(_) => self.shard.client_cut(ClientCut::Unused),
            None => {}
        }
        asked.is_some()
    }

    /// Lets connections go while the process is short of resources, or too many stand still; called several times a second.
    pub(super) fn relieve(&self, now: Instant) {
        let stalled = self.seats.borrow().bound_stalled(now);
        (0..stalled).for_each(|_| self.shard.client_cut(ClientCut::Stalled));
        let level = self.shared.metrics.pressure().level();
        if level > Level::Normal {
            let cleared = self.seats.borrow().clear(level == Level::Critical, now);
            (0..cleared).for_each(|_| self.shard.client_cut(ClientCut::Pressure));
            // Connections nobody uses are the first descriptors to give back.
            self.pools.sweep(std::time::Duration::ZERO, now);
        }
    }
}

/// One admitted connection; counted out when dropped.
pub struct Admission {
    worker: Rc<Worker>,
    place: u32,
    /// Where the connection sits.
    pub seat: Rc<Seat>,
    ticket: Ticket,
    shaking: bool,
    _open: OpenConnection,
}

impl Admission {
    /// A trusted proxy has told whose connection this is: from here on it counts for that network. Refused, it is to be closed.
    pub fn charge(&mut self, address: IpAddr, listener: &ListenerState) -> Result<(), ConnectionRefused> {
        let charged = self.worker.charge(address, listener, self.shaking, Instant::now());
        self.ticket = charged.inspect_err(|reason| self.worker.shard.connection_refused(*reason))?;
        self.seat.address.set(address);
        Ok(())
    }

    /// The handshake is over, if there was one.
    pub fn shaken(&mut self) {
        if std::mem::take(&mut self.shaking) {
            self.worker.handshakes.set(self.worker.handshakes.get().saturating_sub(1));
            self.ticket.shaken();
            self.seat.shaken();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shaken();
        let worker = &self.worker;
        worker.seats.borrow_mut().remove(self.place);
        worker.connections.set(worker.connections.get().saturating_sub(1));
        worker.shared.connections.fetch_sub(1, Ordering::Relaxed);
        if worker.connections.get() == 0 && worker.ending.get().is_some() {
            worker.empty.notify_one();
        }
    }
}
