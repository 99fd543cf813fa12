"""What several commands share: the engine, the upstream, printing."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchforge import bounded, caches, resources
from patchforge.arguments.shared import GENERATED, RELEASES
from patchforge.errors import Exit, PatchforgeError
from patchforge.escape import document, line
from patchforge.git.clone import is_url
from patchforge.outputs import PATCHES, prove
from patchforge.paths import all_below, need_folder, quoted
from patchforge.progress import is_live
from patchforge.project import parsed_version
from patchforge.sources.upstream import LATEST
from patchforge.terminal import own
from patchforge.vocabulary import Version

if TYPE_CHECKING:
    from patchforge.engine.convert import Engine

_NUMBERS: Mapping[str, int] = {"doctor": 2, "models-done": 2}  #: of documents that are not as they were first
_COLOURS = {
    **dict.fromkeys(("applied", "ok", "passed", "fresh"), "32"),
    **dict.fromkeys(("drifted", "failed", "cpu_fallback"), "31;1"),
    **dict.fromkeys(("cached", "capacity", "not checked", "not made", "unreachable"), "33"),
    **dict.fromkeys(("absent", "skipped"), "2"),
    "upstream": "36",
}


def make_engine(options: argparse.Namespace) -> Engine:
    """The engine with all transforms, and the cache unless --no-cache."""
    from patchforge import pipeline  # noqa: PLC0415 - libcst is slow to import

    return pipeline.make_engine(keep=not options.no_cache, jobs=options.jobs)


def inputs(*named: str | Path | None) -> list[Path]:
    """What outputs must be apart from: folders and files that are ``named``, ComfyUI's clone, the cache, our sources.

    An address among them is not on this machine.
    """
    texts = [str(name) for name in (*named, os.environ.get("PATCHFORGE_UPSTREAM")) if name]
    ours = [resources.path(name) for name in ("", *resources.ROOMS)]
    return [*(Path(text).expanduser() for text in texts if not is_url(text)), caches.place(), *ours]


def in_repository(named: str, usual: str) -> Path:
    """The folder that an option names, for what writes patchforge's own files.

    PatchforgeError where that is the ``usual`` one, and this folder is not the checkout of the patchforge that runs.
    """
    ours = resources.repository()
    if Path(named) != Path(usual) or (ours and Path().samefile(ours)):
        return Path(named)
    other = _is_repository(Path())
    raise PatchforgeError(
        f"this command writes {usual} of patchforge's own repository, and it runs outside of it",
        expected="a checkout of patchforge, and the code in it",
        found=f"{Path.cwd()}{', a checkout' if other else ''}; the code is in {resources.path('').resolve()}",
        do="run it as python -m patchforge" if other else "change to a checkout of patchforge, or name another folder",
    )


def _is_repository(folder: Path) -> bool:
    try:
        return 'name = "comfyui-patchforge"' in bounded.head(folder / "pyproject.toml").splitlines()
    except (OSError, ValueError):
        return False


def generated_folder(named: str) -> Path:
    """The folder of --generated; PatchforgeError for one that is named and not there, where the usual may be empty."""
    if named not in {GENERATED, RELEASES}:
        need_folder(Path(named), "a folder that patchforge generated")
    return Path(named)


def generated_versions(folder: Path) -> list[str]:
    """Names of the releases that have been generated, oldest first."""
    versions = {path.parent.name: parsed_version(path.parent.name) for path in all_below(folder, "v*/manifest.json")}
    return [name for _, name in sorted((version, name) for name, version in versions.items() if version)]


def version_named(name: str) -> Version:
    """The version on the command line; PatchforgeError for what is not one."""
    if version := parsed_version(name):
        return version
    raise PatchforgeError(f"{name!r} is not a version", expected="such as v0.32.0", do="name a VERSION")


def again(folder: Path) -> str:
    """What makes a generated folder, named as its version, anew; what is not as patchforge wrote it goes first."""
    usual = Path("generated/comfyui", folder.name)
    command = f"patchforge apply {quoted(folder.name)}"
    if folder.resolve() != usual.resolve():
        command += f" --out {quoted(folder)}"
    return f"move {quoted(folder)} away, as it was edited, then {command}" if edited(folder) else command


def edited(folder: Path) -> bool:
    """Whether a generated folder is not as patchforge wrote it, so that it is not written over."""
    try:
        if os.path.lexists(folder):
            prove(folder, PATCHES)
    except PatchforgeError:
        return True
    return False


def chosen_versions(options: argparse.Namespace) -> list[str]:
    """The versions on the command line, or every generated one."""
    known = generated_versions(generated_folder(options.generated))
    names: list[str] = [known[-1] if name == LATEST and known else name for name in options.release] or known
    if not names:
        raise PatchforgeError(
            f"nothing has been generated in {options.generated}",
            expected="a VERSION",
            do="name one, or make one first, such as with patchforge apply v0.32.0",
        )
    return names


def schema_name(name: str) -> str:
    """What a document says that it is: see patchforge/schemas.py."""
    return f"patchforge/{name}/{_NUMBERS.get(name, 1)}"


def show_json(name: str, value: Any) -> None:
    """One JSON document on standard output; several of a kind as its ``results``."""
    told = value if isinstance(value, Mapping) else {"results": value}
    print(document({"schema": schema_name(name), **told}))


def coloured(text: str, kind: str) -> str:
    """``text`` in the colour of ``kind``, on a terminal without NO_COLOR."""
    if os.environ.get("NO_COLOR") or not is_live(sys.stdout) or kind not in _COLOURS:
        return text
    start, end = (own(sys.stdout, f"\033[{code}m") for code in (_COLOURS[kind], "0"))
    return f"{start}{text}{end}"


def shown_size(number: int) -> str:
    """Bytes for people."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def verdict(status: int) -> str:
    """``ok``, ``failed``, or ``not checked`` for everything else that kept a check from an answer."""
    if status == Exit.OK:
        return "ok"
    return "failed" if status in (Exit.FAILED, Exit.DRIFTED) else "not checked"


def table(rows: Sequence[Sequence[str]]) -> None:
    """Columns padded to their widest cell, each cell one line; a cell that is an outcome is coloured."""
    rows = [[line(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        print("  ".join(coloured(cell.ljust(width), cell) for cell, width in zip(row, widths, strict=True)).rstrip())
