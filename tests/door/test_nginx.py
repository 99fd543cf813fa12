"""The generated configuration in a real nginx: who gets where, and how one might get round it."""

from __future__ import annotations

import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from patchforge.door.roles import ROLES, Role, load_table
from tests.door.nginx import (
    DOMAIN,
    PASSWORDS,
    SECOND,
    TOKENS,
    Nginx,
    Program,
    basic,
    bearer,
    door,
    loaded,
    needs_nginx,
    requests_of,
)

pytestmark = needs_nginx
PACKS = tuple(load_table().pack)
ABOUT = f"""\
rate = 2000
upload = "1k"
packs = [{", ".join(f'"{name}"' for name in PACKS)}]
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with Program().running() as program, door(tmp_path_factory.mktemp("door"), program, ABOUT) as nginx:
        yield nginx


def may(name: str, role: Role) -> bool:
    return role in ROLES and name in ROLES and ROLES.index(Role(name)) >= ROLES.index(role)


def test_every_route_by_role(nginx: Nginx) -> None:
    """401 for whoever shows nothing, 403 for whoever may not, else the program's own answer, to the very request."""
    asked = list(requests_of(load_table().all_for("comfyui", PACKS)))
    assert len(asked) > 120
    for method, path, grant in asked:
        assert nginx.status(path, method) == 401, (method, path)
        for name in ("viewer", "user", "admin", "stranger"):
            before = len(nginx.program.seen)
            status, _, body = nginx.ask(path, method, bearer(name))
            if may(name, grant.role):
                assert status == 200, (method, path, name)
                assert method == "HEAD" or loaded(body)["path"] == path
            else:
                assert status == 403, (method, path, name)
                assert len(nginx.program.seen) == before


def test_a_viewer_changes_nothing(nginx: Nginx) -> None:
    for path in ("/prompt", "/free", "/interrupt", "/upload/image", "/queue", "/history", "/users", "/settings/x"):
        for twin in ("", "/api"):
            assert nginx.status(twin + path, "POST", bearer("viewer")) == 403
            assert nginx.status(twin + path, "POST", bearer("admin")) == 200


def test_three_ways_in(nginx: Nginx) -> None:
    assert nginx.status("/queue", headers=basic("viewer")) == 200
    assert nginx.status("/prompt", "POST", basic("viewer")) == 403
    assert nginx.status("/prompt", "POST", basic("user")) == 200
    assert nginx.status("/queue", headers=basic("viewer", "wrong")) == 401
    assert nginx.status("/queue", headers=basic("nobody", "x")) == 401
    assert nginx.status("/queue", headers={"Authorization": f"Bearer {TOKENS['viewer'][:-1]}"}) == 401
    assert nginx.status("/queue", headers={"Authorization": "Bearer "}) == 401
    assert nginx.status("/queue", headers={"Authorization": "Bearer default"}) == 401
    assert nginx.status("/queue", certificate="viewer") == 200
    assert nginx.status("/prompt", "POST", certificate="viewer") == 403
    assert nginx.status("/prompt", "POST", certificate="admin") == 200
    # A name is nothing without what proves it.
    assert nginx.status("/users", "POST", basic("admin", "guessed")) == 401
    assert nginx.status("/users", "POST", {**bearer("viewer"), "comfy-user": "admin"}) == 403
    assert nginx.status("/queue", headers=basic("ADMIN", PASSWORDS["admin"])) == 401


@pytest.mark.parametrize("name", ["forger", "another"])
def test_a_certificate_of_another_name(nginx: Nginx, name: str) -> None:
    assert nginx.status("/users", "POST", certificate=name) in {401, 403}


def test_a_certificate_that_somebody_signed_himself(nginx: Nginx) -> None:
    assert nginx.status("/queue", certificate="self") == 400


def test_what_is_not_in_the_table_is_refused(nginx: Nginx) -> None:
    for path in ("/new", "/api/new", "/debug/pprof", "/assets", "/favicon.ico", "/app.js", "/internal", "/view/x"):
        assert nginx.status(path, headers=bearer("admin")) == 403
        assert nginx.status(path) == 401
    for method in ("OPTIONS", "TRACE", "CONNECT", "PROPFIND", "PATCH", "PUT", "DELETE", "POST"):
        assert nginx.status("/system_stats", method, bearer("admin")) in {403, 405}
    assert nginx.status("/VHS_test", "POST", bearer("admin")) == 403


