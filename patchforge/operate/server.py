"""Answers Prometheus over HTTP: ``/metrics``, ``/-/healthy``, and at ``/`` a page for people."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from patchforge import faults
from patchforge.errors import PatchforgeError

Page = Callable[[Mapping[str, str]], bytes]
_SECONDS = 10.0  #: that a client may take to ask
_HTML = "text/html; charset=utf-8"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class MetricsServer(ThreadingHTTPServer):
    """Listens when it is made; ``serve_forever`` answers. PatchforgeError where it cannot listen."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, listen: str, registry: CollectorRegistry, page: Page) -> None:
        host, port = address(listen)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.registry, self.page = registry, page
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise PatchforgeError(
                f"cannot listen on {listen}",
                expected="an address of this machine and a free port",
                found=faults.reason(error),
                do="name another with --listen",
            ) from None

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}" if ":" in str(host) else f"http://{host!s}:{port}"


def address(listen: str, option: str = "--listen") -> tuple[str, int]:
    """Host and port of ``HOST:PORT``; PatchforgeError, which names the option, for anything else."""
    host, _, port = listen.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise PatchforgeError(
            f"{listen!r} is not an address to listen on",
            expected="HOST:PORT, such as 127.0.0.1:9188",
            do=f"correct {option}",
        )
    return host.strip("[]"), int(port)


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = _SECONDS
    wbufsize = 1 << 16  # head and body leave together: apart, the second waits 40 ms for the first one's receipt
    disable_nagle_algorithm = True
    protocol_version = "HTTP/1.1"
    server_version = "patchforge"
    sys_version = ""

    def do_GET(self) -> None:
        """As the client library answers, with what it is asked for in Accept."""
        parts = urlsplit(self.path)
        if parts.path == "/metrics":
            encode, kind = choose_encoder(self.headers.get("Accept", ""))
            self._answer(200, encode(self.server.registry), kind)
        elif parts.path == "/-/healthy":
            self._answer(200, b"patchforge exporter is there\n", "text/plain")
        elif parts.path == "/":
            asked = {name: values[-1] for name, values in parse_qs(parts.query, max_num_fields=8).items()}
            self._answer(200, self.server.page(asked), _HTML)
        else:
            self._answer(404, b"there are / and /metrics\n", "text/plain")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: Prometheus asks every few seconds."""
