"""``patchforge apply``: convert a release and write what comes of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from patchforge import pipeline
from patchforge.atomic import write_tree
from patchforge.commands.common import make_engine, show_json, table
from patchforge.errors import Exit, PatchforgeError
from patchforge.inplace import patch_folder, revert_folder
from patchforge.pipeline import Patched
from patchforge.project import load_project, recognise
from patchforge.sources import FolderTree, MissingBlobError, TarTree, Upstream, open_upstream
from patchforge.vocabulary import Release, Tree


def run(options: argparse.Namespace) -> int:
    """Exit status 0, or an error: drift, a failed check, unusable names."""
    if options.context < 0:
        raise PatchforgeError("--context counts lines", expected="0 or more", found=str(options.context))
    if options.revert:
        return _revert(options)
    source = options.source or options.in_place
    if source:
        return _convert(options, *_from_files(Path(source), options.release))
    if not options.release:
        raise PatchforgeError("no release is named", expected="a VERSION or COMMIT", do="patchforge apply v0.32.0")
    with open_upstream(options.upstream) as upstream:
        release = upstream.resolve(options.release)
        return _convert(options, release, upstream.tree(release))


def _from_files(source: Path, named: str | None) -> tuple[Release, Tree]:
    tree: Tree = FolderTree(source) if source.is_dir() else TarTree(source)
    version = recognise(tree, load_project())
    if version is None:
        raise PatchforgeError(
            f"{source} is not recognised as a ComfyUI release",
            expected="comfyui_version.py or a version in pyproject.toml",
            found="neither",
            do="name an older release by its commit, or check the path",
        )
    if named and named.removeprefix("v") != str(version).removeprefix("v"):
        raise PatchforgeError(
            f"{source} is another release", expected=named, found=str(version), do="leave the version out"
        )
    return Release(version, getattr(tree, "commit", ""), indexed=True), tree


def _convert(options: argparse.Namespace, release: Release, tree: Tree) -> int:
    engine = make_engine(options)
    patched = pipeline.convert(engine, release, tree)
    pipeline.check(patched, options.context)
    written, missing = _write(options, patched)
    if options.json:
        show_json(
            {
                **patched.manifest(patched.patch_files(options.context)),
                "written": written,
                "missing": missing,
                "indexed": release.indexed,
            }
        )
    else:
        _show(patched, written, missing)
    return Exit.OK


def _write(options: argparse.Namespace, patched: Patched) -> tuple[str, list[str]]:
    """Writes what was asked for; returns where, and the files that the clone has no content for."""
    if options.dry_run:
        return "", []
    if options.in_place:
        patch_folder(Path(options.in_place), patched, options.context)
        return options.in_place, []
    if options.to:
        files, missing = _whole_tree(patched)
        target = Path(options.to)
        if target.exists() and any(target.iterdir()):
            raise PatchforgeError(
                f"{target} is not empty", expected="a new or empty folder", do="choose another, or remove it"
            )
        write_tree(target, files)
        return str(target), missing
    target = Path(options.out or f"generated/comfyui/{patched.release.version}")
    _check_ours(target)
    write_tree(target, patched.files(options.context))
    return str(target), []


def _check_ours(target: Path) -> None:
    """Never replaces a folder that holds something else than an earlier run's output."""
    known = {"series", "manifest.json", "REPORT.md"}
    strange = (
        [path.name for path in target.iterdir() if path.name not in known and path.suffix != ".patch"]
        if target.is_dir()
        else []
    )
    if strange:
        raise PatchforgeError(
            f"{target} holds other files",
            expected="patchforge's output, or nothing",
            found=", ".join(sorted(strange)[:5]),
            do="choose another --out",
        )


def _whole_tree(patched: Patched) -> tuple[dict[str, bytes], list[str]]:
    files: dict[str, bytes] = {}
    missing: list[str] = []
    tree = pipeline.OverlayTree(patched.conversion.tree, patched.after)
    for path in tree.entries():
        try:
            files[path] = tree.read(path)
        except MissingBlobError:
            missing.append(path)
    return files, missing


def _revert(options: argparse.Namespace) -> int:
    restored = revert_folder(Path(options.revert), dry_run=options.dry_run)
    if options.json:
        show_json({"reverted": options.revert, "files": restored})
    else:
        print(
            f"{options.revert}: {len(restored)} files are as they were" + (" (not written)" if options.dry_run else "")
        )
    return Exit.OK


def _show(patched: Patched, written: str, missing: list[str]) -> None:
    release = patched.release
    new = "" if release.indexed else " (new: not in the release index yet)"
    print(f"ComfyUI {release.version}{new} {release.commit[:12]}")
    rows = [
        (report.transform, report.outcome.value, str(len(report.found)) if report.found else "", transform.title)
        for report, transform in zip(patched.conversion.reports, patched.transforms, strict=True)
    ]
    table(rows)
    counts: Mapping[str, Any] = patched.site_entry()
    print(
        f"device sites: {counts['claimed']} claimed, {counts['left']} left on purpose, {counts['unclaimed']} unclaimed"
    )
    print("checked: compiles, static proof, second run edits nothing, patches apply three ways")
    for path in missing:
        print(f"missing: {path} (the clone has no content for it; the patches do not need it)")
    print(f"written: {written}" if written else "nothing written (dry run)")
    if any(one.surprising for one in patched.conversion.reports):
        for report in patched.conversion.reports:
            if report.surprising:
                print(f"note: {report.transform} is {report.outcome} where {report.expected} was expected")


def source_of(upstream: Upstream, name: str) -> tuple[Release, Tree]:
    """A release and its tree by name."""
    release = upstream.resolve(name)
    return release, upstream.tree(release)
