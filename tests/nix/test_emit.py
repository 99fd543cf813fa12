"""What the emitter writes is what Nix reads."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchforge.errors import PatchforgeError
from patchforge.nix import emit
from tests.nix.sandbox import Nix

AWKWARD = [
    "'",
    "''",
    "${",
    "$${",
    "$$${",
    "\\",
    '"',
    "\n",
    "\r",
    "\t",
    "}",
    "''${",
    "''\\",
    "é",
    "漢",
    "\U0001f600",
    "\x7f",
    "\x01",
    "$",
    "{",
    " ",
]


def evaluate(nix: Nix, folder: Path, text: str) -> object:
    file = folder / "x.nix"
    file.write_bytes(text.encode())
    done = nix.run("nix-instantiate", "--eval", "--strict", "--json", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def random_text(source: random.Random) -> str:
    """Mostly what quoting could get wrong, some of any character."""

    def character() -> str:
        number = source.randrange(1, 0x11000 - 0x800)
        return chr(number if number < 0xD800 else number + 0x800)

    parts = (source.choice(AWKWARD) if source.random() < 0.7 else character() for _ in range(source.randrange(12)))
    return "".join(parts)


@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_strings(nix: Nix, tmp_path: Path, seed: int) -> None:
    source = random.Random(seed)
    texts = [random_text(source) for _ in range(2500)]
    assert evaluate(nix, tmp_path, emit.expression(texts)) == texts


def test_values_and_names(nix: Nix, tmp_path: Path) -> None:
    names = ["a", "a-b", "a'", "1a", "", "if", "or", "a.b", "${x}", "é", '"', "with", "true", "null", "__a", "-a"]
    value: dict[str, emit.Value] = {
        "names": dict.fromkeys(names, 1),
        "numbers": [0, -1, (1 << 63) - 1, -(1 << 63) + 1],
        "others": [None, True, False, [], {}, [[-1]], {"a": {"b": [{"c": "d"}]}}],
    }
    assert evaluate(nix, tmp_path, emit.expression(value)) == value


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_a_string_is_one_line_in_quotes(text: str) -> None:
    literal = emit.string(text)
    assert literal[0] == literal[-1] == '"'
    assert "\n" not in literal
    assert "\r" not in literal


@pytest.mark.parametrize("value", ["\0", "\ud800", 1 << 63, [-(1 << 63)]])
def test_what_nix_cannot_hold_is_refused(value: emit.Value) -> None:
    with pytest.raises(PatchforgeError):
        emit.expression(value)


def test_layout() -> None:
    assert emit.expression({"b": [1, -2], "a": {}}) == "{\n  b = [\n    1\n    (-2)\n  ];\n  a = { };\n}"
