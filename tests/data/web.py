"""A small web server whose faults can be chosen."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What the server holds, how it misbehaves, and what was asked of it."""

    def __init__(self, content=b"", *, ranges=True, etag='"v1"', faults=()):
        self.content, self.ranges, self.etag = content, ranges, etag
        self.faults = list(faults)  # one per request: "cut:N", "flip", an HTTP status; then it behaves
        self.asked = []
        self.url = ""


def _handler(site):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            site.asked.append(self.headers.get("Range", ""))
            fault = site.faults.pop(0) if site.faults else ""
            self.close_connection = True
            if isinstance(fault, int):
                self.send_error(fault)
                return
            body, start = site.content, 0
            wanted = self.headers.get("Range", "")
            fresh = self.headers.get("If-Range") in (None, site.etag)
            if site.ranges and wanted and fresh:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            body = body[start:]
            self.send_header("Content-Length", str(len(body)))
            if site.etag:
                self.send_header("ETag", site.etag)
            self.end_headers()
            if fault == "flip":
                body = bytes([body[0] ^ 1]) + body[1:]
            if str(fault).startswith("cut:"):
                body = body[: int(fault[4:])]
            self.wfile.write(body)

    return Handler


@contextmanager
def serving(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_address[1]}/set.bin"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
