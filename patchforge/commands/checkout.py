"""What the commands that work in a user's own folder share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from patchforge.checkout import change
from patchforge.checkout.examine import examine, subject_of
from patchforge.checkout.subject import ComfyUI, Subject
from patchforge.commands.common import make_engine, show_json
from patchforge.errors import Exit
from patchforge.escape import line
from patchforge.inside import Inside
from patchforge.sources import FolderTree, TarTree, open_upstream
from patchforge.vocabulary import Tree

Put = Callable[..., change.Plan]


def comfyui(options: argparse.Namespace) -> ComfyUI:
    """ComfyUI, with the engine that the options ask for."""
    return ComfyUI(lambda: make_engine(options), getattr(options, "release", None) or "")


def put_right(options: argparse.Namespace, put: Put) -> int:
    """Runs ``repair`` or ``update`` and tells what it did."""
    with change.opened(Path(options.folder), dry_run=options.dry_run) as inside:
        subject = subject_of(inside, comfyui(options))
        sources = _sources(options, inside, subject) if subject.kind == "release" else ()
        plan = put(inside, subject, sources, dry_run=options.dry_run)
        state = plan.state if options.dry_run else examine(inside, subject).state
    if options.json:
        told = {"was": plan.state, "state": state, "written": plan.written, "removed": plan.removed}
        told["journal"] = "written anew" if plan.renewed else "as it was"
        show_json({"folder": options.folder, **told})
        return Exit.OK
    if options.dry_run and (plan.writes or plan.renewed):
        print(f"{options.folder}: {plan.state} (not written)")
        planned(plan)
        if plan.renewed:
            print("would write the journal anew")
        return Exit.OK
    done = f"{len(plan.writes)} file(s) changed" if plan.writes else "no file had to be changed"
    journal = ", and its journal is written anew" if plan.renewed else ""
    was = f"was {plan.state}, is {state}" if plan.writes or plan.state != state else state
    print(f"{options.folder}: {was}; {done}{journal}")
    return Exit.OK


def planned(plan: change.Plan) -> None:
    """What a dry run would do, one path a line."""
    for path in plan.written:
        print(f"would write {line(path)}")
    for path in plan.removed:
        print(f"would remove {line(path)}")


def _sources(options: argparse.Namespace, inside: Inside, subject: Subject) -> tuple[change.Source, ...]:
    if options.source:
        named = Path(options.source)
        return (lambda: FolderTree(named) if named.is_dir() else TarTree(named),)

    def from_git() -> Tree | None:
        version = subject.stated(inside)
        upstream = open_upstream(options.upstream)
        return upstream.tree(upstream.resolve(version)) if version else None

    return (from_git,)
