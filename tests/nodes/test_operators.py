"""Calls that need no CUDA, and that an XPU may lack all the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchforge.cli import main
from patchforge.nodes.code import Code
from patchforge.nodes.convert import convert_file
from patchforge.pattern import Kind, PackFacts
from patchforge.vocabulary import Decision


def found(source: str) -> list[str]:
    """The operators of a file, by the full name of what is called."""
    rows, change = convert_file(Code("nodes.py", source.encode()), PackFacts())
    assert change is None
    assert {row.decision for row in rows} <= {Decision.LEFT}
    return [row.text for row in rows if row.kind == Kind.OPERATOR]


@pytest.mark.parametrize(
    "imported",
    [
        "import torch.nn.functional as F\nF",
        "from torch.nn import functional as F\nF",
        "import torch.nn as nn\nnn.functional",
        "import torch\ntorch.nn.functional",
    ],
    ids=["as", "from", "nn", "whole"],
)
def test_a_call_is_known_however_it_is_imported(imported: str) -> None:
    assert found(f"{imported}.grid_sample(x, grid)\n") == ["torch.nn.functional.grid_sample"]
    assert found(f"{imported}.interpolate(x, size, mode='bicubic', antialias=True)\n")


@pytest.mark.parametrize("given", ["", ", antialias=False", ", antialias=None", ", mode='nearest'"])
def test_a_resize_without_antialiasing_is_nothing_to_tell(given: str) -> None:
    assert found(f"import torch.nn.functional as F\nF.interpolate(x, size{given})\n") == []


def test_a_namesake_of_the_packs_own_is_nothing_to_tell() -> None:
    assert found("from .warp import grid_sample\ngrid_sample(x, grid)\n") == []


def test_check_lists_them_and_finds_nothing_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack = tmp_path / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(
        "import torch\nNODE_CLASS_MAPPINGS = {}\n" + "y = torch.nn.functional.grid_sample(x, grid)\n" * 4,
        "utf-8",
    )
    assert main(["packs", "check", str(pack)]) == 0
    said = capsys.readouterr().out
    assert "pack/__init__.py:3 and 3 more: pack-operators torch.nn.functional.grid_sample: " in said
    assert said.count("pytorch#127002") == 1
    assert said.splitlines()[-1] == "0 can be converted, 0 for a person, 4 left on purpose"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("y = torch.arange(9, dtype=torch.float64, device=device)", "convertible with --enable fp64"),
        ("y = torch.zeros(9, dtype=torch.double, device='cuda')", "convertible with --enable fp64"),
        ("y = x.to(torch.float64)", "some Intel GPUs have no float64"),
        ("y = x.double()", "some Intel GPUs have no float64"),
    ],
)
def test_float64_is_listed_without_the_option(line: str, said: str) -> None:
    rows, _ = convert_file(Code("nodes.py", f"import torch\n{line}\n".encode()), PackFacts())
    assert [said in row.reason for row in rows if row.kind == Kind.FP64] == [True]


def test_numpys_float64_and_a_call_with_arguments_are_nothing_to_tell() -> None:
    rows, _ = convert_file(Code("nodes.py", b"import numpy as np\ny = np.float64(3) + dice.double(2)\n"), PackFacts())
    assert rows == []
