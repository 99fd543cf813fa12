"""The routes of every release and pinned pack, and a whole workflow through nginx to a real ComfyUI."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from emulator import environment
from patchforge import pipeline
from patchforge.door import roles, routes
from patchforge.door.roles import load_table
from patchforge.pins import pin_files
from patchforge.sources import FolderTree, GitObjects, GitTree, open_upstream
from patchforge.trial.server.comfyui import ComfyuiServer
from patchforge.trial.server.environment import existing
from tests.door.nginx import DOMAIN, Nginx, Program, bearer, door, loaded, needs_nginx
from tests.releases import NEEDED
from tests.support import ROOT

RELEASE = "v0.33.0"
OLLAMA = os.environ.get("PATCHFORGE_OLLAMA", "")
PACKS = os.environ.get("PATCHFORGE_PACKS", "")
_PLACE = re.compile(r"\{(\w+)(:[^{}]*(?:\{[^{}]*\}[^{}]*)*)?\}")
#: Tells every route that the running server has, in its own words.
PACK = """\
from aiohttp import web
from server import PromptServer

NODE_CLASS_MAPPINGS = {}


@PromptServer.instance.routes.get("/told")
async def told(request):
    found = []
    for route in request.app.router.routes():
        static = type(route.resource).__name__ == "StaticResource"
        found.append([route.method, route.resource.canonical + ("/{path}" if static else "")])
    return web.json_response(found)
