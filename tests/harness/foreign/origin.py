"""An origin on Python's own http.server: keep-alive HTTP/1.1, an HTTP/1.0 answer that ends with the connection."""

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Origin(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, body, status=200, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline() not in (b"\r\n", b""):
            pass
        return b"".join(pieces)

    def do_GET(self):
        if self.path == "/old":
            # As a script of 1996 does it: no length, the end of the connection is the end of the page.
            self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the end\n")
            self.close_connection = True
        elif self.path == "/cookies":
            self.send_response(200)
            for i in range(20):
                self.send_header("Set-Cookie", f"c{i}=v{i}; Path=/; Expires=Wed, 09 Jun 2100 10:18:14 GMT")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/hello":
            self.answer(b"hello from python\n")
        else:
            self.answer(b"no such page\n", 404)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.body()
        facts = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest(), "headers": self.headers.items()}
        self.answer(json.dumps(facts).encode(), kind="application/json")

    do_PUT = do_POST


server = ThreadingHTTPServer(("127.0.0.1", 0), Origin)
print(f"listening {server.server_port}")
server.serve_forever()
