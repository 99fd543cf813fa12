"""A real nginx with a door, and what stands behind it: a program that answers whatever it is asked."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import WSMsgType, web

from patchforge.door import render, settings
from patchforge.door.roles import Grant

DOMAIN = "studio.example.org"
SECOND = "llm.example.org"
TOKENS = {"viewer": "1a" * 32, "user": "2b" * 32, "admin": "3c" * 32, "stranger": "4d" * 32}
PASSWORDS = {name: f"secret of {name}" for name in ("viewer", "user", "admin", "stranger")}
needs_nginx = pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx: not installed")

_MAIN = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/door.conf;
}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass
class Program:
    """What stands behind the door. It undoes what it can of a path, and obeys every header that some program obeys."""

    port: int = 0
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        method = request.headers.get("X-HTTP-Method-Override", request.method)
        self.seen.append({"method": method, "path": request.raw_path, "headers": dict(request.headers)})
        if request.headers.get("Upgrade", "").lower() == "websocket":
            socket_ = web.WebSocketResponse()
            await socket_.prepare(request)
            async for message in socket_:
                if message.type is WSMsgType.TEXT:
                    await socket_.send_str(f"echo {message.data}")
                    if message.data == "bye":
                        await socket_.close()
            return socket_
        body = await request.read()
        return web.json_response(
            {"method": method, "path": request.raw_path, "bytes": len(body)},
            headers={"Content-Security-Policy": "default-src *", "Access-Control-Allow-Origin": "*"},
        )

    @contextmanager
    def running(self) -> Iterator[Program]:
        loop = asyncio.new_event_loop()
        ready = threading.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=1 << 30)
            app.router.add_route("*", "/{path:.*}", self.answer)
            runner = web.AppRunner(app, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            ready.set()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(serve())
            loop.run_forever()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert ready.wait(20)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)


@dataclass
class Nginx:
    """nginx with a door in front of a program."""

    folder: Path
    port: int
    plain: int
    program: Program

    def __post_init__(self) -> None:
        self._connections: dict[str, http.client.HTTPSConnection] = {}

    def context(self, certificate: str = "") -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if certificate:
            made.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        return made

    def connection(self, certificate: str, host: str) -> http.client.HTTPSConnection:
        """Kept open, as a browser does."""
        key = f"{certificate} {host}"
        if key not in self._connections:
            made = _Connection("127.0.0.1", self.port, timeout=20, context=self.context(certificate))
            made.name = host
            self._connections[key] = made
        return self._connections[key]

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes = b"",
        certificate: str = "",
        host: str = DOMAIN,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in small letters, body. The path goes over the wire as it is."""
        connection = self.connection(certificate, host)
        for attempt in (1, 2):
            try:
                connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
                connection.putheader("Host", f"{host}:{self.port}")
                for name, value in (headers or {}).items():
                    connection.putheader(name, value)
                if body or method in {"POST", "PUT", "PATCH"}:
                    connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body)
                answer = connection.getresponse()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                connection.close()
                if attempt == 2:
                    raise
        raise AssertionError

    def status(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, **more: Any) -> int:
        return self.ask(path, method, headers, **more)[0]

    def raw(self, data: bytes) -> bytes:
        """What comes for bytes that no client library would send."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        with self.context().wrap_socket(plain, server_hostname=DOMAIN) as tls:
            tls.sendall(data)
            parts = []
            with suppress(TimeoutError):
                while part := tls.recv(65536):
                    parts.append(part)
            return b"".join(parts)

    def logs(self) -> str:
        return "".join((self.folder / name).read_text(errors="replace") for name in ("access.log", "error.log"))


class _Connection(http.client.HTTPSConnection):
    """Asks for the certificate of a domain, wherever it connects to."""

    name = DOMAIN

    def connect(self) -> None:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._context.wrap_socket(plain, server_hostname=self.name)  # type: ignore[attr-defined]


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[name]}"} if name else {}


def basic(name: str, password: str = "") -> dict[str, str]:
    word = base64.b64encode(f"{name}:{password or PASSWORDS[name]}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


def make_secrets(folder: Path) -> None:
    """A CA, the door's certificate, users' certificates, passwords and tokens."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    ca = ("-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
    _openssl("req", "-x509", *key, *ca, "-days", "2", "-subj", "/CN=a CA of the tests")
    names = {
        "door": f"/CN={DOMAIN}",
        "viewer": "/O=studio/CN=viewer",
        "admin": "/CN=admin",
        "forger": "/CN=x,CN=admin",
        "another": "/CN=somebody/OU=admin",
    }
    for name, subject in names.items():
        _openssl("req", *key, "-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.csr", "-subj", subject)
        (folder / "san").write_text(f"subjectAltName=DNS:{DOMAIN},DNS:{SECOND}")
        signing = ("-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2")
        more = ("-extfile", f"{folder}/san") if name == "door" else ()
        _openssl("x509", "-req", "-in", f"{folder}/{name}.csr", "-out", f"{folder}/{name}.pem", *signing, *more)
    stranger = ("-keyout", f"{folder}/self.key", "-out", f"{folder}/self.pem", "-subj", "/CN=admin", "-days", "2")
    _openssl("req", "-x509", *key, *stranger)
    lines = []
    for name, password in PASSWORDS.items():
        done = subprocess.run(["openssl", "passwd", "-apr1", password], check=True, capture_output=True, text=True)
        lines.append(f"{name}:{done.stdout.strip()}\n")
    (folder / "passwords").write_text("".join(lines))
    (folder / "tokens").write_text("".join(f"{token} {name};\n" for name, token in TOKENS.items()))


@contextmanager
def door(folder: Path, program: Program, about: str = "", *, plain: bool = True) -> Iterator[Nginx]:
    """A door with all that lets one in, and ``about`` it in TOML."""
    port, redirect = free_port(), free_port()
    text = f"""\
format = 1
passwords = "{folder}/passwords"
tokens = "{folder}/tokens"
client_ca = "{folder}/ca.pem"
listen = ["127.0.0.1:{port}"]
redirect = ["127.0.0.1:{redirect}"]
{about}
[comfyui]
domain = "{DOMAIN}"
address = "http://127.0.0.1:{program.port}"
[tls]
certificate = "{folder}/door.pem"
key = "{folder}/door.key"
[users]
viewer = "viewer"
user = "user"
admin = "admin"
"""
    if not (folder / "ca.pem").exists():
        make_secrets(folder)
    (folder / "door.toml").write_text(text)
    (folder / "door.conf").write_bytes(render.rendered(settings.load(folder / "door.toml")))
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user="" if os.geteuid() else "user root;"))
    for name in ("access.log", "error.log"):
        (folder / name).write_text("")
    command = ["nginx", "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for _ in range(200):
            if process.poll() is not None:
                raise AssertionError(process.stdout.read() if process.stdout else "")
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.02)
        yield Nginx(folder, port, redirect, program)
    finally:
        process.terminate()
        process.wait(20)


_PLACE = re.compile(r"\{(\w+)(:\.[*+])?\}")


def requests_of(grants: tuple[Grant, ...]) -> Iterator[tuple[str, str, Grant]]:
    """A request for each route of the table, twins too, with what it is granted to."""
    for grant in grants:
        for route in grant.routes:
            method, _, path = route.partition(" ")
            for allowed in grant.only or (path,):
                plain = _PLACE.sub(lambda place: "some/where%20else.js" if place[2] else "a%20name.json", allowed)
                for twin in ("", "/api") if plain.startswith("[/api]") else ("",):
                    yield method, twin + plain.removeprefix("[/api]"), grant


def loaded(body: bytes) -> Any:
    return json.loads(body)
