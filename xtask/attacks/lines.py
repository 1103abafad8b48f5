"""What the attackers share: many connections from many loopback addresses, driven by one selector until time is over."""

import collections
import errno
import select
import socket
import ssl
import time

# Bytes sent or read in one go before the next connection has its turn.
TURN = 64 * 1024
# Connections opened before the ones already open have their turn.
OPENED_AT_ONCE = 100


class Attack:
    """What one attack does on a connection; the defaults read everything and come back when they are cut."""

    tls = False
    protocols = None
    connections = 8
    reconnect = True
    # Size of the kernel's receive buffer; None leaves it to the system.
    receive_buffer = None
    # Seconds between two calls of `tick` for each connection; None: never.
    interval = None
    # Bytes of one write, and so of one TLS record.
    piece = TURN

    def __init__(self, options):
        self.host = options.host
        self.counts = collections.Counter()

    def start(self, line):
        """Yields what is sent, as fast as it can be sent."""
        return iter(())

    def received(self, line, data):
        """Called with what came."""

    def tick(self, line):
        """Called every `interval` seconds."""

    def reads(self, line):
        """Whether this connection reads at all."""
        return True


class Line:
    """One connection of an attacker."""

    def __init__(self, number, attack, address, source):
        self.number = number
        self.attack = attack
        self.address = address
        self.connected = False
        self.secured = not attack.tls
        self.waiting = b""
        self.chunks = None
        self.state = {}
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The port may be chosen late, so that one per source is enough (IP_BIND_ADDRESS_NO_PORT, ip(7)).
        self.socket.setsockopt(socket.IPPROTO_IP, 24, 1)
        if attack.receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, attack.receive_buffer)
        self.socket.bind((source, 0))
        refused = self.socket.connect_ex(address)
        if refused not in (0, errno.EINPROGRESS):
            raise OSError(refused, "connect")
        self.mask = select.EPOLLOUT

    def wanted(self):
        """What the selector should wait for."""
        if not self.connected:
            return select.EPOLLOUT
        if not self.secured:
            return self.mask
        mask = select.EPOLLRDHUP
        if self.attack.interval is None and self.attack.reads(self):
            mask |= select.EPOLLIN
        if self.waiting or self.chunks is not None:
            mask |= select.EPOLLOUT
        return mask

    def finish_connecting(self, contexts):
        """The TCP handshake is over."""
        refused = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if refused:
            raise OSError(refused, "connect")
        self.connected = True
        if self.attack.tls:
            context = contexts[self.attack.protocols]
            self.socket = context.wrap_socket(
                self.socket, server_hostname=self.attack.host, do_handshake_on_connect=False
            )
        else:
            self.begin()

    def secure(self):
        """Goes on with the TLS handshake."""
        try:
            self.socket.do_handshake()
        except ssl.SSLWantReadError:
            self.mask = select.EPOLLIN
            return
        except ssl.SSLWantWriteError:
            self.mask = select.EPOLLOUT
            return
        self.secured = True
        self.begin()

    def begin(self):
        self.attack.counts["connections opened"] += 1
        self.chunks = self.attack.start(self)

    def write(self):
        """Sends until the turn is over or the kernel takes no more."""
        sent = 0
        while sent < TURN:
            if not self.waiting:
                if self.chunks is None:
                    return
                chunk = next(self.chunks, None)
                if chunk is None:
                    self.chunks = None
                    return
                self.waiting = memoryview(chunk)
            try:
                taken = self.socket.send(self.waiting[: self.attack.piece])
            except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                return
            self.waiting = self.waiting[taken:]
            self.attack.counts["bytes sent"] += taken
            sent += max(taken, 64)

    def read(self, most=TURN):
        """Reads once; the end of the stream is an EOFError."""
        while True:
            try:
                data = self.socket.recv(most)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            if not data:
                raise EOFError
            self.attack.received(self, data)
            # What TLS has decrypted already does not wake the selector.
            if not self.attack.tls or not self.socket.pending():
                return


def contexts():
    """TLS without any check of the server, for each list of protocols."""
    made = {}
    for protocols in (None, ("h2",), ("http/1.1",)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.options |= ssl.OP_NO_TICKET
        if protocols:
            context.set_alpn_protocols(list(protocols))
        made[protocols] = context
    return made


def source(number):
    """The loopback address of a connection: 127.16.0.1 and following, never the one of the golden traffic."""
    return f"127.{16 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


class Driver:
    """Runs one attack."""

    def __init__(self, attack, options):
        self.attack = attack
        self.options = options
        self.address = (options.address, options.tls_port if attack.tls or options.raw_tls else options.port)
        self.poll = select.epoll()
        self.lines = {}
        self.contexts = contexts()
        self.due = collections.deque(range(options.connections or attack.connections))
        self.pause_until = 0.0

    def run(self):
        """Until time is over; answers what was counted."""
        end = time.monotonic() + self.options.seconds
        ticked = time.monotonic()
        while (now := time.monotonic()) < end:
            if now >= self.pause_until:
                self.open_some()
            for descriptor, events in self.poll.poll(0.02, 4096):
                line = self.lines.get(descriptor)
                if line is not None:
                    self.guarded(line, lambda line=line, events=events: self.step(line, events))
            if self.attack.interval and now - ticked >= self.attack.interval:
                ticked = now
                for line in list(self.lines.values()):
                    if line.secured and line.connected:
                        self.guarded(line, lambda line=line: self.attack.tick(line))
        held = sum(1 for line in self.lines.values() if line.secured and line.connected)
        self.attack.counts["held at the end"] = held
        return dict(self.attack.counts)

    def open_some(self):
        for _ in range(min(len(self.due), OPENED_AT_ONCE)):
            number = self.due.popleft()
            try:
                offset = self.options.first_source
                line = Line(number, self.attack, self.address, source(offset + number % self.options.sources))
            except OSError as error:
                self.attack.counts[f"not connected: {name(error)}"] += 1
                self.due.append(number)
                # Without descriptors or ports it is no use trying again at once.
                self.pause_until = time.monotonic() + 0.2
                return
            self.lines[line.socket.fileno()] = line
            self.poll.register(line.socket.fileno(), line.mask)

    def step(self, line, events):
        if not line.connected:
            line.finish_connecting(self.contexts)
        if not line.secured:
            line.secure()
            return
        if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
            if self.attack.reads(line) or events & (select.EPOLLHUP | select.EPOLLERR):
                line.read()
            elif events & select.EPOLLRDHUP:
                raise EOFError
        if events & select.EPOLLOUT:
            line.write()

    def guarded(self, line, work):
        """A connection that ends is counted by how it ended, and comes back."""
        descriptor = line.socket.fileno()
        before = line.mask
        try:
            work()
        except EOFError:
            self.lost(line, descriptor, "cut: end of stream")
            return
        except Finished:
            self.lost(line, descriptor, "finished")
            return
        except OSError as error:
            stage = "cut" if line.secured and line.connected else "cut in handshake"
            self.lost(line, descriptor, f"{stage if line.connected else 'not connected'}: {name(error)}")
            return
        wanted = line.wanted()
        if wanted != before or not line.secured:
            line.mask = wanted
            self.poll.modify(descriptor, wanted)

    def lost(self, line, descriptor, how):
        self.attack.counts[how] += 1
        del self.lines[descriptor]
        self.poll.unregister(descriptor)
        line.socket.close()
        if self.attack.reconnect:
            self.due.append(line.number)


class Finished(Exception):
    """The attacker is done with this connection and ends it himself."""


def name(error):
    """An error in few words."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "TLS"
    return errno.errorcode.get(error.errno, str(error))
