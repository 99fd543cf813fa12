"""A server that answers with whatever bytes a test says, on loopback, and keeps what it was asked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Speech = Callable[[socket.socket], None]


@dataclass
class Hostile:
    """``speech`` gets each connection after its request was read; ``asked`` has the requests' heads."""

    speech: Speech
    asked: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.listening = threading.Thread(target=self._listen, daemon=True)
        self.listening.start()

    def _listen(self) -> None:
        while not self.stopped.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.settimeout(10)
            said = b""
            while b"\r\n\r\n" not in said and (data := connection.recv(1 << 16)):
                said += data
            head, _, body = said.partition(b"\r\n\r\n")
            for line in head.lower().splitlines():
                if line.startswith(b"content-length:"):
                    while len(body) < int(line.split(b":")[1]) and (data := connection.recv(1 << 16)):
                        body += data
            self.asked.append(head.decode("latin-1"))
            if head:
                self.speech(connection)

    def close(self) -> None:
        """Waits for the listening thread: it would go on with the next socket that gets the closed one's number."""
        self.stopped.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listening.join(5)
        self.listener.close()


@contextmanager
def serving(speech: Speech) -> Iterator[Hostile]:
    server = Hostile(speech)
    try:
        yield server
    finally:
        server.close()


def says(*parts: bytes) -> Speech:
    """These bytes and the end."""

    def speech(connection: socket.socket) -> None:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)

    return speech


def endless(head: bytes, part: bytes, pause: float = 0.0, most: float = 20.0) -> Speech:
    """``head``, then ``part`` again and again, for ``most`` seconds at the longest."""

    def speech(connection: socket.socket) -> None:
        end = time.monotonic() + most
        connection.sendall(head)
        while time.monotonic() < end:
            connection.sendall(part)
            time.sleep(pause)

    return speech


def silent(connection: socket.socket) -> None:
    connection.recv(1)


def cut(head: bytes) -> Speech:
    """``head``, and then a reset."""

    def speech(connection: socket.socket) -> None:
        connection.sendall(head)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return speech


def http(body: bytes = b"", status: str = "200 OK", *headers: str, kind: str = "application/json") -> Speech:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: close"]
    return says("\r\n".join([*lines, *headers]).encode("latin-1") + b"\r\n\r\n" + body)


def answers(value: object, *headers: str) -> Speech:
    return http(json.dumps(value).encode(), "200 OK", *headers)


def leads(to: str, status: str = "302 Found") -> Speech:
    return http(b"", status, f"Location: {to}")


def in_turn(*speeches: Speech) -> Speech:
    """The first for the first request, and so on."""
    left = iter(speeches)

    def speech(connection: socket.socket) -> None:
        next(left)(connection)

    return speech
