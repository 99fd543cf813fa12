"""What a door is told, and what is written of it."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.door import render, settings
from patchforge.errors import Damaged
from tests.door.nginx import needs_nginx
from tests.support import ROOT

PAGE = re.search(r"(?ms)^```toml\n(.*?)^```$", (ROOT / "docs" / "door.md").read_text("utf-8"))
assert PAGE
FILE = PAGE[1]


def written(folder: Path, text: str = FILE) -> Path:
    (folder / "door.toml").write_text(text)
    return folder / "door.toml"


def test_the_page_s_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path)
    out = tmp_path / "patchforge-door.conf"
    assert main(["door", "render", str(path), "--out", str(out)]) == 0
    text = out.read_text()
    assert "server_name studio.example.org;" in text
    assert "server_name llm.example.org;" in text
    assert '"~^dashboard$" viewer;' in text
    assert main(["door", "render", str(path), "--out", str(out)]) == 0
    out.write_text(text.replace("TLSv1.2", "TLSv1"))
    assert main(["door", "render", str(path), "--out", str(out)]) == 2  # what somebody edited is kept
    assert "not as patchforge wrote it" in capsys.readouterr().err


@needs_nginx
def test_nginx_takes_it(tmp_path: Path) -> None:
    """The whole file in the place where Debian's nginx reads it, but for files of secrets and ports."""
    text = FILE.replace("/etc/patchforge/", f"{tmp_path}/").replace(
        "/etc/letsencrypt/live/studio.example.org", str(tmp_path)
    )
    text = text.replace("[comfyui]", 'listen = ["127.0.0.1:1443"]\nredirect = []\n[comfyui]', 1)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x")
    files = ("-keyout", f"{tmp_path}/privkey.pem", "-out", f"{tmp_path}/fullchain.pem")
    subprocess.run(["openssl", "req", "-x509", *key, *files], check=True, capture_output=True)
    for name in ("passwords", "tokens"):
        (tmp_path / name).write_text("")
    (tmp_path / "door.conf").write_bytes(render.rendered(settings.load(written(tmp_path, text))))
    main_file = f"pid {tmp_path}/pid; events {{ }}\nhttp {{ access_log off; include {tmp_path}/door.conf; }}\n"
    (tmp_path / "nginx.conf").write_text(main_file)
    command = ["nginx", "-t", "-p", str(tmp_path), "-e", f"{tmp_path}/error.log", "-c", f"{tmp_path}/nginx.conf"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = [line for line in done.stderr.splitlines() if "[warn]" in line or "[emerg]" in line]
    assert (done.returncode, said) == (0, [])


def test_parts_are_the_whole(tmp_path: Path) -> None:
    """NixOS puts together what is one file elsewhere."""
    door = settings.load(written(tmp_path))
    whole = render.rendered(door).decode()
    for part in ("http", "comfyui", "ollama"):
        lines = [line.strip() for line in render.rendered(door, part).decode().splitlines()[1:] if line.strip()]
        assert set(lines) <= {line.strip() for line in whole.splitlines()}, part
    assert "ssl_certificate_key" not in render.rendered(door, "http").decode()
    assert render.rendered(door) == render.rendered(settings.load(tmp_path / "door.toml"))


def test_json_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "door.json").write_text(json.dumps({**tomllib.loads(FILE), "client_ca": None, "oidc": None}))
    assert settings.load(tmp_path / "door.json") == settings.load(written(tmp_path))


def changed(**values: object) -> str:
    return json.dumps({**tomllib.loads(FILE), **values})