"""


def needs_comfyui(test: Callable[..., None]) -> Callable[..., None]:
    for mark in (*NEEDED, needs_nginx):
        test = mark(test)
    return test


@pytest.mark.upstream
@pytest.mark.skipif(not os.environ.get("PATCHFORGE_UPSTREAM"), reason="needs PATCHFORGE_UPSTREAM")
def test_every_route_of_every_release_is_decided_about() -> None:
    """And every line of the table is about a route that some release has."""
    grants = load_table().comfyui
    left = {route for grant in grants for route in grant.routes}
    undecided = {}
    with open_upstream() as upstream:
        for release in upstream.releases():
            declared = routes.of_comfyui(upstream.tree(release))
            assert len(declared) >= 30, release
            if new := roles.undecided(declared, grants):
                undecided[str(release.version)] = [str(route) for route in new]
            left -= {
                route_text
                for route in declared
                if (grant := roles.decided(route, grants))
                for route_text in grant.routes
            }
    assert undecided == {}
    assert left == set()


@pytest.mark.skipif(not PACKS, reason="PATCHFORGE_PACKS does not name a folder of checkouts")
def test_every_route_of_pinned_packs_is_decided_about() -> None:
    seen = set()
    for name, pin in pin_files.load("nodes", ROOT / "upstream" / "pins").items():
        declared = routes.of_pack(FolderTree(Path(PACKS) / pin.repo))
        grants = load_table().pack.get(name, ())
        assert roles.undecided(declared, grants) == (), name
        assert {route for grant in grants for route in grant.routes} <= {str(route) for route in declared}
        seen |= {name} if declared else set()
    assert seen == set(load_table().pack)


@pytest.mark.skipif(not OLLAMA, reason="PATCHFORGE_OLLAMA does not name a clone of Ollama")
def test_every_route_of_the_pinned_ollama_is_decided_about() -> None:
    pin = pin_files.load("ollama", ROOT / "upstream" / "pins")[""]
    declared = routes.of_ollama(GitTree(GitObjects(Path(OLLAMA)), pin.rev))
    assert len(declared) >= 30
    assert roles.undecided(declared, load_table().ollama) == ()


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Nginx]]:
    """A running release on the CPU, and nginx before it."""
    folder = tmp_path_factory.mktemp("real")
    tree = folder / "ComfyUI"
    with open_upstream() as upstream:
        pipeline.write_whole(upstream.tree(upstream.resolve(RELEASE)), tree)
    (tree / "custom_nodes" / "teller.py").write_text(PACK)
    python = existing(Path(os.environ["PATCHFORGE_COMFYUI_PYTHON"]))
    given = {
        "arguments": ("--cpu", "--disable-metadata"),
        "variables": environment("b580", "torchvision=schemas") | {"OMP_NUM_THREADS": "1"},
    }
    with ComfyuiServer(tree, python, **given, log=folder / "server.log", timeout=180) as server:  # type: ignore[arg-type]
        about = 'rate = 500\nupload = "1m"\nroutes = [{ role = "admin", does = "read", routes = ["GET [/api]/told"] }]'
        with door(folder, Program(server.client.port), about) as nginx:
            yield tree, nginx


@needs_comfyui
def test_the_source_says_what_the_server_has(comfyui: tuple[Path, Nginx]) -> None:
    tree, nginx = comfyui
    status, _, body = nginx.ask("/told", headers=bearer("admin"))
    assert status == 200
    running = {(method, path) for method, path in loaded(body) if method != "HEAD" or "/hash/" in path}
    read = set()
    for route in routes.of_comfyui(FolderTree(tree)):
        plain = _PLACE.sub(r"{\1}", route.path.removeprefix("[/api]"))
        read |= {(route.method, twin + plain) for twin in ({"", "/api"} if route.path.startswith("[") else {""})}
    # What is there only with a front end, or once for each pack that has files for it.
    optional = {"/docs/{path}", "/templates/{path}", "/extensions/{name}/{path}"}
    optional |= {"/api/workflow_templates/{module_name}/{path}"}
    assert running - read == {("GET", "/told"), ("GET", "/api/told")}
    assert {path for _, path in read - running} <= optional


@needs_comfyui
def test_a_whole_workflow(comfyui: tuple[Path, Nginx]) -> None:
    """A picture is uploaded, loaded, saved and fetched; its progress comes over the socket, to a viewer too."""
    _, nginx = comfyui
    body, kind = multipart("image", "in.png", png())
    assert nginx.status("/upload/image", "POST", {**bearer("viewer"), **kind}, body=body) == 403
    assert nginx.status("/upload/image", "POST", {**bearer("user"), **kind}, body=body) == 200
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "through"}},
    }
    prompt = json.dumps({"prompt": graph, "client_id": "someone"}).encode()
    own = {"Origin": f"https://{DOMAIN}:{nginx.port}"}
    assert nginx.status("/api/prompt", "POST", bearer("viewer"), body=prompt) == 403
    assert nginx.status("/api/prompt", "POST", body=prompt) == 401
    with Watching(nginx, "someone", **bearer("user"), **own) as told:
        status, _, answer = nginx.ask("/api/prompt", "POST", {**bearer("user"), **own}, body=prompt)
        assert status == 200, answer
        name = loaded(answer)["prompt_id"]
        for _ in range(600):
            history = loaded(nginx.ask(f"/history/{name}", headers=bearer("viewer"))[2])
            if history:
                break
            time.sleep(0.05)
        for _ in range(100):
            if "execution_success" in told.text():
                break
            time.sleep(0.05)
    assert history[name]["status"]["status_str"] == "success"
    assert {"executing", "executed", "execution_success"} <= set(re.findall(r'"type": "(\w+)"', told.text()))
    picture = history[name]["outputs"]["3"]["images"][0]
    status, headers, data = nginx.ask(f"/view?filename={picture['filename']}&type=output", headers=bearer("viewer"))
    assert (status, data[:8]) == (200, b"\x89PNG\r\n\x1a\n")
    assert headers["content-security-policy"].endswith("sandbox")


@needs_comfyui
def test_files_in_folders_of_the_users_own(comfyui: tuple[Path, Nginx]) -> None:
    """The page names them with an encoded slash."""
    _, nginx = comfyui
    path = "/api/userdata/workflows%2Fmine.json"
    assert nginx.status(path, "POST", bearer("viewer"), body=b"{}") == 403
    assert nginx.status(path, "POST", bearer("user"), body=b"{}") == 200
    assert nginx.ask(path, headers=bearer("viewer"))[2] == b"{}"
    assert nginx.status(f"{path}/move/workflows%2Fother.json", "POST", bearer("user")) == 200
    assert nginx.status("/api/userdata/..%2F..%2Fmain.py", headers=bearer("admin")) == 403
    assert nginx.status("/api/userdata/workflows%2Fother.json", "DELETE", bearer("viewer")) == 403
    assert nginx.status("/api/userdata/workflows%2Fother.json", "DELETE", bearer("user")) == 204


@needs_comfyui
def test_its_own_answers_come_through(comfyui: tuple[Path, Nginx]) -> None:
    """Also for what it has and the role may use: no 403 of ComfyUI's own guard is in the way."""
    _, nginx = comfyui
    own = {"Origin": f"https://{DOMAIN}:{nginx.port}", "Sec-Fetch-Site": "same-origin"}
    for path in ("/", "/queue", "/object_info", "/system_stats", "/api/settings", "/api/users", "/api/jobs"):
        assert nginx.status(path, headers={**bearer("viewer"), **own}) == 200, path
    assert nginx.status("/free", "POST", {**bearer("viewer"), **own}, body=b"{}") == 403
    assert nginx.status("/free", "POST", {**bearer("user"), **own}, body=b"{}") == 200
    assert nginx.status("/interrupt", "POST", {**bearer("user"), **own}) == 200
    assert nginx.status("/internal/logs", headers=bearer("user")) == 403
    assert nginx.status("/internal/logs", headers=bearer("admin")) == 200
    assert nginx.status("/main.py", headers=bearer("admin")) == 403


def png(size: int = 8) -> bytes:
    """A black picture."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = size.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    rows = (b"\0" + bytes(3 * size)) * size
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def multipart(name: str, file: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="{file}"\r\n\r\n'.encode()
    return head + data + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


class Watching:
    """What comes over the socket while the block runs."""

    def __init__(self, nginx: Nginx, client: str, **headers: str) -> None:
        import websockets.sync.client

        self.socket = websockets.sync.client.connect(
            f"wss://{DOMAIN}:{nginx.port}/ws?clientId={client}",
            additional_headers={name: value for name, value in headers.items() if name != "Origin"},
            origin=headers.get("Origin"),  # type: ignore[arg-type]
            ssl=nginx.context(),
            sock=socket.create_connection(("127.0.0.1", nginx.port)),
        )
        self.parts = io.StringIO()
        self.thread = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        for message in self.socket:
            if isinstance(message, str):
                self.parts.write(message + "\n")

    def text(self) -> str:
        return self.parts.getvalue()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.thread.join(10)
