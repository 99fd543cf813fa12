"""A user's own checkout: patched in place, and put back exactly.

The originals of every file that is about to change are kept in ``.patchforge/`` first, whole or not at all. Only then
are files replaced, one by one. A run that is killed in between leaves each file either old or new, and --revert knows
both.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from patchforge import processes
from patchforge.atomic import write_file, write_tree
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.patches import apply
from patchforge.pipeline import Patched
from patchforge.sources.command import git_environment
from patchforge.vocabulary import git_blob_id

FOLDER = ".patchforge"  #: in the checkout: patches, manifest and originals


def patch_folder(folder: Path, patched: Patched, context: int = 0) -> None:
    """Replaces the files of a checkout. PatchforgeError when it has been patched before."""
    journal = folder / FOLDER
    if journal.exists():
        raise PatchforgeError(
            f"{folder} is patched already", found=str(journal), do=f"patchforge apply --revert {folder} first"
        )
    kept = {f"original/{path}": data for path, data in patched.before.items()}
    write_tree(journal, {**patched.files(context), **kept, ".gitignore": b"*\n"})
    for path, data in patched.after.items():
        write_file(folder / path, data)


def revert_folder(folder: Path, *, dry_run: bool = False) -> list[str]:
    """Puts every file back and removes the journal; returns the paths.

    A file that was edited since keeps the edit (a three-way merge) where it does not touch ours; where it does,
    CheckFailed names the file and nothing is written.
    """
    journal = folder / FOLDER
    try:
        manifest = json.loads((journal / "manifest.json").read_bytes())
    except (OSError, ValueError):
        raise PatchforgeError(
            f"{folder} was not patched in place",
            expected=f"{journal}/manifest.json",
            found="no such file",
            do="nothing to undo here",
        ) from None
    last = {entry["path"]: entry for patch in manifest["patches"] for entry in patch["files"]}
    restored: dict[str, bytes | None] = {path: _original(folder, path, entry["after"]) for path, entry in last.items()}
    if not dry_run:
        for path, data in restored.items():
            if data is None:
                (folder / path).unlink(missing_ok=True)
            else:
                write_file(folder / path, data)
        shutil.rmtree(journal)
    return sorted(restored)


def _original(folder: Path, path: str, after: str) -> bytes | None:
    """The file's bytes before the patches; None for a file that they added."""
    kept = folder / FOLDER / "original" / path
    original = kept.read_bytes() if kept.is_file() else None
    try:
        now = (folder / path).read_bytes()
    except FileNotFoundError:
        now = None
    if now is None or now == original or git_blob_id(now) == after:
        return original
    return _edited_since(folder, path, original, now)


def _edited_since(folder: Path, path: str, original: bytes | None, now: bytes) -> bytes:
    """The original with the edits that were made after the patches: a three-way merge with the patched file as base."""
    found = "the whole file is patchforge's"
    if original is not None:
        with tempfile.TemporaryDirectory(prefix="patchforge-") as scratch:
            versions = {"edited": now, "patched": _patched(folder / FOLDER)[path], "original": original}
            for name, data in versions.items():
                Path(scratch, name).write_bytes(data)
            merged = processes.run(
                ["git", "merge-file", "-p", *versions],
                cwd=scratch,
                env=git_environment(["merge-file"], folder=Path(scratch)),
                capture_output=True,
            )
        if merged.returncode == 0:
            return bytes(merged.stdout)
        found = merged.stderr.decode(errors="replace").strip() or f"{merged.returncode} place(s) where both changed"
    raise CheckFailed(
        f"{path} was edited after it was patched, and the edit cannot be kept",
        found=found,
        do=f"save your edit, copy {FOLDER}/original/{path} over the file (if there is none, remove the file) "
        "and run --revert again",
    )


def _patched(journal: Path) -> dict[str, bytes]:
    """Every file as the patches left it."""
    files: dict[str, bytes] = {}

    def read(name: str) -> bytes:
        return files[name] if name in files else (journal / "original" / name).read_bytes()

    for patch in sorted(journal.glob("*.patch")):
        files.update(apply(patch.read_bytes(), read))
    return files
