"""Pins of repositories: commit, date, hash, and the Python requirements that a node pack names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, TypeVar

from patchforge import escape, web
from patchforge.errors import CheckFailed, Damaged, PatchforgeError
from patchforge.git.clone import CachedClone, is_url
from patchforge.git.command import split_setting
from patchforge.git.objects import UnreadableError
from patchforge.hashes import of_checkout, of_clone
from patchforge.hashes.fetchfromgithub import HOST
from patchforge.hashes.objects import HashedObjects, IncompleteTreeError, isolated
from patchforge.pins import requirements
from patchforge.pins.claims import Claim
from patchforge.pins.pin_files import RepositoryPin, SourcePin
from patchforge.pins.tracked import TrackedRepository
from patchforge.sources import GitObjects


@dataclass(slots=True)
class Clones:
    """Where clones are: those named on the command line (by pin, or pin and submodule path), else cached ones."""

    named: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str, url: str) -> Path:
        """A clone on this machine; one of a remote is made or brought up to date first."""
        where = self.named.get(name, url)
        if not is_url(where):
            return Path(where).expanduser()
        clone = CachedClone.of(where)
        if not clone.ensure():
            clone.fetch()
        return clone.path


class HashFields(TypedDict, total=False):
    """What a pin says of its hash."""

    hash: str
    hash_source: str
    published_by: str
    missing: dict[str, str]


def pin(repository: TrackedRepository, clones: Clones, claims: Mapping[str, Claim]) -> RepositoryPin:
    """The pin of the commit that is followed; without ``hash``, and with ``missing``, when nothing gives its hash.

    PatchforgeError when the clone cannot be had or lacks the branch or tag.
    """
    clone = clones.path(repository.name, repository.url)
    commit = _commit(repository, clone)
    owner, repo = repository.owner_and_repo
    with isolated(clone) as objects:
        date = objects.date(commit).date().isoformat()
        required = _requirements(repository, objects, commit) if repository.group else []
    return RepositoryPin(
        owner=owner,
        repo=repo,
        rev=commit,
        date=date,
        license=repository.license,
        submodules=repository.submodules,
        group=repository.group,
        requirements=tuple(required),
        version=repository.version,
        tag=f"v{repository.version}" if repository.version else "",
        vendor_hash=repository.vendor_hash,
        **source_hash(clone, commit, claims, _submodules(repository, clone, commit, clones)),
    )


def source_hash(
    clone: Path, commit: str, claims: Mapping[str, Claim], submodules: Mapping[str, Path] | None = None
) -> HashFields:
    """``hash`` and ``hash_source``: computed from a complete clone, else published for this very commit.

    With neither, ``missing`` maps the paths that the clone lacks to their blob ids. CheckFailed when the computed
    hash is not the published one.
    """
    claim = None if submodules else claims.get(commit)
    try:
        text = (of_checkout(clone, commit, submodules) if submodules else of_clone(clone, commit)).hash
    except IncompleteTreeError as error:
        if claim:
            return {"hash": claim.hash, "hash_source": "published", "published_by": claim.published_by}
        return {"missing": dict(sorted(error.missing.items()))}
    if claim and claim.hash != text:
        raise CheckFailed(
            f"the hash of {commit} is not the published one",
            expected=f"{claim.hash}, says {claim.published_by}",
            found=f"{text}, of {clone}",
            do="find out which source differs; nothing is pinned to either",
        )
    return {"hash": text, "hash_source": "computed"}


_Source = TypeVar("_Source", bound=SourcePin)


def with_known_hash(pin: _Source, before: SourcePin | None) -> _Source:
    """``pin`` with the hash that was computed for the same commit before, should the source be incomplete now.

    CheckFailed when both are computed and differ.
    """
    if before is None or before.rev != pin.rev or before.hash_source != "computed" or pin == before:
        return pin
    if pin.hash and pin.hash != before.hash:
        raise CheckFailed(
            f"{pin.rev} has another hash now",
            expected=f"{before.hash}, as pinned",
            found=f"{pin.hash}, {pin.hash_source}",
            do="find out which is right; nothing is changed",
        )
    return replace(pin, hash=before.hash, hash_source="computed", published_by="", missing={})


def _commit(repository: TrackedRepository, clone: Path) -> str:
    names = [f"refs/heads/{repository.branch}", f"refs/remotes/origin/{repository.branch}"] if repository.branch else []
    names += [f"refs/tags/v{repository.version}"] if repository.version else []
    with GitObjects(clone) as objects:
        commit = next(filter(None, map(objects.commit, names)), None)
    if commit is None:
        raise PatchforgeError(
            f"{clone} has no {repository.branch or 'v' + repository.version}",
            expected="the branch or tag in "
            + (f"upstream/nodes/{repository.name}.toml" if repository.group else f"{repository.name}.toml"),
            found="no such name",
            do="fetch the clone, or correct the file",
        )
    return commit


def _requirements(repository: TrackedRepository, objects: HashedObjects, commit: str) -> list[str]:
    text = (
        _content(objects, f"{commit}:{repository.requirements}").decode("utf-8", "replace")
        if repository.requirements
        else ""
    )
    named = requirements.of_file(text)
    left_out = {requirements.parse(text).name for text in repository.without}
    if unknown := left_out - {requirements.parse(text).name for text in named}:
        raise PatchforgeError(
            f"{repository.name} does not name what is to be left out",
            expected=f"a name in {repository.requirements}",
            found=", ".join(sorted(unknown)),
            do=f"correct `without` in upstream/nodes/{repository.name}.toml",
        )
    kept = [text for text in named if requirements.parse(text).name not in left_out]
    return sorted({*kept, *(str(requirements.parse(text)) for text in repository.also)})


def _content(objects: HashedObjects, name: str) -> bytes:
    try:
        return objects.read(name, b"blob")[1]
    except UnreadableError as error:
        raise objects.failed("cat-file", f"{name}: {error}") from error


def _submodules(repository: TrackedRepository, clone: Path, commit: str, clones: Clones) -> dict[str, Path]:
    """Clones of a commit's submodules, by path."""
    if not repository.submodules:
        return {}
    with isolated(clone) as objects:
        paths = [os.fsdecode(blob.path) for blob in objects.listing(commit) if blob.is_submodule]
        text = _content(objects, f"{commit}:.gitmodules") if paths else b""
        listed = objects.run("config", "--file", "-", "--no-includes", "--list", "--null", given=text)
    settings = dict(split_setting(pair) for pair in os.fsdecode(listed).split("\0") if pair)
    names = {value: key.removesuffix(".path") for key, value in settings.items() if key.endswith(".path")}
    urls = {path: settings.get(f"{names.get(path)}.url", "") for path in paths}
    return {
        path: clones.path(f"{repository.name}/{path}", _submodule_url(repository, path, urls[path], clones))
        for path in paths
    }


def _submodule_url(repository: TrackedRepository, path: str, reference: str, clones: Clones) -> str:
    """Where .gitmodules says that a submodule is. Damaged for what is not https: a stranger wrote that file."""
    if f"{repository.name}/{path}" in clones.named:
        return ""
    if not reference:
        raise Damaged(
            f"{repository.name} does not say where its submodule {escape.line(path)} is",
            expected=".gitmodules",
            do="tell its authors, or pin another commit",
        )
    relative = reference.startswith(("./", "../"))
    return web.followed(f"{repository.url.removesuffix('/')}/" if relative else repository.url, reference, secret=False)


def archive_url(pin: SourcePin, host: str = HOST) -> str:
    """GitHub's tarball of a pinned commit."""
    return f"{host}/{pin.owner}/{pin.repo}/archive/{pin.rev}.tar.gz"
