"""A command function of the quickstart: any server will do that listens on $PORT."""

import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Clock(BaseHTTPRequestHandler):
    """Answers every GET with the time and the pid of this replica."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):  # noqa: N802 (the name that http.server calls)
        body = f"{time.strftime('%H:%M:%S')} from process {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """The gateway's access log tells already."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Clock).serve_forever()
