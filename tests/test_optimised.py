"""``python -O``, which leaves ``assert`` out: hostile input ends as it does without, in ours and in what we call."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from patchforge.errors import Exit
from tests.support import ROOT

_SCRIPT = """
import contextlib, io, json, shutil, sys
from pathlib import Path
from patchforge.cli import main
from tests.checkout.places import PACK, fill
from tests.checkout.test_journals import SHAPES, ship
from tests.sources.test_hostile_tarballs import ODD_HEADERS, REFUSED, beside
from tests.sources.test_zipped import HARM

top, told = Path(sys.argv[1]), {"optimised": bool(sys.flags.optimize)}

def run(name, *words):
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        status = main([str(word) for word in words])
    told[name] = [status, "Traceback" in said.getvalue()]

given = top / "given"
for name, make in REFUSED.items():
    given.write_bytes(make())
    run(f"tarball {name}", "apply", "--from", given, "--to", top / "out")
for name, data in ODD_HEADERS.items():
    given.write_bytes(beside(data))
    run(f"odd {name}", "apply", "--from", given, "--to", top / "out")
for name, (data, _) in HARM.items():
    given.write_bytes(data)
    run(f"zip {name}", "apply", "--from", given, "--to", top / "out")
for name, plain in SHAPES.items():
    shutil.rmtree(top / "pack", ignore_errors=True)
    ship(fill(top / "pack", PACK), plain, {"main.py": b"evil()"})
    run(f"journal {name}", "packs", "revert", top / "pack")
told["written"] = (top / "out").exists()
json.dump(told, sys.__stdout__)
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    """What comes of everything, with and without ``assert``."""
    documents = []
    for flag in ((), ("-O",)):
        folder = tmp_path_factory.mktemp("optimised")
        own = {"PATCHFORGE_CACHE": str(folder / "c"), "PATCHFORGE_STATE": str(folder / "s")}
        env = {**os.environ, "PYTHONPATH": str(ROOT), **own}
        command = [sys.executable, *flag, "-c", _SCRIPT, str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        documents.append(json.loads(done.stdout))
    return documents


def test_everything_ends_as_it_does_with_asserts(both: list[dict[str, object]]) -> None:
    with_asserts, without = both
    assert (with_asserts.pop("optimised"), without.pop("optimised")) == (False, True)
    assert with_asserts == without
    assert len(without) > 150


def test_nothing_hostile_is_taken(both: list[dict[str, object]]) -> None:
    for told in both:
        assert told["written"] is False
        for name, outcome in told.items():
            if isinstance(outcome, list):
                status, traced = outcome
                assert not traced, name
                assert status != Exit.BUG, name
                assert status == Exit.DATA or (name.startswith("odd") or name == "tarball a ZIP"), name
