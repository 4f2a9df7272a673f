"""A proxy that breaks what passes through it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Fault = Callable[[BaseHTTPRequestHandler, bytes], bytes | None]


class FaultProxy:
    """Between gcsfs and the server; `fault` may change or swallow the body of an object's GET."""

    def __init__(self, upstream: str) -> None:
        self.fault: Fault = lambda _, body: body
        self.n_gets = 0
        proxy, target = self, urlsplit(upstream)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                connection = HTTPConnection(target.hostname, target.port)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                connection.request("GET", self.path, headers=headers)
                response = connection.getresponse()
                body: bytes | None = response.read()
                connection.close()
                if "alt=media" in self.path:
                    proxy.n_gets += 1
                    body = proxy.fault(self, body)
                if body is None:
                    self.close_connection = True
                    return
                self.send_response(response.status)
                for name in ("Content-Type", "Content-Range"):
                    if response.headers[name]:
                        self.send_header(name, response.headers[name])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def stall_at(self, number: int) -> Iterator[threading.Event]:
        """Let the `number`th GET of an object hang until this is left; gives an event of it."""
        stalled, released = threading.Event(), threading.Event()

        def stall(_: BaseHTTPRequestHandler, body: bytes) -> bytes | None:
            if self.n_gets != number:
                return body
            stalled.set()
            released.wait()
            return None

        self.fault = stall
        try:
            yield stalled
        finally:
            released.set()
