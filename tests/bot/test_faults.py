"""What GitHub, the network and git do wrong, over real HTTP."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from patchforge.bot.token import Token, find_token
from patchforge.errors import Exit, PatchforgeError
from tests.bot.fake_github import Fault
from tests.bot.test_bot_rules import again, drifting
from tests.bot.world import FIRST, SECOND, TOKEN, World

LIMITED = '{"message": "API rate limit exceeded for user ID 1."}'
SECONDARY = '{"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}'
HTML = "<!DOCTYPE html><html><body>Unicorn!</body></html>"


def opened(world: World) -> None:
    """One pull request, once, and the world at rest."""
    assert [pull["title"] for pull in world.github.pulls] == [f"ComfyUI {FIRST}"]
    assert world.github.faults == []
    again(world)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("GET .*releases", times=2),
        Fault("GET .*pulls", 503),
        Fault("GET .*issues", 500, body=HTML),
        Fault("GET .*releases", 200, cut=20),
        Fault("GET .*releases", 0),
        Fault("GET .*releases", 200, pause=1.5, body=HTML),
        Fault("GET .*releases", 429, body=SECONDARY, headers={"Retry-After": "0"}),
        Fault("GET .*releases", 403, body=SECONDARY, headers={"Retry-After": "0"}),
    ],
    ids=lambda fault: f"{fault.status}-{fault.body[:12]}-{fault.cut}-{fault.pause}",
)
def test_a_passing_fault_while_reading(world: World, fault: Fault) -> None:
    world.release(FIRST)
    world.github.faults.append(fault)
    assert world.bot()[0] == Exit.OK
    opened(world)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST .*pulls", late=True),
        Fault("POST .*pulls", 0, late=True),
        Fault("POST .*pulls", 200, late=True, body=HTML),
        Fault("POST .*pulls", 502),
        Fault("POST .*pulls", 0),
        Fault("POST .*pulls", 403, body=SECONDARY, headers={"Retry-After": "0"}),
        Fault("POST .*pulls", 422, late=True, body='{"message": "A pull request already exists for someone:x."}'),
    ],
    ids=lambda fault: f"{fault.status}-{fault.late}",
)
def test_a_pull_request_is_opened_once_whatever_the_answer(world: World, fault: Fault) -> None:
    world.release(FIRST)
    world.github.faults.append(fault)
    assert world.bot()[0] == Exit.OK
    opened(world)


def test_comments_and_edits_whose_answer_is_lost(world: World) -> None:
    world.release(FIRST)
    world.bot()
    world.release(SECOND)
    world.github.faults += [Fault("POST .*comments", late=True), Fault("PATCH .*pulls", 0, late=True)]
    assert world.bot()[0] == Exit.OK
    assert len(world.github.comments[1]) == 1
    assert [pull["state"] for pull in world.github.pulls] == ["closed", "open"]
    again(world)


def test_an_issue_whose_answer_is_lost(world: World) -> None:
    world.release(FIRST, drifting(FIRST))
    world.github.faults.append(Fault("POST .*issues", late=True))
    assert world.bot()[0] == Exit.DRIFTED
    assert len(world.github.issues) == 1
    again(world)


def test_what_lasts_is_left_to_the_next_run(world: World) -> None:
    world.release(FIRST)
    world.github.faults.append(Fault("POST .*pulls", 502, times=99))
    status, data = world.bot()
    assert status == Exit.AGAIN
    assert "502" in data["error"]
    assert "run this again later" in data["error"]
    world.github.faults.clear()
    assert world.bot()[0] == Exit.OK
    opened(world)


@pytest.mark.parametrize("body", [HTML, "[", "{}", "", "[{", '{"message": "not a list"}', '[{"unexpected": 1}]'])
def test_answers_that_are_not_the_apis(world: World, body: str) -> None:
    """They are damaged input, at once: whoever gives them would give them again."""
    world.github.faults.append(Fault("GET", 200, times=99, body=body))
    assert world.bot()[0] == Exit.DATA
    assert len(world.github.log) == len(set(world.github.log))
    assert world.github.writes == []


def test_a_used_up_rate_limit_names_its_end(world: World) -> None:
    world.release(FIRST)
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()) + 1800)}
    world.github.faults.append(Fault("GET", 403, body=LIMITED, headers=reset))
    status, data = world.bot()
    assert status == Exit.AGAIN
    assert "used up until" in data["error"]
    assert len(world.github.log) == 1


def test_a_rate_limit_that_ends_soon_is_waited_for(world: World) -> None:
    world.release(FIRST)
    reset = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(time.time()))}
    world.github.faults.append(Fault("GET", 403, body=LIMITED, headers=reset))
    assert world.bot()[0] == Exit.OK
    opened(world)


@pytest.mark.parametrize(
    ("status", "message", "advice"),
    [
        (401, "Bad credentials", "renew the token"),
        (403, "Resource not accessible by integration", "give the token these permissions"),
        (404, "Not Found", "check the repository's name"),
    ],
)
def test_a_refusal_says_what_to_do(world: World, status: int, message: str, advice: str) -> None:
    world.github.faults.append(Fault("GET", status, body=f'{{"message": "{message}"}}'))
    code, data = world.bot()
    assert code == Exit.USAGE
    assert message in data["error"]
    assert advice in data["error"]


def test_issues_that_are_switched_off(world: World) -> None:
    world.github.issues_off = True
    assert "switch issues on" in world.bot()[1]["error"]


def test_releases_on_many_pages_in_any_order(world: World) -> None:
    world.github.per_page = 20
    for number in range(90):
        world.publish(f"v0.1.{number + 100}")
    world.release(FIRST)
    world.github.releases.append(world.github.releases.pop(0))
    _, data = world.bot()
    opened(world)
    assert data["new"][0]["released"] is True
    assert data["requests"] <= 15


def test_a_renamed_repository_keeps_all_its_releases(world: World) -> None:
    for number in range(90):
        world.publish(f"v0.1.{number + 100}")
    world.release(FIRST)
    world.github.releases.append(world.github.releases.pop(0))
    world.github.moved_to = "Somebody/Else"
    _, data = world.bot()
    assert data["new"][0]["released"] is True
    opened(world)


def test_an_upstream_that_cannot_be_reached(world: World) -> None:
    status, data = world.bot("--upstream", "http://127.0.0.1:9/upstream.git")
    assert status == Exit.AGAIN
    assert "did not reach the server" in data["error"]


def test_our_own_repository_cannot_be_reached(world: World) -> None:
    status, _ = world.bot("--remote", "http://127.0.0.1:9/ours.git")
    assert status == Exit.AGAIN
    assert world.github.log == []


def test_a_base_branch_that_is_not_there(world: World) -> None:
    status, data = world.bot("--base", "trunk")
    assert status == Exit.USAGE
    assert "trunk" in data["error"]


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GH_TOKEN", "GITHUB_TOKEN", "CREDENTIALS_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    assert not find_token().text
    (tmp_path / "github-token").write_text("three\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert find_token().text == "three"
    monkeypatch.setenv("GITHUB_TOKEN", "two")
    monkeypatch.setenv("GH_TOKEN", " one ")
    assert find_token().text == "one"
    assert not {"GH_TOKEN", "GITHUB_TOKEN"} & os.environ.keys()
    assert find_token(str(tmp_path / "github-token")).text == "three"
    with pytest.raises(PatchforgeError, match="cannot be read"):
        find_token(str(tmp_path / "absent"))
    (tmp_path / "empty").write_text("")
    with pytest.raises(PatchforgeError, match="does not hold a token"):
        find_token(str(tmp_path / "empty"))


def test_a_token_hides_in_every_spelling() -> None:
    token = Token(TOKEN)
    encoded = base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
    text = f"{token!r} {TOKEN} {encoded} https://x:ghp_SeCrEt%2Btoken%2Fof%3Dtests@host"
    assert "SeCrEt" not in token.hidden(text)
    assert encoded not in token.hidden(text)
    assert str(token) == "Token(***)"


def test_a_server_that_repeats_the_token(world: World) -> None:
    world.github.faults.append(Fault("GET", 403, body=f'{{"message": "no: {TOKEN}"}}'))
    assert "no: ***" in world.bot()[1]["error"]


def test_git_tells_the_token_to_nobody_who_does_not_ask(world: World) -> None:
    """Against a real HTTP server, which is not a git server (tests/secrets has one that asks)."""
    url = f"{world.github.url}/ours.git"
    status, data = world.bot("--remote", url)
    assert status == Exit.USAGE
    assert "not found" in data["error"]
    assert world.github.log == ["GET /ours.git/info/refs"]
    assert world.github.authorized == [None]
