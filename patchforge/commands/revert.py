"""``patchforge revert``: takes everything of patchforge out of a patched folder again."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from patchforge.checkout import change
from patchforge.checkout.examine import subject_of
from patchforge.checkout.subject import ComfyUICheckout, Subject
from patchforge.commands.checkout import tell_undone
from patchforge.commands.common import show_json
from patchforge.errors import Exit


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1, and nothing written, where an edit and ours are in one place."""
    return put_back([options.folder], dry_run=options.dry_run, as_json=options.json)


def put_back(folders: Sequence[str], *, dry_run: bool, as_json: bool, subject: Subject | None = None) -> int:
    """Reverts folders, each a ``subject`` or what it is, and tells what was done."""
    told = []
    for folder in folders:
        with change.opened(Path(folder), dry_run=dry_run) as inside:
            plan = change.revert(inside, subject or subject_of(inside, ComfyUICheckout()), dry_run=dry_run)
        told.append({"reverted": folder, "files": list(plan.files), "written": plan.written, "removed": plan.removed})
        if not as_json:
            tell_undone(folder, plan, dry_run=dry_run)
    if as_json:
        show_json("revert", told)
    return Exit.OK
