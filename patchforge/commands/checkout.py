"""What the commands that work in a user's own folder share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from patchforge.checkout import change
from patchforge.checkout.examine import examine, subject_of
from patchforge.checkout.subject import ComfyUICheckout, Subject
from patchforge.commands.common import make_engine, show_json
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.inside import Inside
from patchforge.paths import not_there
from patchforge.sources import open_files, open_upstream
from patchforge.vocabulary import Tree

Put = Callable[..., change.Plan]


def comfyui(options: argparse.Namespace) -> ComfyUICheckout:
    """ComfyUI, with the engine that the options ask for."""
    return ComfyUICheckout(lambda: make_engine(options), getattr(options, "release", None) or "")


def put_right(options: argparse.Namespace, put: Put) -> int:
    """Runs ``repair`` or ``update`` and tells what it did."""
    with change.opened(Path(options.folder), dry_run=options.dry_run) as inside:
        subject = subject_of(inside, comfyui(options))
        sources = _sources(options, inside, subject)
        plan = put(inside, subject, sources, dry_run=options.dry_run)
        state = plan.state if options.dry_run else examine(inside, subject).state
    if options.json:
        told = {"was": plan.state, "state": state, "written": plan.written, "removed": plan.removed}
        told["journal"] = "written anew" if plan.journal else "as it was"
        told["options"] = list(plan.options)
        show_json("put-right", {"folder": options.folder, **told})
        return Exit.OK
    if options.dry_run:
        print(f"{options.folder}: {plan.state}; nothing written (dry run)")
        planned(plan)
        if plan.journal:
            print("would write the journal anew")
        return Exit.OK
    done = f"{counted(len(plan.writes))} changed" if plan.writes else "no file had to be changed"
    journal = ", its journal written anew" if plan.journal else ""
    journal += f", as with {_flags(plan.options)}" if plan.options else ""
    was = f" (it was {plan.state})" if plan.state != state else ""
    print(f"{options.folder}: {state}{was}; {done}{journal}")
    return Exit.OK


def _flags(options: Sequence[str]) -> str:
    """The words of ``packs apply`` for what was found out of a pack that was converted by somebody."""
    return " ".join("--comfy-devices" if option == "comfy" else f"--enable {option}" for option in options)


def undone(plan: change.Plan, *, dry_run: bool = False) -> str:
    """What taking everything out did, or would do."""
    would = "would be " if dry_run else ""
    if not plan.writes:
        return f"no file held anything of patchforge; its journal {would or 'is '}removed"
    left = len(plan.files) - len(plan.writes)
    kept = f", {left} {would}left as they are" if left else ""
    return f"{counted(len(plan.writes))} {would}put back{kept}"


def counted(files: int) -> str:
    """``1 file``, ``2 files``."""
    return f"{files} file{'' if files == 1 else 's'}"


def tell_undone(folder: str, plan: change.Plan, *, dry_run: bool) -> None:
    """Says what taking everything out of a folder did, or would do."""
    print(f"{line(folder)}: {undone(plan, dry_run=dry_run)}" + ("; nothing written (dry run)" if dry_run else ""))
    if dry_run:
        planned(plan)


def planned(plan: change.Plan) -> None:
    """What a dry run would do, one path a line."""
    for path in plan.written:
        print(f"would write {line(path)}")
    for path in plan.removed:
        print(f"would remove {line(path)}")


def _sources(options: argparse.Namespace, inside: Inside, subject: Subject) -> tuple[change.Source, ...]:
    if options.source:
        named = Path(options.source)
        if not named.exists():
            raise not_there(named, "an archive or a folder")
        return (lambda: subject.tree(named) if named.is_dir() else open_files(named),)
    if subject.kind == "pack":
        return ()

    def from_git() -> Tree | None:
        version = subject.stated(inside)
        upstream = open_upstream(options.upstream)
        return upstream.tree(upstream.resolve(version)) if version else None

    return (from_git,)
