"""``patchforge apply``: convert a release and write what comes of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from patchforge import escape, manifest, pipeline
from patchforge.checkout import change
from patchforge.checkout.place import FolderKind, command, where
from patchforge.checkout.subject import ComfyUICheckout
from patchforge.commands import revert
from patchforge.commands.applied import Applied, as_data
from patchforge.commands.checkout import comfyui, planned
from patchforge.commands.common import inputs, make_engine, show_json, version_named
from patchforge.errors import Exit, PatchforgeError
from patchforge.git.borrowed import checked_out
from patchforge.outputs import PATCHES, check_folder, check_new, write_folder
from patchforge.paths import not_there, quoted
from patchforge.pipeline import PatchedRelease
from patchforge.project import load_project, parsed_version, recognise, release_index
from patchforge.sources import ArchiveTree, FolderTree, GitTree, open_files, open_upstream
from patchforge.sources.git import Skipped
from patchforge.sources.upstream import Upstream, looks_like_path
from patchforge.vocabulary import Release, Tree, Version


def run(options: argparse.Namespace) -> int:
    """Exit status 0, 69 where the clone lacks files of a tree, or an error: drift, a failed check, unusable names."""
    if options.revert:
        return _revert(options)
    if options.in_place is not None:
        return _in_place(options)
    if options.source:
        return _convert(options, *release_from_files(Path(options.source), options.release, whole=bool(options.to)))
    if not options.release:
        raise PatchforgeError(
            "nothing is named",
            expected="the folder of your ComfyUI, or a VERSION",
            do="patchforge apply DIR --in-place patches the ComfyUI in DIR; patchforge apply latest writes patches",
        )
    if looks_like_path(options.release) or _is_known_folder(options.release):
        _refuse_path(options.release)
    with open_upstream(options.upstream) as upstream:
        release = _resolved(upstream, options.release)
        return _convert(options, release, upstream.tree(release))


def _resolved(upstream: Upstream, name: str) -> Release:
    try:
        return upstream.resolve(name)
    except PatchforgeError:
        _refuse_path(name)
        raise


def _is_known_folder(name: str) -> bool:
    """Whether a word that could be a ref's is the folder of a ComfyUI, or one around it."""
    path = Path(name)
    return not parsed_version(name) and path.is_dir() and where(path).place is not FolderKind.OTHER


def _refuse_path(name: str) -> None:
    """A folder or a tarball where a release's name is wanted."""
    path = Path(name).expanduser()
    if looks_like_path(name) and not path.exists():
        raise not_there(path, "a VERSION or COMMIT, or the folder of your ComfyUI with --in-place")
    if path.exists():
        in_place = f"{escape.line(command('release', 'apply', path))} patches it in place; " if path.is_dir() else ""
        raise PatchforgeError(
            f"{name} is {'a folder' if path.is_dir() else 'a file'}, not the name of a release",
            expected="a VERSION or COMMIT",
            do=f"{in_place}patchforge apply --from {escape.line(quoted(path))} reads the release from it",
        )


def release_from_files(source: Path, named: str | None, *, whole: bool = False) -> tuple[Release, Tree]:
    """A release read from an archive or a folder: what it says it is must fit what it is called."""
    tree = open_files(source, whole=whole)
    stated = recognise(tree, load_project()) or _checked_out(source)
    wanted = version_named(named) if named else None
    version = stated or wanted
    if version is None:
        raise PatchforgeError(
            f"{source} is not recognised as a ComfyUI release",
            expected="comfyui_version.py, a version in pyproject.toml, or a checkout of a release's commit",
            found="none of them",
            do="check the path, or name the VERSION as well",
        )
    if wanted not in (None, version):
        raise PatchforgeError(
            f"{source} is another release", expected=str(wanted), found=str(version), do="leave the version out"
        )
    return Release(version, getattr(tree, "commit", ""), indexed=True), tree


def _checked_out(source: Path) -> Version | None:
    """The release whose commit a git checkout stands on; releases before v0.3.11 state no version."""
    commit = checked_out(source)
    known = release_index(load_project()) if commit else []
    return next((release.version for release in known if release.commit == commit), None)


