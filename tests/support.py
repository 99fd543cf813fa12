"""What several tests need: trees in memory, miniature releases, and one file through some transforms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from patchforge.engine.blocks import SourceFile
from patchforge.engine.cache import FILES, Cache
from patchforge.engine.convert import Engine
from patchforge.engine.files import look_at
from patchforge.engine.records import FileRecord, apply_segments
from patchforge.engine.sites import load_decisions
from patchforge.proof.packs.helpers import helpers
from patchforge.transform import Transform
from patchforge.vocabulary import Entry, Release, Version, git_blob_id

ROOT = Path(__file__).resolve().parent.parent
MINIATURES = ROOT / "tests" / "miniatures"
ERAS = ("v0.1.1", "v0.3.47", "v0.21.0", "v0.33.0")


class MemoryTree:
    """A tree out of a dictionary."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(sorted(files.items()))
        self.origin = "memory"

    def entries(self) -> dict[str, Entry]:
        return {path: Entry(path, git_blob_id(data)) for path, data in self.files.items()}

    def read(self, path: str) -> bytes:
        return self.files[path]


def miniature(era: str) -> dict[str, bytes]:
    """The files of a miniature release."""
    top = MINIATURES / era
    paths = (path for path in top.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in sorted(paths)}


def release(version: str) -> Release:
    return Release(Version.parse(version), "")


def engine_of(transforms: Sequence[Transform], *, jobs: int = 1, cache: Path | None = None) -> Engine:
    """An engine with the project's decisions."""
    return Engine(transforms, load_decisions(ROOT / "upstream" / "comfyui.sites.toml"), Cache(cache, FILES), jobs)


def result_of(data: bytes, record: FileRecord) -> bytes:
    """The file after all patches of its record."""
    for _, parts in record.stages:
        data = apply_segments(data, parts)
    return data


def converted(path: str, data: bytes, transforms: Sequence[Transform]) -> bytes:
    """One file after some transforms; fails for one that cannot be read."""
    record = look_at(path, data, transforms, {})
    assert not record.unreadable, record.unreadable
    return result_of(data, record)


def without_helpers(after: bytes, before: str) -> str:
    """A pack's converted file without our functions and the blank lines that came with them."""
    text = after.decode()
    for helper in helpers().values():
        text = text.replace(f"\n\n{helper}\n", "")
    if text.count("\n") == after.decode().count("\n"):
        return text
    lines, at = text.splitlines(keepends=True), SourceFile(before.encode()).import_line
    at += "import comfy.model_management\n" in lines[at : at + 1]
    rest = before.splitlines()[SourceFile(before.encode()).import_line :][:2]
    del lines[at : at + (2 if not rest or rest[0].strip() else 1 if rest[1:] and rest[1].strip() else 0)]
    return "".join(lines)


def bound(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``patchforge`` as somebody whom permissions bind, which root is not."""
    dropped = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    if dropped and not shutil.which("setpriv"):
        pytest.skip("root without setpriv cannot be bound")
    return subprocess.run(
        [*dropped, sys.executable, "-m", "patchforge", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
