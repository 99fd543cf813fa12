"""``patchforge prefetch``: the hash that Nix will find for a source, worked out without Nix."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from patchforge.commands.common import show_json
from patchforge.errors import CheckFailed, Exit, PatchforgeError
from patchforge.git.clone import CachedClone, is_url
from patchforge.hashes import ArchiveHash, PublishedHash, of_checkout, of_clone, of_folder, of_tarball, published_hashes
from patchforge.hashes.fetchfromgithub import HOST
from patchforge.paths import not_there
from patchforge.project import Project, load_project, release_index
from patchforge.sources import GitObjects, open_upstream
from patchforge.vocabulary import Version

_REPOSITORY = re.compile(r"[\w-]+/[\w.-]+")
_COMMIT = re.compile("[0-9a-f]{40}")
_SHOWN = 8  #: paths of a note that are named in text; JSON has all


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when a hash is nonsense or contradicts a published one."""
    _check(options)
    result = _package(*options.pypi) if options.pypi else _archive(options)
    if options.json:
        show_json("prefetch", result)
    else:
        _show(result)
    return Exit.OK


def _check(options: argparse.Namespace) -> None:
    named = [options.repository, options.rev]
    others = [options.upstream, options.source, options.submodule]
    if options.pypi:
        good = not any([*named, *others])
    else:
        good = all(named) and bool(_REPOSITORY.fullmatch(options.repository)) and not (options.source and others[2])
    if not good:
        raise PatchforgeError(
            "it is not clear what to prefetch",
            expected="OWNER/REPO REV, or --pypi NAME VERSION alone; --submodule not with --from",
            found=" ".join(filter(None, named)) or "neither",
            do="patchforge prefetch --help",
        )


def _package(name: str, version: str) -> dict[str, Any]:
    from patchforge.hashes.pypi import package_files  # noqa: PLC0415 - urllib is slow to import

    files = [asdict(file) for file in package_files(name, version)]
    return {"fetcher": "fetchurl", "name": name, "version": version, "files": files}


def _archive(options: argparse.Namespace) -> dict[str, Any]:
    project = load_project()
    ours = f"{HOST}/{options.repository}"
    ours = ours if project.current_url(ours) == project.url else ""
    known = published_hashes(project) if ours else {}
    owner, _, repo = (project.url.removeprefix(HOST + "/") if ours else options.repository).partition("/")
    pin = {"fetcher": "fetchFromGitHub", "owner": owner, "repo": repo, "ref": options.rev}
    try:
        commit, archive = _computed(options, project if ours else None)
    except CheckFailed:
        raise
    except PatchforgeError as error:
        published = known.get(_commit_of(options.rev, project)) if ours else None
        if published is None:
            raise
        return {**pin, **_as_published(published, error)}
    if not options.submodule:
        _compare(archive, commit, known)
    return {
        **pin,
        "rev": commit,
        "hash": archive.hash,
        "provenance": "computed",
        "fetchSubmodules": bool(options.submodule),
        "source": archive.source,
        "files": archive.files,
        "bytes": archive.size,
        "notes": [asdict(note) for note in archive.notes],
    }


def _as_published(published: PublishedHash, error: PatchforgeError) -> dict[str, Any]:
    return {
        "rev": published.commit,
        "hash": published.hash,
        "provenance": "published",
        "published_by": published.published_by,
        "fetchSubmodules": False,
        "because": str(error),
        "notes": [],
    }


def _compare(archive: ArchiveHash, commit: str, known: Mapping[str, PublishedHash]) -> None:
    """CheckFailed when others published another hash for this commit, or this hash for another commit."""
    published = known.get(commit)
    if published and published.hash != archive.hash:
        raise CheckFailed(
            f"the hash of {commit} is not the published one",
            expected=f"{published.hash}, says {published.published_by}",
            found=f"{archive.hash}, of {archive.source}",
            do="find out which source differs; nothing is pinned to either",
        )
    other = next(
        (
            publication
            for publication in known.values()
            if publication.hash == archive.hash and publication.commit != commit
        ),
        None,
    )
    if other:
        raise CheckFailed(
            f"two revisions have one hash, {archive.hash}",
            expected=f"that of {commit}",
            found=f"that of {other.commit} ({other.version})",
            do="read the source again; this one is of another revision, or cut short",
        )


