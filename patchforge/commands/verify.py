"""``patchforge verify``: what is committed against upstream's own bytes."""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchforge import documents, interpreters, manifest, patches, pipeline, processes, progress
from patchforge.arguments.shared import PINS
from patchforge.commands.common import (
    again,
    chosen_versions,
    coloured,
    generated_folder,
    in_repository,
    make_engine,
    show_json,
    verdict,
)
from patchforge.engine.convert import Engine
from patchforge.errors import CheckFailed, Exit, NotChecked, PatchforgeError, worst
from patchforge.names import unfit
from patchforge.outputs import differences, write_new
from patchforge.sources import MissingBlobError, open_upstream
from patchforge.started import program
from patchforge.vocabulary import Release, Tree, git_blob_id

if TYPE_CHECKING:
    from patchforge.proof.dynamic import Prover
    from patchforge.proof.judgement import ProofResult


_KINDS = {"confirmed": "ok", "contradicted": "failed"}
_SETTLED = {"confirmed": Exit.OK, "contradicted": Exit.FAILED, "unreachable": Exit.UNCHECKED}


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when a digest, a blob id, a proof or (with --online) a pinned hash does not hold; 69 unseen."""
    if options.online:
        return confirm_pins(in_repository(options.pins, PINS), as_json=options.json)
    results: list[dict[str, Any]] = []
    with ExitStack() as stack:
        upstream = stack.enter_context(open_upstream(options.upstream))
        prover = stack.enter_context(_prover(options)) if options.dynamic else None
        engine = make_engine(options)
        names = chosen_versions(options)
        for name in progress.each(names, "verifying", len(names)):
            release = upstream.resolve(name)
            results.append(_one(engine, prover, release, upstream.tree(release), generated_folder(options.generated)))
            if not options.json:
                _show(results[-1])
    if options.json:
        show_json("verify", results)
    else:
        print(f"note: patches were read by patchforge's own reader; {program()} check asks GNU patch and git as well")
    return worst(result["status"] for result in results)


def confirm_pins(folder: Path, *, as_json: bool) -> int:
    """Reads every source whose hash is published and not computed; exit status 1 when one differs, 69 when unread."""
    from patchforge.pins.confirm import confirm  # noqa: PLC0415
    from patchforge.pins.pin_files import kinds  # noqa: PLC0415

    if not kinds(folder):
        raise PatchforgeError(
            f"there are no pins in {folder}", expected="files as in upstream/pins", do="correct --pins"
        )
    results = []
    for confirmation in confirm(folder):
        results.append(asdict(confirmation))
        if not as_json:
            outcome = coloured(confirmation.outcome, _KINDS.get(confirmation.outcome, confirmation.outcome))
            print(f"{confirmation.pin}: {outcome}", flush=True)
            for line in confirmation.problem.splitlines():
                print(f"  {line}")
    if as_json:
        show_json("verify-online", results)
    elif not results:
        print(f"{folder}: every hash was computed, so there is nothing to confirm")
    return worst(_SETTLED[result["outcome"]] for result in results)


def _prover(options: argparse.Namespace) -> Prover:
    from patchforge.proof.dynamic import Prover  # noqa: PLC0415

    processes.need_posix("the dynamic proof")
    interpreters.need(options.python or sys.executable)
    return Prover(python=options.python or sys.executable, jobs=options.jobs or os.cpu_count() or 1)


def _one(engine: Engine, prover: Prover | None, release: Release, tree: Tree, generated: Path) -> dict[str, Any]:
    result: dict[str, Any] = {"release": str(release.version), "problem": "", "status": int(Exit.OK)}
    folder = generated / str(release.version)
    try:
        if folder.is_dir() or prover is None:
            verify_folder(folder, release, tree)
        if prover is not None:
            proof = prove(engine, release, tree, prover)
            result["dynamic"] = proof.as_data()
            if not proof.holds:
                result.update(problem=proof.report(), status=int(Exit.FAILED))
    except PatchforgeError as error:
        result.update(problem=str(error), status=int(error.status))
    return result


def _show(result: Mapping[str, Any]) -> None:
    said = verdict(result["status"])
    print(f"{result['release']}: {coloured(said, said)}{_tally(result)}", flush=True)
    for line in result["problem"].splitlines():
        print(f"  {line}")


def _tally(result: Mapping[str, Any]) -> str:
    """How many scenarios of the dynamic proof came out how."""
    verdicts = Counter(scenario["verdict"] for scenario in result.get("dynamic", {}).get("scenarios", ()))
    return "".join(f", {count} {verdict}" for verdict, count in sorted(verdicts.items()))


def verify_folder(folder: Path, release: Release, tree: Tree) -> None:
    """CheckFailed unless patches, digests and blob ids of a generated folder fit together and fit upstream.

    NotChecked where there is no manifest, Damaged where it is not one.
    """
    try:
        document = manifest.load(folder)
    except FileNotFoundError:
        raise NotChecked(f"{folder} has no manifest", do=again(folder)) from None
    if document.commit != release.commit:
        raise CheckFailed(
            f"{folder} is of another commit", expected=release.commit, found=document.commit, do=again(folder)
        )
    patches_named = [entry.file for entry in document.patches]
    problems = differences(folder, [*patches_named, "series", "REPORT.md", "manifest.json"])
    series = folder / "series"
    if series.is_file() and documents.read_bytes(series).decode(errors="replace").split("\n") != [*patches_named, ""]:
        problems.append("series does not list the patches of the manifest")
    if problems:
        raise CheckFailed(
            f"{folder} is not as it was written",
            expected="the files that its SHA256SUMS and its manifest name, and no others",
            found="; ".join(problems),
            do=again(folder),
        )
    files: dict[str, bytes] = {}
    for entry in document.patches:
        files.update(_verified_patch(folder, entry, pipeline.OverlayTree(tree, files)))


def _verified_patch(folder: Path, entry: manifest.PatchEntry, tree: Tree) -> dict[str, bytes]:
    try:
        data = documents.read_bytes(folder / entry.file)
    except FileNotFoundError:
        raise CheckFailed(f"{folder} lacks a file of its manifest", expected=entry.file, do=again(folder)) from None
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise CheckFailed(
            f"{entry.file} is not the file the manifest describes",
            expected=entry.sha256,
            found="other bytes",
            do=again(folder),
        )
    present = tree.entries()
    for file in entry.files:
        blob = present[file.path].blob if file.path in present else None
        if blob != file.before:
            raise CheckFailed(
                f"{file.path} is not as it was before {entry.file}",
                expected=str(file.before),
                found=str(blob),
                do=again(folder),
            )
    after = patches.apply(data, tree.read)
    if set(after) != (listed := {file.path for file in entry.files}):
        raise CheckFailed(
            f"{entry.file} does not change the files that the manifest lists",
            expected=", ".join(sorted(listed)),
            found=", ".join(sorted(after)),
            do=again(folder),
        )
    for file in entry.files:
        if git_blob_id(after[file.path]) != file.after:
            raise CheckFailed(
                f"{entry.file} makes other bytes of {file.path}",
                expected=file.after,
                found=git_blob_id(after[file.path]),
                do=again(folder),
            )
    return after


def prove(engine: Engine, release: Release, tree: Tree, prover: Prover) -> ProofResult:
    """The dynamic proof of one release: both trees answer in clean interpreters, scenario by scenario."""
    patched = pipeline.convert(engine, release, tree)
    declares = {
        name: transform.id
        for transform in patched.transforms
        if patched.applied(transform)
        for name in transform.declares
    }
    with tempfile.TemporaryDirectory(prefix="patchforge-") as scratch:
        sources = python_files(tree)
        write_new(Path(scratch, "upstream"), sources)
        write_new(Path(scratch, "patched"), {**sources, **patched.after})
        return prover.prove(Path(scratch, "upstream"), Path(scratch, "patched"), declares)


def python_files(tree: Tree) -> dict[str, bytes]:
    """What an import needs of a tree: Python and small text; content that a clone lacks is left out."""
    files: dict[str, bytes] = {}
    for path in tree.entries().keys() - unfit(tree.entries()).keys():
        if path.endswith((".py", ".txt", ".toml", ".json", ".yaml")) and not path.startswith(("tests", "web/")):
            try:
                files[path] = tree.read(path)
            except MissingBlobError:
                continue
    return files
