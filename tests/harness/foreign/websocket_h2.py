"""A WebSocket over one stream of an HTTP/2 connection (RFC 8441), beside an ordinary request on the same
connection: websocket_h2.py ADDRESS:PORT HOST PATH AUTHORITY.pem."""

import socket
import ssl
import struct
import sys

import h2.config
import h2.connection
import h2.events
import h2.settings

PATIENCE = 30
MASK = b"\x11\x22\x33\x44"


def frame(opcode, payload):
    head = bytes([0x80 | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", len(payload))
    return head + MASK + bytes(byte ^ MASK[i & 3] for i, byte in enumerate(payload))


class Line:
    def __init__(self, address, host, authority):
        context = ssl.create_default_context(cafile=authority)
        context.set_alpn_protocols(["h2"])
        name, port = address.rsplit(":", 1)
        self.socket = context.wrap_socket(socket.create_connection((name, int(port)), PATIENCE), server_hostname=host)
        assert self.socket.selected_alpn_protocol() == "h2", self.socket.selected_alpn_protocol()
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.http.initiate_connection()
        self.events = []
        self.flush()

    def flush(self):
        self.socket.sendall(self.http.data_to_send())

    def wait(self, wanted):
        while True:
            for i, event in enumerate(self.events):
                if wanted(event):
                    return self.events.pop(i)
            data = self.socket.recv(65536)
            assert data, "the connection ended"
            self.events += self.http.receive_data(data)
            self.flush()

    def bytes_of(self, stream, count):
        got = b""
        while len(got) < count:
            event = self.wait(lambda e: getattr(e, "stream_id", None) == stream)
            if isinstance(event, h2.events.DataReceived):
                got += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, stream)
                self.flush()
            else:
                assert isinstance(event, h2.events.WindowUpdated), event
        assert len(got) == count, got
        return got

    def send(self, stream, data):
        while data:
            room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
            if room == 0:
                self.wait(lambda e: isinstance(e, h2.events.WindowUpdated))
                continue
            self.http.send_data(stream, data[:room])
            data = data[room:]
            self.flush()

    def open(self, headers, ends):
        stream = self.http.get_next_available_stream_id()
        self.http.send_headers(stream, headers, end_stream=ends)
        self.flush()
        answer = self.wait(lambda e: isinstance(e, h2.events.ResponseReceived) and e.stream_id == stream)
        return stream, dict(answer.headers)


address, host, path, authority = sys.argv[1:]
line = Line(address, host, authority)
line.wait(lambda e: isinstance(e, h2.events.RemoteSettingsChanged))
enabled = line.http.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL)
assert enabled == 1, f"SETTINGS_ENABLE_CONNECT_PROTOCOL is {enabled}"
base = [(":scheme", "https"), (":authority", host)]
connect = [(":method", "CONNECT"), (":protocol", "websocket"), (":path", path), *base, ("sec-websocket-version", "13")]
stream, answer = line.open(connect, False)
assert answer[":status"] == "200", answer
assert "sec-websocket-accept" not in answer and "upgrade" not in answer and "connection" not in answer, answer
for text in [b"over h2", b"y" * 200_000]:
    line.send(stream, frame(1, text))
    head = b"\x81" + (bytes([len(text)]) if len(text) < 126 else b"\x7f" + struct.pack("!Q", len(text)))
    echo = line.bytes_of(stream, len(head) + len(text))
    assert echo == head + text, echo[:40]
    _, beside = line.open([(":method", "HEAD"), (":path", "/hello"), *base], True)
    assert beside[":status"] == "200", beside
line.send(stream, frame(8, struct.pack("!H", 1000)))
assert line.bytes_of(stream, 4) == b"\x88\x02" + struct.pack("!H", 1000)
line.wait(lambda e: isinstance(e, h2.events.StreamEnded) and e.stream_id == stream)
print("conversation ended as agreed")