def _computed(options: argparse.Namespace, project: Project | None) -> tuple[str, ArchiveHash]:
    """The commit and the hash worked out from what is at hand."""
    if options.source:
        commit = _commit_of(options.rev, project)
        return commit, _from_files(Path(options.source), commit)
    commit, clone = _resolved(options, project)
    submodules = dict(_submodule(text) for text in options.submodule or ())
    return commit, of_checkout(clone, commit, submodules) if submodules else of_clone(clone, commit)


def _from_files(path: Path, commit: str) -> ArchiveHash:
    if not _COMMIT.fullmatch(commit):
        raise PatchforgeError(
            f"the commit of {path} cannot be known",
            expected="REV as a commit of 40 hex digits, or a release in the index",
            found=commit or "a name without a clone",
            do="write the commit; a tag can move",
        )
    if path.is_dir():
        return of_folder(path)
    try:
        with path.open("rb") as stream:
            return of_tarball(stream, str(path), commit)
    except FileNotFoundError:
        raise not_there(path, "a tarball or folder") from None


def _submodule(text: str) -> tuple[str, Path]:
    path, equals, clone = text.partition("=")
    if not (path and equals and clone):
        raise PatchforgeError(
            f"{text!r} does not name a submodule", expected="PATH=CLONE", do="--submodule libs/x=../x.git"
        )
    return path.strip("/"), Path(clone).expanduser()


def _resolved(options: argparse.Namespace, project: Project | None) -> tuple[str, Path]:
    """The commit that REV leads to (a tag is peeled), and the clone that has it."""
    where = options.upstream or (project and os.environ.get("PATCHFORGE_UPSTREAM")) or f"{HOST}/{options.repository}"
    if project:
        with open_upstream(where, project=project) as upstream:
            commit = upstream.resolve(options.rev).commit
        url = project.current_url(where)
        return commit, CachedClone.of(url).path if is_url(where) else Path(where).expanduser()
    clone = CachedClone.of(where) if is_url(where) else None
    made = clone.ensure() if clone else True
    path = clone.path if clone else Path(where).expanduser()
    with GitObjects(path) as objects:
        named = _named(objects, options.rev)
        if clone and not made and not (named and _COMMIT.fullmatch(options.rev)):
            clone.fetch()  # a tag or branch may be new, or have moved
            objects.close()
            named = _named(objects, options.rev)
    if named:
        return named, path
    raise PatchforgeError(
        f"{clone.origin if clone else path} has no {options.rev!r}",
        expected="a commit, tag or branch",
        found="no such name",
        do="check the spelling; fetch the clone; or name GitHub's tarball with --from",
    )


def _named(objects: GitObjects, rev: str) -> str | None:
    return objects.commit(f"refs/tags/{rev}") or objects.commit(rev)


def _commit_of(rev: str, project: Project | None) -> str:
    """The commit that a release of the index, or an id in full, names; "" for any other name."""
    if _COMMIT.fullmatch(rev):
        return rev
    try:
        version = Version.parse(rev)
    except ValueError:
        return ""
    index = release_index(project) if project else []
    return next((release.commit for release in index if release.version == version), "")


def _show(result: dict[str, Any]) -> None:
    if "files" in result and isinstance(result["files"], list):
        for file in result["files"]:
            print(f"{file['hash']}  {file['file']}  ({file['provenance']}{', yanked' if file['yanked'] else ''})")
        return
    print(f"repository  {result['owner']}/{result['repo']}")
    print(f"rev         {result['rev']}" + (f" ({result['ref']})" if result["ref"] != result["rev"] else ""))
    print(f"hash        {result['hash']}")
    print(f"provenance  {_provenance(result)}")
    for note in result["notes"]:
        paths = note["paths"][:_SHOWN]
        more = f" and {len(note['paths']) - _SHOWN} more" if len(note["paths"]) > _SHOWN else ""
        print(f"note        {note['kind']}: {note['text']}: {', '.join(paths)}{more}")


def _provenance(result: dict[str, Any]) -> str:
    if result["provenance"] == "published":
        return f"published by {result['published_by']}, not computed: {result['because'].splitlines()[0]}"
    submodules = ", fetchSubmodules = true" if result["fetchSubmodules"] else ""
    return f"computed from {result['source']}: {result['files']} files, {result['bytes']} bytes{submodules}"
