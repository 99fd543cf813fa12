"""The script by which a service downloads models: by hash, with a token for one host, and within a size."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support import ROOT

DATA = b"weights" * 1000
TOKEN = "the-token"


def _script() -> ModuleType:
    path = ROOT / "templates/nix/modules/fetch-models.py"
    spec = importlib.util.spec_from_file_location("fetch_models", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = _script()


def sri(data: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()


class Host(BaseHTTPRequestHandler):
    """Gives the data; at /gated to whoever has the token, from another host to which it sends on."""

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append((self.path, self.headers.get("Authorization")))
        if self.path == "/gated" and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.send_error(401)
        elif self.path == "/gated":
            self.send_response(302)
            self.send_header("Location", server.elsewhere + "/stored")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Length", str(len(DATA)))
            self.end_headers()
            self.wfile.write(DATA[: 10 if self.path == "/cut" else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hosts() -> Iterator[tuple[Any, Any]]:
    """The one that is asked, and the one that it sends to."""
    servers: list[Any] = [ThreadingHTTPServer(("127.0.0.1", 0), Host) for _ in range(2)]
    for server in servers:
        server.seen = []
        server.elsewhere = f"http://127.0.0.1:{servers[1].server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers[0], servers[1]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "credentials"
    folder.mkdir()
    (folder / "hf-token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))


def run(tmp_path: Path, *models: dict[str, Any], limit: int | None = None) -> int:
    file = tmp_path / "models.json"
    file.write_text(json.dumps({"folder": str(tmp_path / "models"), "limit": limit, "models": models}))
    return int(SCRIPT.main(str(file)))


def model(host: Any, place: str, path: str = "vae/x.safetensors", **changes: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{host.server_port}{place}"
    return {"path": path, "url": url, "hash": sri(DATA), "credential": None, **changes}


def files(tmp_path: Path) -> set[str]:
    folder = tmp_path / "models"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_it_is_downloaded_once(hosts: tuple[Any, Any], tmp_path: Path) -> None:
    wanted = model(hosts[0], "/plain")
    assert run(tmp_path, wanted) == 0
    assert (tmp_path / "models/vae/x.safetensors").read_bytes() == DATA
    assert run(tmp_path, wanted) == 0
    assert len(hosts[0].seen) == 1


def test_what_is_there_already_is_taken_by_its_hash(hosts: tuple[Any, Any], tmp_path: Path) -> None:
    (tmp_path / "models/vae").mkdir(parents=True)
    (tmp_path / "models/vae/x.safetensors").write_bytes(DATA)
    assert run(tmp_path, model(hosts[0], "/plain")) == 0
    assert hosts[0].seen == []


@pytest.mark.parametrize("place", ["/cut", "/plain"])
def test_nothing_wrong_gets_the_name(
    hosts: tuple[Any, Any], tmp_path: Path, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = model(hosts[0], place, hash=sri(DATA if place == "/cut" else b"other"))
    good = model(hosts[0], "/plain", "loras/y.safetensors")
    assert run(tmp_path, other, good) == 1
    assert "vae/x.safetensors: " in capsys.readouterr().err
    assert "vae/x.safetensors" not in files(tmp_path)
    assert "loras/y.safetensors" in files(tmp_path)


@pytest.mark.usefixtures("credentials")
def test_a_token_is_for_one_host(hosts: tuple[Any, Any], tmp_path: Path) -> None:
    asked, other = hosts
    assert run(tmp_path, model(asked, "/gated", credential="hf-token")) == 0
    assert asked.seen == [("/gated", f"Bearer {TOKEN}")]
    assert other.seen == [("/stored", None)]


def test_without_its_token_it_says_so(
    hosts: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, model(hosts[0], "/gated")) == 1
    assert "401" in capsys.readouterr().err


def test_only_what_is_no_longer_listed_goes_the_least_recently_used_first(
    hosts: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models" / "vae"
    folder.mkdir(parents=True)
    for age, name in enumerate(["newer", "older", "oldest"]):
        (folder / name).write_bytes(DATA)
        os.utime(folder / name, (1_500_000_000 - age, 1_000_000_000))
    listed = model(hosts[0], "/plain")
    os.utime(folder / "newer")
    assert run(tmp_path, listed, limit=2 * len(DATA) + 200) == 0
    assert {name for name in files(tmp_path) if "/." not in name} == {"vae/newer", "vae/x.safetensors"}
    assert run(tmp_path, listed, limit=10) == 1
    assert (folder / "x.safetensors").is_file()
    assert "the listed models take" in capsys.readouterr().err
