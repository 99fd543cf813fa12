"""Routes as they are read from source, and the table of who may use them."""

from __future__ import annotations

import json
import re
import string
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given, settings
from hypothesis import strategies as st

from patchforge.cli import main
from patchforge.door import render, roles, routes
from patchforge.door.roles import Does, Role, load_table
from patchforge.door.routes import Route
from patchforge.errors import Damaged, Exit
from tests.support import MemoryTree

SERVER = b"""\
from aiohttp import web
from api.internal import Internal
from app.users import Users

class Server:
    def __init__(self):
        self.internal = Internal(self)
        self.app = web.Application()
        register(self.app)
        routes = web.RouteTableDef()
        self.routes = routes

        @routes.get("/queue")
        async def get_queue(request): ...

        @routes.post('/queue')
        async def post_queue(request): ...

        @routes.view("/any")
        class Any: ...

        @routes.route("get", "/odd")
        async def odd(request): ...

    def add_routes(self):
        self.users.add_routes(self.routes)
        self.app.add_subapp("/internal", self.internal.get_app())
        api_routes = web.RouteTableDef()
        for route in self.routes:
            api_routes.route(route.method, "/api" + route.path)(route.handler, **route.kwargs)
        self.app.add_routes(api_routes)
        self.app.add_routes(self.routes)
        for name, folder in packs:
            self.app.add_routes([web.static('/extensions/' + quote(name), folder, follow_symlinks=True)])
        self.app.router.add_get("/templates/{path:.*}", handler)
        self.app.router.add_static("/docs", docs)
        self.app.router.add_resource("/by-hand").add_route("POST", handler)
        self.app.add_routes([web.static("/", root)])
        self.app.add_routes([web.post("/plain", handler)])
"""
USERS = b"""\
class Users:
    def add_routes(self, routes):
        self.settings.add_routes(routes)

        @routes.delete("/userdata/{file}")
        async def delete(request): ...
"""
INTERNAL = b"""\
class Internal:
    def __init__(self):
        self.routes: web.RouteTableDef = web.RouteTableDef()

        @self.routes.get('/logs')
        async def logs(request): ...

    def get_app(self):
        self._app.add_routes(self.routes)
"""
ASSETS = b"""\
ID = r"[0-9a-f]{8}-[0-9a-f]{4}"
ROUTES = web.RouteTableDef()

@ROUTES.put(f"/api/assets/{{id:{ID}}}")
@needs
async def put(request): ...

def register(app):
    app.add_routes(ROUTES)
"""
FILES = {
    "server.py": SERVER,
    "app/users.py": USERS,
    "api/internal.py": INTERNAL,
    "app/assets.py": ASSETS,
    "tests/test_server.py": b"@routes.get('/of-a-test')\ndef f(): ...\n",
    "client.py": b"requests.get('/not-a-route')\nroutes = {}\nroutes.get('/nor-this', 3)\n"[:40],
    "broken.py": b"this is not Python",
}


def test_every_way_to_declare_a_route() -> None:
    declared = routes.of_comfyui(MemoryTree(FILES))
    assert [str(route) for route in declared] == [
        "* /by-hand",
        "* [/api]/any",
        "DELETE [/api]/userdata/{file}",
        "GET /docs/{path:.*}",
        "GET /extensions/{name}/{path:.*}",
        "GET /internal/logs",
        "GET /templates/{path:.*}",
        "GET /{path:.*}",
        "GET [/api]/odd",
        "GET [/api]/queue",
        "POST /plain",
        "POST [/api]/queue",
        "PUT /api/assets/{id}",
    ]
    assert next(route.place for route in declared if route.path == "/internal/logs") == "api/internal.py:5"


def test_a_path_that_the_source_does_not_say_is_told() -> None:
    tree = MemoryTree({"server.py": b"@routes.post(paths[0])\ndef f(): ...\n"})
    assert routes.of_pack(tree) == (Route("POST", "[/api]?", "server.py:1"),)
    assert roles.undecided(routes.of_pack(tree), load_table().comfyui)


def test_a_file_that_cannot_be_read_is_told() -> None:
    with pytest.raises(Damaged, match=r"server\.py may declare routes and cannot be read"):
        routes.of_comfyui(MemoryTree({"server.py": b"@routes.get('/x'\n"}))


