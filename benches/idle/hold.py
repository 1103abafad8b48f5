"""Holds idle connections: hold.py PORT COUNT plain|tls silent|asked.

Prints `holding COUNT` once all stand, then waits to be ended. An `asked` connection has had one answer and is kept
alive. Sources are spread over 127.1.0.0/16, so that neither ports nor limits per address run out."""

import resource
import signal
import socket
import ssl
import sys

PER_SOURCE = 20
PATIENCE = 20
REQUEST = b"GET /1k HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Of Linux; keeps bind() from taking a port before the destination is known.
IP_BIND_ADDRESS_NO_PORT = 24

port, count = int(sys.argv[1]), int(sys.argv[2])
encrypted = {"plain": False, "tls": True}[sys.argv[3]]
asked = {"silent": False, "asked": True}[sys.argv[4]]

limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if limit < count + 100:
    sys.exit(f"{count} connections need more than the {limit} files a process may open here")
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE


def connected(number):
    stream = socket.socket()
    stream.settimeout(PATIENCE)
    stream.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    source = number // PER_SOURCE
    stream.bind((f"127.1.{source // 250}.{source % 250 + 1}", 0))
    # Else the request waits for the acknowledgement of the handshake's end, which some servers put off.
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.connect(("127.0.0.1", port))
    return context.wrap_socket(stream, server_hostname="localhost") if encrypted else stream


def ask(stream):
    stream.sendall(REQUEST)
    received = b""
    while b"\r\n\r\n" not in received:
        received += piece(stream)
    head, body = received.split(b"\r\n\r\n", 1)
    lines = head.lower().split(b"\r\n")
    if b" 200 " not in lines[0]:
        sys.exit(f"not a 200: {lines[0]}")
    lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
    missing = lengths[0] - len(body)
    while missing > 0:
        missing -= len(piece(stream))


def piece(stream):
    received = stream.recv(65536)
    if not received:
        sys.exit("the server closed a connection")
    return received


held = []
for number in range(count):
    held.append(connected(number))
    if asked:
        ask(held[-1])
print("holding", len(held), flush=True)
signal.pause()
