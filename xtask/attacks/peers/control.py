"""The control: a server with 64 workers and no time limit at all, which a slow attack must be able to take away."""

import http.server
import sys
import threading

WORKERS = 64
PORT, FILE = int(sys.argv[1]), sys.argv[2]
with open(FILE, "rb") as file:
    BODY = file.read()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 65536
    disable_nagle_algorithm = True

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *words):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
    free = threading.BoundedSemaphore(WORKERS)

    def process_request(self, request, address):
        self.free.acquire()
        super().process_request(request, address)

    def process_request_thread(self, request, address):
        try:
            super().process_request_thread(request, address)
        finally:
            self.free.release()

    def handle_error(self, request, address):
        pass


Server(("127.0.0.1", PORT), Handler).serve_forever()