TRICKS = [
    "//prompt",
    "/api//prompt",
    "/./prompt",
    "/assets/../prompt",
    "/assets/%2e%2e/prompt",
    "/assets/%2E%2E/prompt",
    "/assets/.%2e/prompt",
    "/assets/..%2fprompt",
    "/assets/%2e%2e%2fprompt",
    "/assets/..%5cprompt",
    "/assets/..\\prompt",
    "/assets/%252e%252e/%2e/prompt",
    "/%70rompt",
    "/PROMPT",
    "/Prompt",
    "/prompt/",
    "/prompt%2f",
    "/prompt%00",
    "/prompt;x",
    "/prompt%20",
    "/prompt%09",
    "/API/prompt",
    "/api/api/prompt",
    "/queue/../prompt",
    "/queue%2f..%2fprompt",
    "/.door",
    "/index.html/../prompt",
    "/userdata/..%2f..%2fprompt",
    "/userdata/%2e%2e%2fx",
    "/userdata/a/..",
    "/prompt#x",
    "/users?x",
]


@pytest.mark.parametrize("path", TRICKS)
def test_tricks_with_paths(nginx: Nginx, path: str) -> None:
    """To the one that may do least, no spelling of another route is open, whatever the method."""
    before = len(nginx.program.seen)
    for method in ("POST", "GET", "DELETE"):
        if path == "/users?x" and method == "GET":
            continue
        answer = nginx.raw(
            f"{method} {path} HTTP/1.1\r\nHost: {DOMAIN}\r\nAuthorization: Bearer {TOKENS['viewer']}\r\n"
            "Content-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        assert int(answer.split()[1]) in {400, 403, 404, 405, 409}, (method, path, answer[:60])
    assert nginx.program.seen[before:] == []


def test_the_whole_address_in_the_request_line(nginx: Nginx) -> None:
    def asked(line: str, host: str = DOMAIN) -> int:
        head = f"{line} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKENS['viewer']}\r\n"
        return int(nginx.raw(f"{head}Content-Length: 0\r\nConnection: close\r\n\r\n".encode()).split()[1])

    assert asked(f"GET https://{DOMAIN}/queue") == 200
    assert asked(f"POST https://{DOMAIN}/prompt") == 403
    assert asked(f"POST https://{DOMAIN}/queue/../prompt") == 403
    assert asked("GET https://stranger.example/queue") == 421
    assert asked("GET /queue", "stranger.example") == 421
    assert asked(f"GET https://{DOMAIN}/queue", "stranger.example") in {200, 400}


def test_headers_that_some_programs_obey(nginx: Nginx) -> None:
    for name in ("X-HTTP-Method-Override", "X-Http-Method-Override"):
        assert nginx.status("/queue", headers={**bearer("viewer"), name: "POST"}) == 200
        assert nginx.program.seen[-1]["method"] == "GET"
    nginx.ask("/queue", headers={**bearer("viewer"), "X-Original-URL": "/prompt", "X-Forwarded-For": "10.0.0.1"})
    told = nginx.program.seen[-1]["headers"]
    assert told["X-Forwarded-For"] == "127.0.0.1"
    assert told["Host"].startswith(DOMAIN)


def test_secrets_stay_at_the_door(nginx: Nginx) -> None:
    nginx.ask("/queue", headers={**bearer("viewer"), "Cookie": "session=hidden"})
    nginx.ask("/queue", headers=basic("user"))
    nginx.ask("/nowhere", headers=basic("user", "secret, but wrong"))
    for seen in nginx.program.seen:
        assert not {"Authorization", "Cookie"} & set(seen["headers"])
    logs = nginx.logs()
    words = [*TOKENS.values(), *PASSWORDS.values(), "secret, but wrong", basic("user")["Authorization"][6:], "hidden"]
    assert "GET /queue" in logs
    assert [word for word in words if word in logs] == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "https://{own}"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://{own}"}, 403),
        ({"Origin": "https://{own}.evil.example"}, 403),
        ({"Origin": "https://evil.example/https://{own}"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
    ],
)
def test_foreign_pages(nginx: Nginx, headers: dict[str, str], status: int) -> None:
    """Of a request that runs something; a link from another page may open this one."""
    own = f"{DOMAIN}:{nginx.port}"
    filled = {name: value.replace("{own}", own) for name, value in headers.items()}
    assert nginx.status("/prompt", "POST", {**bearer("user"), **filled}) == status
    if headers.get("Sec-Fetch-Mode") == "navigate":
        assert nginx.status("/", headers={**bearer("user"), **filled}) == 200


def upgrade(nginx: Nginx, path: str = "/ws", **headers: str) -> bytes:
    """What comes for a WebSocket on which ``bye`` is said."""
    lines = {
        "Host": f"{DOMAIN}:{nginx.port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
        "Sec-WebSocket-Version": "13",
        **headers,
    }
    head = f"GET {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
    mask = b"\0\0\0\0"
    return nginx.raw(head.encode() + b"\x81\x83" + mask + b"bye" + b"\x88\x80" + mask)


def test_websockets(nginx: Nginx) -> None:
    own = {"Origin": f"https://{DOMAIN}:{nginx.port}"}
    for path in ("/ws", "/api/ws?clientId=abc"):
        assert upgrade(nginx, path).startswith(b"HTTP/1.1 401")
        assert upgrade(nginx, path, **bearer("stranger")).startswith(b"HTTP/1.1 403")
        assert upgrade(nginx, path, **bearer("viewer"), Origin="https://evil.example").startswith(b"HTTP/1.1 403")
        answer = upgrade(nginx, path, **bearer("viewer"), **own)
        assert answer.startswith(b"HTTP/1.1 101")
        assert b"echo bye" in answer
    assert upgrade(nginx, "/prompt/ws", **bearer("admin")).startswith(b"HTTP/1.1 403")


def test_too_much_at_once(nginx: Nginx) -> None:
    assert nginx.status("/upload/image", "POST", bearer("user"), body=b"x" * 1024) == 200
    assert nginx.status("/upload/image", "POST", bearer("user"), body=b"x" * 1025) == 413
    assert nginx.status("/upload/image", "POST", bearer("viewer"), body=b"x" * 1024) == 403


def test_headers_of_answers(nginx: Nginx) -> None:
    for path, more in (("/", bearer("viewer")), ("/queue", {}), ("/prompt", bearer("viewer"))):
        _, headers, _ = nginx.ask(path, headers=more)
        assert headers["strict-transport-security"].startswith("max-age=")
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers
    policy = nginx.ask("/", headers=bearer("viewer"))[1]["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "default-src *" not in policy
    for path in ("/view?filename=x.html", "/api/userdata/x.html", "/api/assets/1/content"):
        assert nginx.ask(path, headers=bearer("viewer"))[1]["content-security-policy"].endswith("sandbox")


def test_tls(nginx: Nginx) -> None:
    """Plain HTTP leads here, old versions of TLS nowhere, and a stranger's name to no certificate of ours."""
    import http.client
    import warnings

    plain = http.client.HTTPConnection("127.0.0.1", nginx.plain, timeout=10)
    plain.request("GET", "/queue?x=1", headers={"Host": DOMAIN})
    answer = plain.getresponse()
    assert (answer.status, answer.getheader("Location")) == (301, f"https://{DOMAIN}:{nginx.port}/queue?x=1")
    for version, accepted in (
        (ssl.TLSVersion.TLSv1_1, False),
        (ssl.TLSVersion.TLSv1_2, True),
        (ssl.TLSVersion.TLSv1_3, True),
    ):
        context = nginx.context()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context.set_ciphers("DEFAULT@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
        with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as bare:
            if accepted:
                assert context.wrap_socket(bare, server_hostname=DOMAIN).version()
            else:
                with pytest.raises((ssl.SSLError, ConnectionResetError)):
                    context.wrap_socket(bare, server_hostname=DOMAIN)


@pytest.fixture
def secrets(nginx: Nginx, tmp_path: Path) -> Path:
    """A folder of another door, with the same secrets."""
    for file in nginx.folder.iterdir():
        if file.suffix in {".pem", ".key"} or file.name in {"passwords", "tokens"}:
            shutil.copy(file, tmp_path / file.name)
    return tmp_path


def test_too_many_requests(nginx: Nginx, secrets: Path) -> None:
    with door(secrets, nginx.program, "rate = 1") as slow:
        statuses = [slow.status("/queue", headers=basic("user", "wrong")) for _ in range(30)]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429


def test_networks(nginx: Nginx, secrets: Path) -> None:
    with door(secrets, nginx.program, 'networks = ["192.0.2.0/24"]') as narrow:
        assert narrow.status("/queue", headers=bearer("admin")) == 403
        assert narrow.status("/queue") == 403
    with door(secrets, nginx.program, 'networks = ["192.0.2.0/24", "127.0.0.0/8"]') as narrow:
        assert narrow.status("/queue", headers=bearer("viewer")) == 200


class SignIn(Program):
    """oauth2-proxy's /oauth2/auth, as its ``oauthproxy.go`` has it: 401 without a session, 403 where it has none of the
    groups of ``allowed_groups``, else 202.
    """

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append({"path": request.raw_path, "headers": dict(request.headers)})
        if request.path != "/oauth2/auth":
            return web.Response(status=302, headers={"Location": "https://id.example.org/"})
        group = request.cookies.get("_oauth2_proxy", "")
        if not group:
            return web.Response(status=401)
        allowed = [
            group_name
            for text in request.query.getall("allowed_groups", [])
            for group_name in text.split(",")
            if group_name
        ]
        return web.Response(status=202 if not allowed or group in allowed else 403)


def test_sign_in_elsewhere(nginx: Nginx, secrets: Path) -> None:
    """People by oauth2-proxy and its groups, programs by their tokens beside it."""
    with SignIn().running() as sign_in:
        groups = 'groups = { viewer = ["guests"], user = ["artists"], admin = ["operators", "owners"] }'
        oidc = f'oidc = {{ address = "http://127.0.0.1:{sign_in.port}", {groups} }}\nrate = 1000'
        with door(secrets, nginx.program, oidc) as signed_in:
            for grant in load_table().comfyui:
                for method, path, _ in requests_of((grant,)):
                    for group, name in {
                        "guests": "viewer",
                        "artists": "user",
                        "owners": "admin",
                        "others": "x",
                    }.items():
                        expected = 200 if may(name, grant.role) else 403
                        cookie = {"Cookie": f"_oauth2_proxy={group}"}
                        assert signed_in.status(path, method, cookie) == expected, (method, path, group)
            assert signed_in.status("/queue") == 401
            assert signed_in.status("/new", headers={"Cookie": "_oauth2_proxy=owners"}) == 403
            assert signed_in.status("/queue", headers=bearer("viewer")) == 200
            assert signed_in.status("/prompt", "POST", {**bearer("viewer"), "Cookie": "_oauth2_proxy=owners"}) == 403
            assert signed_in.status("/prompt", "POST", basic("user")) == 200
            assert signed_in.status("/prompt", "POST", basic("user", "wrong")) == 401
            status, headers, _ = signed_in.ask("/", headers={"Sec-Fetch-Mode": "navigate"})
            assert (status, headers["location"].partition("/oauth2")[2]) == (302, "/start?rd=/")
            assert signed_in.ask("/oauth2/start?rd=/")[1]["location"] == "https://id.example.org/"
            assert signed_in.status("/oauth2/../prompt", "POST") in {400, 401}
        assert not any("Authorization" in seen["headers"] for seen in sign_in.seen)


def test_ollama(nginx: Nginx, secrets: Path) -> None:
    """Every route by role, at a domain of its own; ComfyUI's are not there. It hears a host that it takes."""
    about = f'rate = 1000\nollama = {{ domain = "{SECOND}", address = "http://127.0.0.1:{nginx.program.port}" }}'
    host: dict[str, Any] = {"host": SECOND}
    with door(secrets, nginx.program, about) as whole:
        for method, path, grant in requests_of(load_table().ollama):
            assert whole.status(path, method, **host) == 401
            for name in ("viewer", "user", "admin", "stranger"):
                expected = 200 if may(name, grant.role) else 403
                assert whole.status(path, method, bearer(name), **host) == expected, (method, path, name)
        for path in ("/queue", "/debug/pprof/", "/api//generate", "/v1/../api/pull", "/metrics"):
            assert whole.status(path, headers=bearer("admin"), **host) in {400, 403}
        assert whole.status("/api/version", headers=bearer("admin")) == 403  # of Ollama, at the domain of ComfyUI
        own = {"Origin": f"https://{SECOND}:{whole.port}"}
        assert whole.status("/api/generate", "POST", {**bearer("user"), **own}, **host) == 200
        told = nginx.program.seen[-1]["headers"]
        assert (told["Host"], "Origin" in told) == ("localhost", False)
