"""Sends malformed HTTP/2 requests, each on a connection of its own, and checks that each is refused:
h2_malformed.py AUTHORITY.pem ADDRESS:PORT HOST. After each, a good request shows that the server still serves."""

import socket
import ssl
import sys

import h2.config
import h2.connection
import h2.events
from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame

PATIENCE = 30
authority, address, HOST = sys.argv[1:]
GOOD = [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/evil")]
POST = [(":method", "POST"), *GOOD[1:]]


def without(name):
    return [pair for pair in GOOD if pair[0] != name]


def replaced(name, value):
    return [(key, value if key == name else old) for key, old in GOOD]


CASES = {
    "upper-case name": (GOOD + [("X-Upper", "1")], None),
    "blank in a name": (GOOD + [("x a", "1")], None),
    "colon in a name": (GOOD + [("x:a", "1")], None),
    "CR LF in a name": (GOOD + [("x\r\ny", "1")], None),
    "empty name": (GOOD + [("", "1")], None),
    "CR LF in a value": (GOOD + [("x", "1\r\nhost: other.test")], None),
    "LF in a value": (GOOD + [("x", "1\nx: 2")], None),
    "CR in a value": (GOOD + [("x", "1\rx")], None),
    "NUL in a value": (GOOD + [("x", "1\0")], None),
    "CR LF in the path": (replaced(":path", "/evil HTTP/1.1\r\nhost: other.test\r\n\r\n"), None),
    "blank in the path": (replaced(":path", "/evil HTTP/1.1"), None),
    "empty path": (replaced(":path", ""), None),
    "path without a slash": (replaced(":path", "evil"), None),
    "blank in the method": (replaced(":method", "GET /evil HTTP/1.1\r\nx:"), None),
    "empty method": (replaced(":method", ""), None),
    "CR LF in the authority": (replaced(":authority", HOST + "\r\nx: 1"), None),
    "user in the authority": (replaced(":authority", "user@" + HOST), None),
    "path in the authority": (replaced(":authority", HOST + "/x"), None),
    "no method": (without(":method"), None),
    "no scheme": (without(":scheme"), None),
    "no path": (without(":path"), None),
    "neither authority nor host": (without(":authority"), None),
    "authority and another host": (GOOD + [("host", "other.test")], None),
    "two paths": (GOOD + [(":path", "/other")], None),
    "two methods": (GOOD + [(":method", "PUT")], None),
    "pseudo field after a field": ([("x", "1"), *GOOD], None),
    "unknown pseudo field": (GOOD + [(":evil", "1")], None),
    "response pseudo field": (GOOD + [(":status", "200")], None),
    "connection": (GOOD + [("connection", "close")], None),
    "keep-alive": (GOOD + [("keep-alive", "5")], None),
    "proxy-connection": (GOOD + [("proxy-connection", "x")], None),
    "upgrade": (GOOD + [("upgrade", "websocket")], None),
    "te other than trailers": (GOOD + [("te", "gzip")], None),
    "transfer-encoding": (POST + [("transfer-encoding", "chunked")], b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"),
    "content-length too small": (POST + [("content-length", "1")], b"12345"),
    "content-length too large": (POST + [("content-length", "10")], b"12345"),
    "content-length zero with a body": (POST + [("content-length", "0")], b"GET /smuggled HTTP/1.1\r\n\r\n"),
    "two different content-lengths": (POST + [("content-length", "5"), ("content-length", "6")], b"12345"),
    "content-length plus": (POST + [("content-length", "+5")], b"12345"),
    "content-length word": (POST + [("content-length", "five")], b"12345"),
}


class Line:
    """A connection on which heads are written without being checked."""

    def __init__(self):
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2"])
        name, port = address.rsplit(":", 1)
        self.socket = context.wrap_socket(socket.create_connection((name, int(port)), PATIENCE), server_hostname=HOST)
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.socket.sendall(self.http.data_to_send())

    def request(self, fields, body):
        """Answers the status, or what the stream or connection ended with."""
        # Announces the stream to the state machine with a harmless head, then sends the real one in its place.
        self.http.send_headers(1, GOOD, end_stream=body is None)
        self.http.data_to_send()
        head = HeadersFrame(1, Encoder().encode(fields, huffman=False), flags=["END_HEADERS"])
        frames = [head]
        if body is None:
            head.flags.add("END_STREAM")
        else:
            self.http.end_stream(1)
            self.http.data_to_send()
            frames.append(DataFrame(1, body, flags=["END_STREAM"]))
        self.socket.sendall(b"".join(frame.serialize() for frame in frames))
        return self.outcome()

    def outcome(self):
        while True:
            data = self.socket.recv(65536)
            if not data:
                return "closed"
            for event in self.http.receive_data(data):
                if isinstance(event, h2.events.StreamReset):
                    return f"reset {int(event.error_code)}"
                if isinstance(event, h2.events.ConnectionTerminated):
                    return f"goaway {int(event.error_code)}"
                if isinstance(event, h2.events.ResponseReceived):
                    return dict(event.headers)[b":status"].decode()
            self.socket.sendall(self.http.data_to_send())


def good():
    return Line().request(replaced(":path", "/good"), None)


wrong = []
for name, (fields, body) in CASES.items():
    try:
        outcome = Line().request(fields, body)
    except OSError as error:
        outcome = f"closed: {error}"
    refused = outcome.split()[0] in ("reset", "goaway", "closed:", "closed") or outcome in ("400", "421", "501")
    if not refused:
        wrong.append(f"{name}: {outcome}")
    if (after := good()) != "200":
        wrong.append(f"a good request after {name}: {after}")
print("\n".join(wrong) or f"all refused: {len(CASES)} cases")
sys.exit(bool(wrong))