def test_packs_add_to_the_servers_table() -> None:
    places = (b"PromptServer.instance.routes.get('/mine')", b"server.PromptServer.instance.routes.get('/two')")
    code = b"".join(b"@" + place + b"\n" for place in places) + b"async def f(r): ...\n"
    declared = routes.of_pack(MemoryTree({"nodes.py": code}))
    assert [str(route) for route in declared] == ["GET [/api]/mine", "GET [/api]/two"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "__init__.py").write_text("@PromptServer.instance.routes.post('/reslyf/log')\nasync def log(r): ...\n")
    assert main(["door", "routes", "--pack", str(tmp_path)]) == 0
    (tmp_path / "more.py").write_text("@PromptServer.instance.routes.post('/more')\nasync def more(r): ...\n")
    capsys.readouterr()
    assert main(["door", "routes", "--pack", str(tmp_path), "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)["results"]
    assert [(route["path"], route["role"]) for route in told["routes"]] == [
        ("[/api]/more", ""),
        ("[/api]/reslyf/log", "user"),
    ]


@pytest.mark.parametrize("more", [["v0.33.0"], ["--all"], ["v0.33.0", "v0.32.0"]])
def test_a_pack_and_releases_are_not_asked_at_once(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["door", "routes", "--pack", str(tmp_path), *more]) == Exit.USAGE
    assert more[-1] in capsys.readouterr().err
    assert main(["door", "routes", "--all", "v0.33.0"]) == Exit.USAGE
    assert "v0.33.0" in capsys.readouterr().err


def test_ollamas_routes() -> None:
    go = b'r.GET("/api/tags", s.ListHandler)\n\tr.POST("/api/blobs/:digest", f)\n r.GET("/files/*path", f)\n'
    declared = routes.of_ollama(MemoryTree({"server/routes.go": go}))
    assert [str(route) for route in declared] == [
        "GET /api/tags",
        "GET /files/{path:.*}",
        "POST /api/blobs/{digest}",
    ]


def test_the_table() -> None:
    table = load_table()
    least = {Does.PAGE: Role.VIEWER, Does.READ: Role.VIEWER}
    for grant in (
        *table.comfyui,
        *table.ollama,
        *(grant_of_pack for grants in table.pack.values() for grant_of_pack in grants),
    ):
        if grant.role is Role.VIEWER:
            assert least.get(grant.does) is Role.VIEWER, grant
            assert {route.split()[0] for route in grant.routes} <= {"GET", "HEAD", "POST"}
    posted = [route for grant in table.comfyui if grant.role is Role.VIEWER for route in grant.routes]
    assert [route for route in posted if not route.startswith(("GET ", "HEAD "))] == []
    names = {path.stem for path in Path("upstream/nodes").glob("*.toml")}
    assert set(table.pack) <= names


def test_what_upstream_adds_is_undecided() -> None:
    now = routes.of_comfyui(MemoryTree({"server.py": SERVER}))
    new = {str(route) for route in roles.undecided(now, load_table().comfyui)}
    assert new == {"* /by-hand", "* [/api]/any", "GET [/api]/odd", "POST /plain"}
    renamed = Route("GET", "[/api]/history/{another_name}")
    assert roles.decided(renamed, load_table().comfyui)
    assert roles.decided(Route("GET", "/history/{prompt_id}"), load_table().comfyui)
    assert not roles.decided(Route("GET", "[/api]/docs/{path:.*}"), load_table().comfyui)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "does not say which format"),
        ("format = 1\ncomfyui = []", "is not what it should be"),
        ("format = 1\ncomfyui = []\nollama = []\nmore = 1", "is not what it should be"),
        ('format = 1\nollama = []\ncomfyui = [{role="king", does="read", routes=[]}]', "expected viewer, user, admin"),
        ('format = 1\nollama = []\ncomfyui = [{role="user", does="read", routes=["GET queue"]}]', "not a route"),
        ('format = 1\nollama = []\ncomfyui = [{role="user", does="read", routes=["GET /a/{b:[0-9]}"]}]', "not a route"),
        ('format = 1\nollama = []\ncomfyui = [{role="user", does="read", routes=["GET /a", "GET /a"]}]', "twice"),
    ],
)
def test_a_damaged_table(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "routes.toml").write_text(text)
    with pytest.raises(Damaged) as error:
        load_table(tmp_path / "routes.toml")
    assert problem in str(error.value)


#: aiohttp with every route of the table, as ComfyUI puts them there.
async def _never(_: web.Request) -> web.Response:
    raise AssertionError


def _application() -> web.Application:
    app = web.Application()
    for grant in load_table().comfyui:
        for route in grant.routes:
            method, _, path = route.partition(" ")
            for twin in ("", "/api") if path.startswith("[/api]") else ("",):
                if path != "/{path:.*}":
                    app.router.add_route(method, twin + path.removeprefix("[/api]"), _never)
    return app


APP = _application()
GRANTED = [
    (re.compile(render.pattern(*route.split(" ", 1))), route, grant.role)
    for grant in load_table().comfyui
    for route in grant.routes
    if route != "GET /{path:.*}"
]
WORDS = [
    "/",
    "/api",
    "prompt",
    "queue",
    "userdata",
    "users",
    "view",
    "..",
    ".",
    "%2e",
    "%2F",
    "%2f",
    "%70",
    "%5c",
    "%25",
    "assets",
    "api",
    "internal",
    "logs",
    "history",
    "free",
    "move",
    "settings",
    "docs",
    "%00",
    ";",
    "\\",
    "%C3%A9",
]
WORDS = [
    *("/", "/api", "prompt", "queue", "userdata", "users", "view", "..", ".", "%2e", "%2F", "%2f", "%70", "%5c", "%25"),
    *("assets", "api", "internal", "logs", "history", "free", "move", "settings", "docs", "%00", ";", "\\", "%C3%A9"),
]
PIECES = st.one_of(st.sampled_from(WORDS), st.text(string.ascii_letters + string.digits + "._-%/@+", max_size=4))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(["GET", "POST", "DELETE", "PUT"]), st.lists(PIECES, max_size=8))
@example("POST", ["/", "userdata", "/", "..%2f", "/", "move", "/", "x"])
@example("GET", ["/", "docs", "/", "prompt"])
def test_what_a_pattern_takes_is_that_route_to_aiohttp(method: str, pieces: list[str]) -> None:
    """Whatever the spelling: what the door takes for one route is not another, of a greater role, to ComfyUI."""
    import asyncio

    path = "/" + "".join(pieces).lstrip("/")
    taken = [(route, role) for known, route, role in GRANTED if known.fullmatch(f"{method} {path}")]
    if not taken:
        return
    match = asyncio.run(APP.router.resolve(make_mocked_request(method, path)))
    assert match.http_exception is None, (path, taken)
    assert match.route.resource is not None
    canonical = match.route.resource.canonical
    wanted = {re.sub(r":\.\*", "", route.split(" ", 1)[1]) for route, _ in taken}
    options = (
        wanted
        | {route.replace("[/api]", "") for route in wanted}
        | {route.replace("[/api]", "/api") for route in wanted}
    )
    assert canonical in options
