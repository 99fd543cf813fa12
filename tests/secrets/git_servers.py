"""Git over HTTP on this machine: real servers with git's own back end, one of which wants a token or redirects."""

from __future__ import annotations

import os
import subprocess
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


@dataclass
class GitServer:
    """Serves the bare repositories in ``folder``.

    ``wants``: the Authorization without which it answers 401. ``moves``: paths that begin so are redirected, to the
    address it maps to. ``after``: only from that request on.
    """

    folder: Path
    wants: str = ""
    moves: dict[str, str] = field(default_factory=dict)
    status: int = 301
    after: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)  #: path, and Authorization

    def __post_init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def secrets(self) -> list[str]:
        return [secret for _, secret in self.asked if secret]

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def _handler(git: GitServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def serve(self) -> None:
            data = self._data()
            secret = self.headers.get("Authorization") or ""
            git.asked.append((self.path, secret))
            moved = next((to for start, to in git.moves.items() if self.path.startswith(start)), "")
            if moved and len(git.asked) > git.after:
                self._answer(git.status, {"Location": moved + self.path})
            elif git.wants and secret != git.wants:
                self._answer(401, {"WWW-Authenticate": 'Basic realm="git"'})
            else:
                self._back_end(data)

        def _data(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _back_end(self, data: bytes) -> None:
            parts = urlsplit(self.path)
            variables = {
                "PATH": os.environ["PATH"],
                "GIT_PROJECT_ROOT": str(git.folder),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null",
                "PATH_INFO": parts.path,
                "QUERY_STRING": parts.query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                "CONTENT_LENGTH": str(len(data)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
                "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
                "REMOTE_USER": "somebody",
            }
            done = subprocess.run(["git", "http-backend"], env=variables, input=data, capture_output=True, check=True)
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
            self._answer(int(headers.pop("Status", "200").split()[0]), headers, body)

        do_GET = do_POST = serve

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
