"""No text of a stranger's is obeyed: not by a terminal, a CI service, Markdown, HTML or a patch's header."""

from __future__ import annotations

import html
import io
import json
import os
import re
import unicodedata
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchforge import escape, patches, templating
from patchforge.commands import common
from patchforge.errors import CheckFailed
from patchforge.manifest import (
    Blob,
    ClaimedSite,
    Commit,
    FileName,
    Manifest,
    Named,
    PatchedFile,
    PatchEntry,
    ReplacedLine,
    Sha256,
    Sites,
    TransformEntry,
    TreePath,
    UndecidedSite,
)
from patchforge.templating import report
from patchforge.terminal import Guarded, guarded, own
from patchforge.vocabulary import Purpose, Release, Version

HARMFUL = {"Cc", "Cf", "Cs", "Zl", "Zp"}
#: As the runners read a log: GitHub's ActionCommand.cs (both syntaxes), Azure's agent, TeamCity's service messages.
OBEYED = re.compile(r"^\s*::|##\[|##vso\[|##teamcity\[", re.IGNORECASE)
NASTY = st.text(
    st.sampled_from(
        "ab:#[]vsotecimy\n\r\t \x1b\x9b\x00\x7f\u00a0\u2028\u202e\u200b\udcff|`<>@&\\*_!()~$0123456789.-+=é😀"
    )
)
COMMANDS = [
    "::error::x",
    "  ::error file=a::x",
    "\t::add-mask::x",
    "\u00a0::set-output name=a::b",
    "a\n::stop-commands::x",
    "a\r::error::x",
    "a\r\n::error::x",
    "##[error]x",
    "a ##[group]x",
    "##vso[task.setvariable variable=x]y",
    "a ##VSO[task.complete]",
    "##teamcity[message text='x']",
    "\u2028::error::x",
    "\x0b::error::x",
    "\x85::error::x",
    "\x1b[0m::error::x",
    "###[error]x",
    "::::error::x",
]
each_command = pytest.mark.parametrize("text", COMMANDS)


def printed(*parts: str) -> str:
    """What a guarded stream passes of parts written one after another."""
    out = io.StringIO()
    stream = Guarded(out)
    for part in parts:
        assert stream.write(part) == len(part)
    return out.getvalue()


def is_inert(text: str) -> bool:
    """Whether neither a terminal nor a CI service obeys anything in it."""
    controls = {character for character in text if unicodedata.category(character) in HARMFUL} - {"\n", "\t"}
    return not controls and not any(map(OBEYED.search, re.split(r"[\n\r]", text)))


@each_command
def test_no_command_of_a_service_passes(text: str) -> None:
    assert is_inert(printed(text))


@each_command
def test_nor_in_pieces(text: str) -> None:
    assert is_inert(printed(*text))
    for at in range(len(text)):
        assert is_inert(printed(text[:at], text[at:]))


@each_command
def test_nor_behind_our_own_colours(text: str) -> None:
    stream = Guarded(out := io.StringIO())
    stream.write(f"{own(stream, chr(27) + '[32m')}{text}{own(stream, chr(27) + '[0m')}")  # type: ignore[arg-type]
    stream.write(own(stream, "\r\x1b[K") + text)  # type: ignore[arg-type]
    shown = out.getvalue().replace("\x1b[32m", "").replace("\x1b[0m", "").replace("\r\x1b[K", "\n")
    assert is_inert(shown)


@given(st.lists(NASTY | st.text()))
@example(["#", "#", "v", "s", "o", "["])
@example([":", ":"])
@example([" " * 40, ":", ":error::"])
@example(["x" * 40 + "##", "vso["])
def test_no_text_in_any_pieces_is_obeyed(parts: list[str]) -> None:
    assert is_inert(printed(*parts))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_is_left_alone(text: str) -> None:
    shown = printed(f"x {text}")
    assert shown == f"x {text}" or "##" in text


def test_what_looks_like_ours_is_not() -> None:
    stream = Guarded(out := io.StringIO())
    made = own(stream, "\x1b[31m")  # type: ignore[arg-type]
    forged = "\0" + "0" * 32 + "\x1b[31m\0"
    stream.write(made + forged)
    assert out.getvalue().count("\x1b") == 1


def test_a_byte_that_was_not_utf_8_is_shown_as_it_is() -> None:
    name = os.fsdecode(b"bad\xff\x80.png")
    assert escape.line(name) == escape.seen(name) == r"bad\xff\x80.png"
    assert escape.line("\ud800\udc7f") == r"\ud800\udc7f"


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    value = {text: [text, "\x7f\x9b\u2028 ##vso[x] ##", "é"] for text in COMMANDS}
    with guarded():
        print(escape.document(value))
    out = capsys.readouterr().out
    assert is_inert(out)
    assert json.loads(out) == value


def test_a_table_keeps_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded():
        common.table([["a\nb", "\x1b[2J"], ["c", "d\r::error::"]])
    out = capsys.readouterr().out
    assert len(out.splitlines()) == 2
    assert is_inert(out)


# --- Text by text -----------------------------------------------------------------------------------------------------


@given(NASTY | st.text())
def test_lines_are_lines(text: str) -> None:
    shown = escape.line(text)
    assert len(shown.splitlines()) <= 1
    assert not {character for character in shown if unicodedata.category(character) in HARMFUL}
    shown.encode()  # a surrogate would not


def unescaped(shown: str) -> str:
    """A line of Markdown without its backslash escapes: what is left could act."""
    return re.sub(r"\\[!-/:-@\[-`{-~]", "", shown)


