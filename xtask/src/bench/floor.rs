//! The floor: the cheapest program that stands between clients and origin, so that the others' figures can be told from the kernel's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use clap::Args;
use rustix::event::epoll;

/// Bytes taken at a time.
const PIECE_BYTES: usize = 128 * 1024;
/// Connections at a time; further ones are closed at once.
const MAX_PAIRS: usize = 4096;
/// Events taken at a time.
const EVENTS: usize = 256;
/// Event data of the listener; pairs have twice their slot, plus one for the origin's side.
const LISTENER: u64 = u64::MAX;

/// Where it stands.
#[derive(Args)]
pub struct Floor {
    /// Loopback port to listen on
    port: u16,
    /// Loopback port of the origin
    origin: u16,
}

/// A client's connection, and the one to the origin that is its own.
struct Pair {
    streams: [TcpStream; 2],
    /// What the stream did not take yet; while there is some, the other one is not read.
    unsent: [Vec<u8>; 2],
}

impl Floor {
    /// Relays until it is killed.
    pub fn serve(&self) -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port))?;
        listener.set_nonblocking(true)?;
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&poll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        let mut pairs: Vec<Option<Pair>> = Vec::new();
        let mut piece = vec![0; PIECE_BYTES];
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            match epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => continue,
                ended => ended.context("epoll_wait")?,
            };
            for event in &events {
                let data = event.data.u64();
                if data == LISTENER {
                    self.accept(&listener, &poll, &mut pairs)?;
                    continue;
                }
                let (slot, side) = (usize::try_from(data / 2)?, usize::try_from(data % 2)?);
                let Some(place) = pairs.get_mut(slot) else { continue };
                let Some(pair) = place.as_mut() else { continue };
                // Whatever ends one side ends both; closing takes them out of the poll.
                if !pair.turn(&poll, slot, side, event.flags, &mut piece).unwrap_or(false) {
                    *place = None;
                }
            }
        }
    }

    fn accept(
        &self,
        listener: &TcpListener,
        poll: impl AsFd + Copy,
        pairs: &mut Vec<Option<Pair>>,
    ) -> Result<()> {
        // One at a time: the poll tells again while there are more.
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let free = pairs.iter().position(Option::is_none).unwrap_or(pairs.len());
        if free == MAX_PAIRS {
            return Ok(());
        }
        let origin = TcpStream::connect((Ipv4Addr::LOCALHOST, self.origin))?;
        let pair = Pair { streams: [client, origin], unsent: [Vec::new(), Vec::new()] };
        for (side, stream) in pair.streams.iter().enumerate() {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            epoll::add(poll, stream, data(free, side), epoll::EventFlags::IN)?;
        }
        match pairs.get_mut(free) {
            Some(place) => *place = Some(pair),
            None => pairs.push(Some(pair)),
        }
        Ok(())
    }
}

fn data(slot: usize, side: usize) -> epoll::EventData {
    epoll::EventData::new_u64((slot * 2 + side) as u64)
}

impl Pair {
    /// What one event asks for; `false` at the end of the connection.
    fn turn(
        &mut self,
        poll: impl AsFd + Copy,
        slot: usize,
        side: usize,
        flags: epoll::EventFlags,
        piece: &mut [u8],
    ) -> io::Result<bool> {
        let [client, origin] = &mut self.streams;
        let (from, to) = if side == 0 { (client, origin) } else { (origin, client) };
        let [client_unsent, origin_unsent] = &mut self.unsent;
        let (unsent, other_unsent) =
            if side == 0 { (client_unsent, origin_unsent) } else { (origin_unsent, client_unsent) };
        if flags.contains(epoll::EventFlags::OUT) {
            let written = sent(from, unsent)?;
            unsent.drain(..written);
            if unsent.is_empty() {
                epoll::modify(poll, &*from, data(slot, side), epoll::EventFlags::IN)?;
                epoll::modify(poll, &*to, data(slot, 1 - side), epoll::EventFlags::IN)?;
            }
        }
        if !other_unsent.is_empty()
            || !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            return Ok(true);
        }
        let count = match from.read(piece) {
            Ok(0) => return Ok(false),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error),
        };
        let bytes = piece.get(..count).unwrap_or_default();
        let written = sent(to, bytes)?;
        if written < count {
            other_unsent.extend_from_slice(bytes.get(written..).unwrap_or_default());
            epoll::modify(poll, &*from, data(slot, side), epoll::EventFlags::empty())?;
            epoll::modify(poll, &*to, data(slot, 1 - side), epoll::EventFlags::OUT)?;
        }
        Ok(true)
    }
}

/// How much of it the stream takes now.
fn sent(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports;

    #[test]
    fn every_byte_comes_through_in_both_directions() {
        let origin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let floor = Floor { port: ports::free().unwrap(), origin: origin.local_addr().unwrap().port() };
        let port = floor.port;
        let relay = std::thread::spawn(move || floor.serve());
        // More than sockets buffer, so that pieces wait in the relay.
        let sent: Vec<u8> = (0..16_u32 << 20).map(|number| (number % 251) as u8).collect();
        let expected = sent.clone();
        let echo = std::thread::spawn(move || {
            let (mut stream, _) = origin.accept().unwrap();
            let mut received = vec![0; expected.len()];
            stream.read_exact(&mut received).unwrap();
            assert!(received == expected);
            stream.write_all(&received).unwrap();
        });
        let mut client = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(client) => break client,
                Err(_) => assert!(!relay.is_finished(), "the relay ended"),
            }
        };
        client.write_all(&sent).unwrap();
        let mut received = vec![0; sent.len()];
        client.read_exact(&mut received).unwrap();
        assert!(received == sent);
        echo.join().unwrap();
    }
}
