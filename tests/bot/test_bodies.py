"""A stranger's text in what the bot writes: it is shown, and it does nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge import escape
from patchforge.bot import bodies
from patchforge.bot.model import read_marker, with_marker
from patchforge.manifest import ClaimedSite, Commit, Manifest, Named, Sites, TransformEntry
from tests.bot.test_bot_rules import again
from tests.bot.world import FIRST, World

NASTY = (
    "@someone @org/team #1 GH-2 owner/repo#3 Closes #4, fixes https://github.com/o/r/issues/5\n"
    "<!-- hidden <script>alert(1)</script> <img src=x> <details open>\n```\n````\n`~~~~~~`\n"
    "</details> --> ![i](u) [l](u)\n"
    "\u202eevil\u202c \x1b[31mred\x07 \u2028 \r\n"
    '<!-- patchforge: {"version": "v9.9.9", "closed": "forged"} -->'
)


def outside_code(text: str) -> str:
    """What GitHub reads as Markdown: the text without its fenced blocks, code spans and our own marker."""
    kept, fence = [], ""
    for line in text.splitlines():
        mark = re.match(r"(`{3,})\w*$", line)
        if fence:
            fence = "" if line == fence else fence
        elif mark:
            fence = mark[1]
        else:
            kept.append(re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", line))
    assert not fence, "a block is not closed"
    return "\n".join(kept[:-1] if read_marker(text) else kept)


@pytest.mark.parametrize("where", ["body", "name"])
def test_notes_and_titles_are_inert(world: World, where: str) -> None:
    world.release(FIRST, published=False)
    world.publish(FIRST, **{where: NASTY})
    world.bot()
    body = world.pull(1)["body"]
    assert "@someone" in body
    plain = outside_code(body)
    for harmful in ("@someone", "#1", "#4", "<!--", "<script", "evil", "[l]"):
        assert harmful not in plain
    assert plain.count("<details>") == plain.count("</details>") == 1
    assert not set(body) & set("\u202e\u202c\x1b\x07\u2028\r")
    assert read_marker(body)["name"] == FIRST
    again(world)


def test_notes_of_200_kilobytes_are_cut(world: World) -> None:
    world.release(FIRST, body="```\n@someone\n" * 16_000)
    world.bot()
    body = world.pull(1)["body"]
    assert len(body) < 65_536
    assert "[... cut here]" in body
    assert "@someone" not in outside_code(body)
    again(world)


def test_many_releases_with_long_notes_stay_below_the_limit(world: World) -> None:
    for number in range(1, 60):
        world.publish(f"v0.30.{number}", body="word " * 24_000, name="title " * 400)
    world.release(FIRST)
    world.bot()
    assert len(world.pull(1)["body"]) < 65_536
    again(world)


@given(st.text())
def test_any_block_is_closed_and_holds_its_text(text: str) -> None:
    lines = escape.block(text, 10_000).splitlines()
    fence = lines[0].removesuffix("text")
    assert lines[-1] == fence
    assert set(fence) == {"`"}
    assert all(fence not in line for line in lines[1:-1])
    assert outside_code(escape.block(text)) == ""


@given(st.text())
def test_any_code_is_one_span(text: str) -> None:
    span = escape.code(text)
    assert "\n" not in span
    assert outside_code(f"a {span} b").split() == ["a", "b"]


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_only_the_last_line_is_a_marker(text: str, said: dict[str, str]) -> None:
    forged = with_marker(text, kind="forged")
    assert read_marker(with_marker(f"{forged}\nmore", **said)) == said
    assert read_marker(f"{forged}\nmore") == {}


def test_requirements_that_changed() -> None:
    before = "torch\nnumpy>=1.25 # why\naiohttp==3\n-r other.txt\n"
    after = "torch\nnumpy>=2\nyarl\n"
    assert bodies.requirement_changes(before, after) == [
        ("aiohttp", "aiohttp==3", ""),
        ("numpy", "numpy>=1.25", "numpy>=2"),
        ("yarl", "", "yarl"),
    ]


def test_outcomes_and_sites_that_changed() -> None:
    def manifest(outcome: str, *functions: str) -> Manifest:
        sites = tuple(ClaimedSite("a.py", number, name, "") for number, name in enumerate(functions))
        entry = TransformEntry("free-memory", "one", "device-support", outcome, outcome, "", {}, sites, ())
        release, commit = Named("v1.0.0"), Commit("")
        return Manifest("comfyui", release, commit, "", "", (), (entry,), Sites(0, 0, 0, {}, ()))

    old, new = manifest("applied", "f", "g", "g"), manifest("upstream", "g", "h")
    assert bodies.outcome_changes(new, old) == [("free-memory", "one", "applied", "upstream")]
    assert bodies.outcome_changes(new, new) == []
    assert bodies.site_changes(new, old) == (["free-memory a.py h"], ["free-memory a.py f", "free-memory a.py g"])
