"""A package index and a host of archives on this machine, and clones to pin."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

JSON = "application/vnd.pypi.simple.v1+json"


def wheel_of(name: str, version: str, requires: tuple[str, ...] = (), padding: int = 0) -> bytes:
    """A wheel with METADATA and ``padding`` bytes that do not compress."""
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {require}" for require in requires),
    ]
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(f"{name}/big.bin", os.urandom(padding))
        archive.writestr(f"{name}-{version}.dist-info/METADATA", "\n".join(lines) + "\n")
    return data.getvalue()


@dataclass
class Server:
    """Pages by path. ``asked``: each path with the number of bytes sent for it."""

    address: str = ""
    pages: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    ranges: bool = True
    absent: int = 404  #: the status for a page that is not there

    def sent(self, path: str) -> int:
        return sum(size for asked, size in self.asked if asked == path)

    def add(self, index: str, file: str, data: bytes, *, style: str = "html", **said: object) -> str:
        """A file in an index, in HTML (PEP 503) or JSON (PEP 691); its SHA-256 too, unless ``sha256`` is given."""
        name = re.sub(r"[-_.]+", "-", file.partition("-")[0]).lower()
        digest = str(said.pop("sha256", hashlib.sha256(data).hexdigest()))
        path, page = f"/files/{index}/{quote(file)}", f"/{index}/{name}/"
        self.pages[path] = ("application/octet-stream", data)
        if style == "html":
            attributes = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in said.items())
            anchor = f'<a href="{path}{"#sha256=" + digest if digest else ""}"{attributes}>{file}</a>\n'
            self.pages[page] = ("text/html", self.pages.get(page, ("", b""))[1] + anchor.encode())
        else:
            known = json.loads(self.pages[page][1])["files"] if page in self.pages else []
            listed = {"filename": file, "url": path, "hashes": {"sha256": digest} if digest else {}, **said}
            self.pages[page] = (JSON, json.dumps({"meta": {}, "files": [*known, listed]}).encode())
        return path


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in state.pages:
                state.asked.append((self.path, 0))
                self.send_error(state.absent)
                return
            kind, data = state.pages[self.path]
            asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if state.ranges else None
            part = data[int(asked[1]) : int(asked[2]) + 1] if asked else data
            self.send_response(206 if asked else 200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(part)))
            if asked:
                self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
            self.end_headers()
            state.asked.append((self.path, len(part)))
            self.wfile.write(part)

        def log_message(self, *_: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    state.address = f"http://127.0.0.1:{running.server_port}"
    yield state
    running.shutdown()
    thread.join()
    running.server_close()


Git = Callable[..., str]
_PERSON = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
_DATE = {"GIT_AUTHOR_DATE": "2026-03-04T05:06:07Z", "GIT_COMMITTER_DATE": "2026-03-04T05:06:07Z"}


def git(folder: Path, *arguments: str) -> str:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **_PERSON, **_DATE}
    command = ["git", "-C", str(folder), "-c", "protocol.file.allow=always", *arguments]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, check=True)
    return done.stdout.decode().strip()


def repository(folder: Path, files: Mapping[str, str]) -> str:
    """A clone with one commit on ``main``; the commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return git(folder, "rev-parse", "HEAD")


def lose(folder: Path, path: str) -> str:
    """Takes a file's content out of a clone; its blob id."""
    blob = git(folder, "rev-parse", f"HEAD:{path}")
    (folder / ".git/objects" / blob[:2] / blob[2:]).unlink()
    return blob