def _convert(options: argparse.Namespace, release: Release, tree: Tree) -> int:
    _check_output(options, release)
    patched = _checked(options, release, tree)
    written, missing = _write(options, patched)
    named = options.release or ""
    users = tree.users if options.to and isinstance(tree, FolderTree) else ()
    _tell(
        options,
        Applied(patched, written, whole=bool(options.to), missing=tuple(missing), users=users, named=named),
    )
    return Exit.UNCHECKED if any(skipped.reason == pipeline.NO_CONTENT for skipped in missing) else Exit.OK


def _checked(options: argparse.Namespace, release: Release, tree: Tree) -> PatchedRelease:
    mine = bool(options.source) or options.in_place is not None
    patched = pipeline.convert(make_engine(options), release, tree, edited=mine)
    pipeline.check(patched, options.context)
    return patched


def _in_place(options: argparse.Namespace) -> int:
    """The release in a checkout is the one that is patched there; no other is read."""
    if options.source:
        raise PatchforgeError(
            "--in-place patches the release that is in the folder, and --from names another place to read it from",
            do="leave --from out, or write a patched copy with --to",
        )
    folder, named = _named(options)
    with change.opened(folder, dry_run=options.dry_run) as inside:
        change.refuse_unless_untouched(inside, comfyui(options), dry_run=options.dry_run)
        patched = _checked(options, *release_from_files(folder, named))
        plan = change.patch(
            inside,
            ComfyUICheckout(lambda: make_engine(options)),
            patched,
            context=options.context,
            dry_run=options.dry_run,
        )
    written = "" if options.dry_run else str(folder)
    _tell(options, Applied(patched, written, plan=plan, place=folder, named=named or ""))
    return Exit.OK


def _named(options: argparse.Namespace) -> tuple[Path, str | None]:
    """The folder, and the version that may be named as well: ``DIR --in-place``, ``VERSION --in-place DIR``."""
    words = [word for word in (options.in_place, options.release) if word]
    if not words:
        do = "patchforge apply DIR --in-place"
        raise PatchforgeError("no folder is named", expected="the folder of your ComfyUI", do=do)
    folder = next((word for word in words if Path(word).is_dir()), words[0])
    return Path(folder), next((word for word in words if word != folder), None)


def _tell(options: argparse.Namespace, applied: Applied) -> None:
    if options.json:
        made = applied.patched.manifest(applied.patched.patch_files(options.context))
        show_json("apply", as_data(applied, manifest.FORMAT.data(made)))
        return
    applied.say(verbose=options.verbose)
    if applied.plan and options.dry_run:
        planned(applied.plan)


def _write(options: argparse.Namespace, patched: PatchedRelease) -> tuple[str, list[Skipped]]:
    """Writes what was asked for; returns where, and the files of a tree that are not written."""
    if options.dry_run:
        return "", []
    read = inputs(options.source, options.upstream)
    if options.to:
        left_out = pipeline.write_whole(patched.tree, Path(options.to), read)
        return options.to, sorted([*left_out, *_unread(patched.conversion.tree)], key=lambda skipped: skipped.path)
    target = _target(options, patched.release)
    write_folder(target, patched.files(options.context), PATCHES, inputs=read)
    return str(target), []


def _unread(tree: Tree) -> Sequence[Skipped]:
    """What a tree leaves out of a release when it is read."""
    if isinstance(tree, FolderTree):
        return tree.unread
    return tree.skipped if isinstance(tree, GitTree | ArchiveTree) else ()


def _check_output(options: argparse.Namespace, release: Release) -> None:
    """PatchforgeError, before the work, for what ``_write`` would refuse."""
    read = inputs(options.source, options.upstream)
    if options.to and not options.dry_run:
        check_new(Path(options.to), read)
    elif not (options.dry_run or options.in_place):
        check_folder(_target(options, release), PATCHES, read)


def _target(options: argparse.Namespace, release: Release) -> Path:
    name = str(release.version) if release.indexed or parsed_version(options.release or "") else release.commit[:12]
    return Path(options.out or f"generated/comfyui/{name}")


def _revert(options: argparse.Namespace) -> int:
    """``--revert DIR``, the older way to say ``patchforge revert DIR``."""
    given = {
        "a VERSION": options.release,
        "--from": options.source,
        "--upstream": options.upstream,
        "--context": options.context,
        "--no-cache": options.no_cache,
    }
    if useless := [name for name, value in given.items() if value]:
        raise PatchforgeError(
            f"--revert converts nothing, so {', '.join(useless)} means nothing to it",
            do="leave it out",
        )
    return revert.put_back([options.revert], dry_run=options.dry_run, as_json=options.json)
