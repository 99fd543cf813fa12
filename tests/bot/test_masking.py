"""The bot against a GitHub that repeats the token in every way: it is in nothing that is printed, sent or kept.

``World.close`` looks through all of it for the token as it is; here also for its other spellings.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from patchforge.bot.mirror import Mirror
from patchforge.bot.notify import main
from patchforge.bot.token import Token, find_token
from patchforge.commands import bot, track
from patchforge.errors import Exit, PatchforgeError
from tests.bot.fake_github import Fault
from tests.bot.test_bot_rules import drifting
from tests.bot.world import FIRST, REPOSITORY, SECOND, TOKEN, World, bot_options
from tests.web.clients import forge as client
from tests.web.hostile import http, serving

SPELLINGS = {
    "plain": TOKEN,
    "quoted": quote(TOKEN, safe=""),
    "quoted in part": quote(TOKEN),
    "quoted twice": quote(quote(TOKEN, safe=""), safe=""),
    "quoted, all of it": "".join(f"%{ord(character):02x}" for character in TOKEN),
    "JSON": json.dumps(TOKEN).replace("/", "\\/")[1:-1],
    "JSON, all of it": "".join(f"\\u{ord(character):04X}" for character in TOKEN),
    "Python": "".join(f"\\x{ord(character):02x}" for character in TOKEN),
    "HTML": "".join(f"&#{ord(character)};" for character in TOKEN),
    "HTML, hexadecimal": "".join(f"&#x{ord(character):X};" for character in TOKEN),
    "base 64": base64.b64encode(TOKEN.encode()).decode(),
    "base 64, for addresses": base64.urlsafe_b64encode(b"x" + TOKEN.encode()).decode(),
    "git's header": Token(TOKEN).basic,
    "a login": base64.b64encode(f"me:{TOKEN}:x".encode()).decode(),
    "base 16": TOKEN.encode().hex(),
    "capitals": TOKEN.upper(),
}
EVERY = " ".join(SPELLINGS.values())
HEART = re.compile("secret.token.of", re.IGNORECASE)


def unspelt(text: str) -> list[str]:
    """The text as whoever reads it could read it: unquoted, unescaped, decoded."""
    spellings = [text, html.unescape(text)]
    spellings.append(re.sub(r"%(?:25)*([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), text))
    spellings.append(
        re.sub(r"\\+(?:u00|x)([0-9a-fA-F]{2})", lambda match: chr(int(match[1], 16)), text).replace("\\", "")
    )
    for run in re.findall(r"[A-Za-z0-9+/_-]{16,}", text):
        plain = run.replace("-", "+").replace("_", "/")
        for start in range(4):
            piece = plain[start : start + (len(plain) - start) // 4 * 4]
            spellings.append(base64.b64decode(piece, validate=False).decode("latin-1") if piece else "")
        if re.fullmatch("[0-9a-fA-F]+", run):
            spellings.append(bytes.fromhex(run[: len(run) // 2 * 2]).decode("latin-1"))
    return spellings


def leaks(text: str) -> bool:
    return any(HEART.search(spelling) for spelling in unspelt(text))


def clean(world: World, folder: Path | None = None) -> None:
    """Nothing that a person or a server gets to see tells the token, however it is spelt."""
    everything = [*world.said, *world.github.bodies, *world.github.log]
    everything += [str(state) for state in world.end_state().values()]
    everything += [path.read_text(errors="replace") for path in (folder or world.folder).rglob("*") if path.is_file()]
    assert not [text[:200] for text in everything if leaks(text)]


@pytest.mark.parametrize("name", SPELLINGS)
def test_the_search_finds_every_spelling(name: str) -> None:
    assert leaks(f"a {SPELLINGS[name]} b")


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_hidden(name: str) -> None:
    told = Token(TOKEN).hidden(f"before {SPELLINGS[name]} after")
    assert not leaks(told)
    assert told.startswith("before ")
    assert told.endswith(" after")


@pytest.mark.parametrize("before", range(240, 320, 3))
def test_hidden_first_and_cut_then(before: int) -> None:
    """Where the reason is cut, the token may stand in the way."""
    message = "x" * before + TOKEN + "y" * 100
    answer = http(json.dumps({"message": message}).encode(), "404 No")
    with serving(answer) as server, pytest.raises(PatchforgeError) as caught:
        client(server.url).releases("a/b")
    assert "xxx" in caught.value.found
    assert not re.search("g?hp_|SeC", str(caught.value))


@pytest.mark.parametrize("status", [403, 422, 500])
def test_reasons(status: int, world: World) -> None:
    body = json.dumps({"message": EVERY, "errors": [{"message": EVERY}]})
    world.release(FIRST)
    for request in ("GET .*releases", "GET .*pulls", "POST .*pulls"):
        world.github.faults.append(Fault(request, status, times=9, body=body))
        world.bot()
        world.github.faults.clear()
    clean(world)


NAMES = ("Link", "Retry-After", "X-RateLimit-Reset", "Content-Type", "X-Echo", "Server")


@pytest.mark.parametrize("status", [200, 301, 302, 403, 503])
def test_headers(status: int, world: World) -> None:
    for value in (TOKEN, f"http://127.0.0.1:9/{quote(TOKEN)}", f"https://{TOKEN}@example.org/", f"<{TOKEN}>; rel=next"):
        headers = dict.fromkeys([*NAMES, *(["Location"] if status in (301, 302) else [])], value)
        world.github.faults.append(Fault("GET .*releases", status, times=9, body="[]", headers=headers))
        world.bot()
        world.github.faults.clear()
    clean(world)


def test_what_is_written_from_what_was_read(world: World) -> None:
    """Titles, notes and names of releases, and branches and texts of pull requests."""
    world.release(FIRST, title=EVERY, name=EVERY, body=f"Notes {EVERY}")
    world.publish(f"v9.9-{TOKEN}", name=EVERY)
    world.publish("v9.8", body=EVERY)
    world.github.issues.append(
        {"id": 77, "number": 77, "state": "open", "title": EVERY, "body": EVERY, "labels": [{"name": "patchforge"}]}
    )
    assert world.bot()[0] == Exit.OK
    assert world.github.pulls[0]["title"] == f"ComfyUI {FIRST}"
    assert "***" in world.github.pulls[0]["body"]
    world.github.issues.clear()
    world.release(SECOND, drifting(SECOND), body=EVERY)
    world.bot()
    clean(world)


def test_the_output_for_people(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.publish("v9.9", name=TOKEN)
    world.publish(f"v9.9-{TOKEN}")
    named = ["--repository", REPOSITORY, "--remote", str(world.ours), "--upstream", str(world.upstream)]
    bot.run(bot_options(*named))
    said = capsys.readouterr()
    assert "passed over" in said.out
    assert not leaks(said.out + said.err)


def test_track(world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(track, "Mirror", _remote(Mirror))
    world.publish(f"v9.9-{TOKEN}", name=EVERY)
    for fault in (None, Fault("GET", 404, body=json.dumps({"message": EVERY}))):
        world.github.faults += [fault] if fault else []
        monkeypatch.setenv("GH_TOKEN", TOKEN)  # it is taken out when it is read
        (world.folder / "none").mkdir(parents=True, exist_ok=True)
        options = argparse.Namespace(
            nodes=False,
            index=False,
            json=False,
            upstream=str(world.upstream),
            token_file=None,
            generated=str(world.folder / "none"),
        )
        try:
            track.run(options)
        except PatchforgeError as error:
            assert not leaks(str(error))  # noqa: PT017
        said = capsys.readouterr()
        assert not leaks(said.out + said.err)
    assert world.github.authorized


def _remote(kind: type) -> type:
    """A mirror of a clone on this machine that asks GitHub all the same."""
    return type("Remote", (kind,), {"is_local": property(lambda _: False)})


@pytest.mark.parametrize("status", [200, 201, 302, 401, 403, 422, 500])
def test_the_notice(
    status: int, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    monkeypatch.setenv("GITHUB_API_URL", world.github.url)
    bodies = [
        {"message": EVERY},
        [{"number": 1, "body": EVERY, "title": EVERY}],
        {"workflow_runs": [{"conclusion": EVERY, "html_url": EVERY}]},
        EVERY,
    ]
    for body in bodies:
        for request in ("GET .*issues", "GET .*runs", "POST .*issues"):
            headers = {"Location": f"http://127.0.0.1:9/{TOKEN}"}
            world.github.runs.append({"conclusion": "failure", "html_url": f"https://github.com/{TOKEN}"})
            world.github.faults.append(Fault(request, status, times=9, body=json.dumps(body), headers=headers))
            monkeypatch.setenv("GH_TOKEN", TOKEN)
            main(["failure"])
            world.github.faults.clear()
    said = capsys.readouterr()
    assert "GitHub" in said.err
    assert not leaks(said.out + said.err)
    clean(world)


@pytest.mark.parametrize("text", ["a b", "a\x00b", "a\nb", "tökén", "\u202eabc", "x" * 2000])
def test_what_no_header_can_hold(text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    with pytest.raises(PatchforgeError, match="does not hold a token") as caught:
        find_token(str(file))
    assert text not in str(caught.value)