BAD = {
    "another format": (changed(format=2), "of a newer patchforge"),
    "no format": (changed(format=None), "$.format: 1"),
    "nothing behind it": (changed(comfyui=None, ollama=None), "neither comfyui nor ollama"),
    "one domain twice": (
        changed(ollama={"domain": "studio.example.org", "address": "http://[::1]:1"}),
        "a domain each",
    ),
    "nobody can sign in": (changed(passwords=None, tokens=None), "nobody could sign in"),
    "nobody has a role": (changed(users={}), "nobody has a role"),
    "the role nobody": (changed(users={"alice": "nobody"}), "not a role that somebody can have"),
    "an unknown role": (changed(users={"alice": "root"}), "expected viewer, user, admin, nobody, found 'root'"),
    "a name with a capital": (changed(users={"Alice": "admin"}), "small letters"),
    "a name that ends a line": (changed(users={'a" admin; "~.': "admin"}), "small letters"),
    "a domain that ends a line": (
        changed(comfyui={"domain": "a; }", "address": "http://127.0.0.1:1"}),
        "a domain in small",
    ),
    "a path that ends a line": (changed(passwords="/etc/x; }"), "whole path"),
    "a relative path": (changed(tokens="tokens"), "whole path"),
    "another scheme": (changed(comfyui={"domain": "a.b", "address": "https://127.0.0.1:1"}), "http://127.0.0.1:8188"),
    "no port": (changed(comfyui={"domain": "a.b", "address": "http://127.0.0.1"}), "http://127.0.0.1:8188"),
    **{
        f"{key} {text}": (changed(**{key: [text]}), "an address and a port, such as 0.0.0.0:443")
        for key in ("listen", "redirect")
        for text in (
            "0.0.0.0:99999",
            "0.0.0.0:0",
            "999.1.1.1:443",
            "1.1.1.256:443",
            "[::1::]:443",
            "[g]:443",
            "[1.1.1.1:443",
        )
    },
    **{
        f"{what} at {text}": (changed(**{what: more | {"address": f"http://{text}"}}), "such as http://127.0.0.1:8188")
        for what, more in (
            ("comfyui", {"domain": "a.b"}),
            ("ollama", {"domain": "a.b"}),
            ("oidc", {"groups": {"admin": ["a"]}}),
        )
        for text in ("127.0.0.1:0", "127.0.0.1:65536", "999.1.1.1:80", "1.2.3:80", "a.1:80", "[:::]:80", "[1]:80")
    },
    "a domain that is no address": (
        changed(comfyui={"domain": "999.1.1.1", "address": "http://127.0.0.1:1"}),
        "a domain in small",
    ),
    "one address twice": (changed(listen=["0.0.0.0:80"], redirect=["0.0.0.0:80"]), "name an address twice"),
    "networks that are none": (changed(networks=[]), "networks is empty"),
    "nowhere to listen": (changed(listen=[]), "listen is empty"),
    "only nothing": (
        changed(routes=[{"role": "user", "does": "read", "routes": ["GET /a/{b:.*}"], "only": []}]),
        "only is empty for GET /a/{b:.*}",
    ),
    "a grant of nothing": (changed(routes=[{"role": "user", "does": "read", "routes": []}]), "names no route"),
    "no network": (changed(networks=["192.168.1.5/24"]), "expected a network"),
    "no rate": (changed(rate=0), "rate is not"),
    "a size of words": (changed(upload="much"), "a size such as"),
    "an unknown pack": (changed(packs=["my-pack"]), "known: comfyui-ollama, res4lyf"),
    "an unknown key": (changed(password="secret"), "is not what it should be"),
    "a route of two readings": (
        changed(routes=[{"role": "user", "does": "run", "routes": ["GET /a/{b:.?}"]}]),
        "not a route",
    ),
    "a route of the table": (
        changed(routes=[{"role": "viewer", "does": "run", "routes": ["POST [/api]/prompt"]}]),
        "twice",
    ),
    "groups without roles": (changed(oidc={"address": "http://127.0.0.1:4180", "groups": {}}), "no group has a role"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_door_is_refused(tmp_path: Path, name: str) -> None:
    text, said = BAD[name]
    (tmp_path / "door.json").write_text(text)
    with pytest.raises(Damaged) as error:
        settings.load(tmp_path / "door.json")
    assert said in str(error.value)
    assert "docs/door.md" in str(error.value) or "correct it" in str(error.value) or "delete one" in str(error.value)


EMPTY = {"redirect", "packs", "routes"}  #: nothing is sent to the door, and nothing more is open


def test_an_empty_list_opens_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each list that a door has is refused where it is empty, or stands above with what that means."""
    lists = [field.name for field in fields(settings.Door) if str(field.type).startswith("tuple")]
    assert set(EMPTY) < set(lists)
    for name in lists:
        (tmp_path / "door.json").write_text(changed(**{name: []}))
        assert main(["door", "render", str(tmp_path / "door.json")]) == (0 if name in EMPTY else 65), name
        said = capsys.readouterr()
        assert name in EMPTY or f"{name} is empty" in said.err, name


@pytest.mark.parametrize("data", [b"\0" * 40, b"\x9c\xff", b"PK\3\4\0"])
def test_a_file_that_is_no_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "door.toml").write_bytes(data)
    with pytest.raises(Damaged, match="is not text") as error:
        settings.load(tmp_path / "door.toml")
    assert "the byte 0x" in error.value.found
    assert error.value.do == "correct the file"


def test_no_certificate_no_whole_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, FILE[: FILE.index("[tls]")] + FILE[FILE.index("[users]") :])
    assert main(["door", "render", str(path)]) == 2
    assert "names no certificate" in capsys.readouterr().err
    assert main(["door", "render", str(path), "--part", "comfyui", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["part"] == "comfyui"