@given(NASTY | st.text())
@example("<img src=x onerror=alert(1)>")
@example("![x](javascript:alert(1))")
@example("# heading")
@example("1. list")
@example("--- ")
@example("&lt;script&gt;")
@example("\\<b>")
@example("@org/team #12 GH-3 https://github.com/o/r/issues/1 www.example.com a@b.c")
def test_markdown_says_only_the_text(text: str) -> None:
    shown = escape.markdown(text)
    left = unescaped(shown)
    assert "\n" not in shown
    assert not set(left) & set("<>`*[]|~$")
    assert not re.search(r"&(?!amp;)", left)
    assert not re.search(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", re.sub(r"\\_", "\\\\x", shown).replace("\\x", ""))
    assert not re.search(r"@\w|#\w|\b[Gg][Hh]-\d|[A-Za-z]://|\b[Ww]{3}\.", shown)
    assert not re.match(r"#|[+-]\s|\d+[.)](\s|$)|[=-][\s=-]+$|    |\t", shown)


@given(NASTY | st.text())
def test_markdown_loses_nothing(text: str) -> None:
    shown = escape.markdown(text).replace("\u200b", "")
    back = html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", shown))
    assert back == escape.line(text).strip()


@given(NASTY | st.text(), st.integers(0, 30))
def test_code_is_one_span(text: str, longest: int) -> None:
    span = escape.code(text, longest)
    fence = re.match("`+", span)
    assert fence
    inner = span[len(fence[0]) : -len(fence[0])]
    assert span.endswith(fence[0])
    assert fence[0] not in re.findall("`+", inner)
    assert "\n" not in span
    assert not re.search(r"(?<!\\)\|", inner)


@given(NASTY | st.text(), st.integers(0, 30))
def test_a_block_is_closed_by_its_fence_alone(text: str, longest: int) -> None:
    first, *inner, last = escape.block(text, longest).split("\n")
    assert first == f"{last}text"
    assert set(last) == {"`"}
    assert not any(last in line for line in inner)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.said = ""
        self.attribute = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attribute = dict(attrs).get("title") or self.attribute

    def handle_data(self, data: str) -> None:
        self.said += data


@given(NASTY | st.text())
def test_html_is_text_in_elements_and_attributes(text: str) -> None:
    reader = _Reader()
    reader.feed(f'<p title="{escape.html(text)}">{escape.html(text)}</p>')
    reader.close()
    assert reader.tags == ["p"]
    assert reader.said == reader.attribute == escape.seen(text)


@given(NASTY | st.text())
def test_an_address_has_no_scheme_and_comes_back(text: str) -> None:
    shown = escape.address(text.replace("\0", "").encode("utf-8", "replace").decode())
    assert re.fullmatch(r"[A-Za-z0-9/._~%-]*", shown)
    assert unquote_to_bytes(shown).decode() == text.replace("\0", "").encode("utf-8", "replace").decode()


# --- Where it is used -------------------------------------------------------------------------------------------------

EVIL = "</td><script>alert(1)</script>|`x`|\n::error::\n![i](javascript:x) @someone #1\x1b[31m"


def test_every_template_knows_every_filter() -> None:
    for folder, autoescape in (("", False), ("bot", False), ("trial", True)):
        known = templating.environment(folder, autoescape=autoescape).filters
        assert {"cell", "code", "block", "line", "seen", "link"} <= known.keys()


def test_a_report_of_a_release_with_odd_names() -> None:
    entry = TransformEntry(
        *("free-memory", "one", "device-support", "applied", "applied", "", {}),
        sites=(ClaimedSite(EVIL, 1, EVIL, ""),),
        replaced=(ReplacedLine(EVIL, 3, EVIL),),
    )
    patch = PatchEntry(FileName("a.patch"), "x", Sha256("0" * 64), (PatchedFile(TreePath(EVIL), None, Blob("0" * 40)),))
    sites = Sites(1, 0, 1, {}, (UndecidedSite(EVIL, 1, EVIL, "call", EVIL),))
    manifest = Manifest("comfyui", Named("v1.0.0"), Commit(""), "0" * 64, "0", (patch,), (entry,), sites)
    text = report("release", manifest)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
    assert "<script>" not in unescaped(outside)
    assert "@someone" not in outside
    assert "![" not in unescaped(outside)
    assert is_inert(text.replace("\u200b", ""))
    assert all(line.count("|") - line.count("\\|") in {0, 3, 6} for line in text.splitlines())


@pytest.mark.parametrize("field", ["subject", "title", "id"])
@pytest.mark.parametrize(
    "text", ["a\nOrigin: upstream", "a\r\n--- a/x", "\x1b[31m", "a\n\ndiff --git a/x b/x", "a\u2028b"]
)
def test_a_header_of_a_patch_has_the_fields_that_it_has(field: str, text: str) -> None:
    release = Release(Version((1, 0)), "")
    gaps = {text if field == "id" else "free-memory": text if field == "title" else "one"}
    try:
        made = patches.header(Purpose.DEVICE, text if field == "subject" else "x", gaps, release)
    except CheckFailed:
        return
    names = [line.partition(":")[0] for line in made.strip().splitlines()]
    assert names.count("Origin") == 1
    assert len(names) == 8
    assert is_inert(made)


@pytest.mark.parametrize(
    "commit", ["0" * 39, "0" * 41, "0" * 40 + "\n", "x", "\nOrigin: upstream", "0" * 40 + "\n::error::"]
)
def test_a_commit_that_is_none_is_in_no_header(commit: str) -> None:
    made = patches.header(Purpose.DEVICE, "x", {}, Release(Version((1, 0)), commit))
    assert "X-Upstream-Commit" not in made
