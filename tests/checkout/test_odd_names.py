"""Files of a pack with odd names: what was converted can be undone, and one name stops nothing but itself."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from patchforge.checkout import journal
from patchforge.errors import CheckFailed
from patchforge.inside import Inside
from patchforge.nodes.pack import read_pack
from tests.checkout import places
from tests.checkout.places import PACK, content, fill, look

MORE = PACK["more.py"] + b"\n\nNODE_CLASS_MAPPINGS = {}\n"
TWINS = ["NODES.py", "more\u200c.py", "\u00e9.py", "e\u0301.py", "more.py.py"]  #: files that are converted all the same
LEFT = {
    ".patchforger.py": "keeps for itself",
    ".PATCHFORGE/x.py": "keeps for itself",
    ".patchforge-old-x.py": "keeps for itself",
    "aux.py": "device on Windows",
    "sub/COM1.py": "device on Windows",
    "con/x.py": "device on Windows",
    "a?b.py": "not every system",
    "dot./x.py": "not every system",
    "a:b.py": "absolute",
}


@pytest.mark.skipif(os.name == "nt", reason="these are one file there")
def test_names_that_some_system_takes_for_one(tmp_path: Path) -> None:
    files, subject = {**PACK, **dict.fromkeys(TWINS, MORE)}, places.pack()
    pack = fill(tmp_path / "pack", files)
    if len(content(pack)) < len(files):
        pytest.skip("this file system takes some of them for one")
    plan = places.apply(pack, subject)
    assert {*TWINS} <= {*plan.files}
    assert look(pack, subject).in_order
    (pack / TWINS[0]).write_bytes(MORE)
    places.repair(pack, subject)
    assert look(pack, subject).in_order
    places.revert(pack, subject)
    assert content(pack) == files


@pytest.mark.skipif(os.name == "nt", reason="no file can have such a name there")
@pytest.mark.parametrize("name", LEFT)
def test_a_name_that_no_journal_has_stops_nothing_else(tmp_path: Path, name: str) -> None:
    files, subject = {**PACK, name: MORE}, places.pack()
    pack = fill(tmp_path / "pack", files)
    assert [(problem.path, LEFT[name] in problem.reason) for problem in read_pack(pack).problems] == [(name, True)]
    plan = places.apply(pack, subject)
    assert {*plan.files} == {"nodes.py", "more.py"}
    assert (pack / name).read_bytes() == MORE
    assert look(pack, subject).in_order
    places.revert(pack, subject)
    assert content(pack) == files


@pytest.mark.parametrize("path", [".patchforge/x.py", "../x.py", "aux.py", "x.txt"])
def test_a_journal_that_would_not_be_obeyed_is_not_written(tmp_path: Path, path: str) -> None:
    pack, subject = fill(tmp_path / "pack", PACK), places.pack()
    places.apply(pack, subject)
    kept = look(pack, subject).known
    assert kept
    places.revert(pack, subject)
    records = list(places.state_folder().rglob("*"))
    odd = replace(kept.journal, name="1" * 32, files=(replace(kept.journal.files[0], path=path),))
    with pytest.raises(CheckFailed, match="could not be undone"):
        journal.make(Inside(pack), odd, {}, {})
    assert content(pack) == PACK
    assert list(places.state_folder().rglob("*")) == records
