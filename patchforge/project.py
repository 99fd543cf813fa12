"""What patchforge tracks: the projects declared in ``upstream/``, their indexes, and how a tree states its version."""

from __future__ import annotations

import re
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchforge import documents, resources
from patchforge.errors import Damaged, PatchforgeError
from patchforge.vocabulary import Release, Version

if TYPE_CHECKING:
    from patchforge.vocabulary import Tree

_TEXTS = ("name", "title", "url", "index", "tag", "version_file")
_CHANNELS = ("releases", "tags", "both")
_MOST = 1 << 20  #: bytes of a file that may state a version
_STATED = re.compile(rb"""^__version__\s*(?::[^=\n]*)?=\s*["']([^"'\n]+)["']""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Track:
    """Which new versions are taken, and how old they must be (the table ``[track]``). Days are 24 hours."""

    channel: str = "both"  #: releases: GitHub's releases only; tags: GitHub is not asked; both
    release_days: float = 0
    tag_days: float = 3  #: of a tag that has no release, when the channel is ``both``


@dataclass(frozen=True, slots=True)
class Project:
    """One tracked project, as its TOML under ``upstream/`` declares it."""

    name: str
    title: str
    url: str
    index: Path  #: the release index: tab-separated version, commit, date
    tag: str  #: how a release's tag is written, with ``{version}`` for the bare number
    version_file: str  #: the file of a tree that states ``__version__``
    former_urls: tuple[str, ...] = ()  #: addresses that lead to ``url`` by now
    track: Track = Track()

    def tag_of(self, version: Version) -> str:
        return self.tag.format(version=str(version).removeprefix("v"))

    def version_of(self, tag: str) -> Version | None:
        """The version that a tag names; None when it is not a release's tag (such as ``latest``)."""
        head, tail = self.tag.split("{version}")
        version = parsed_version(tag.removeprefix(head).removesuffix(tail))
        return version if version and self.tag_of(version) == tag else None

    def current_url(self, url: str) -> str:
        """``url`` in one spelling; a former address of the project becomes the present one."""
        plain = _plain(url)
        return self.url if plain in {_plain(known) for known in (self.url, *self.former_urls)} else url


def load_project(name: str = "comfyui", *, folder: Path | None = None) -> Project:
    """The project declared in ``<folder>/<name>.toml``; ``folder`` is ``upstream/`` unless given."""
    folder = folder or resources.path("upstream")
    path = folder / f"{name}.toml"
    try:
        declared = documents.read_toml(path)
    except FileNotFoundError:
        known = ", ".join(sorted(each.stem for each in folder.glob("*.toml"))) or "none"
        raise PatchforgeError(
            f"no project is called {name!r}", expected=f"one of: {known}", found=str(path), do="name one of these"
        ) from None
    return _project(declared, path)


def _project(declared: dict[str, Any], path: Path) -> Project:
    wrong = [key for key in _TEXTS if not isinstance(declared.get(key), str)]
    wrong += sorted(declared.keys() - {*_TEXTS, "former_urls", "track"})
    former = declared.get("former_urls", [])
    if not (isinstance(former, list) and all(isinstance(url, str) for url in former)):
        wrong.append("former_urls")
    if not wrong and declared["tag"].count("{version}") != 1:
        wrong.append("tag")
    if not _is_track(declared.get("track", {})):
        wrong.append("track")
    if wrong:
        raise Damaged(
            f"{path} does not declare a project",
            expected=f"the texts {', '.join(_TEXTS)}; {{version}} once in tag; a list of texts in former_urls; "
            f"in [track] channel ({', '.join(_CHANNELS)}), release_days and tag_days",
            found="missing, unknown or malformed: " + ", ".join(wrong),
            do="correct the file",
        )
    texts = {key: declared[key] for key in _TEXTS}
    track = Track(**declared.get("track", {}))
    return Project(**{**texts, "index": path.parent / texts["index"]}, former_urls=tuple(former), track=track)


def _is_track(declared: object) -> bool:
    if not isinstance(declared, dict) or declared.keys() - {"channel", "release_days", "tag_days"}:
        return False
    days = [declared[key] for key in ("release_days", "tag_days") if key in declared]
    return declared.get("channel", "both") in _CHANNELS and all(type(day) in (int, float) and day >= 0 for day in days)


def release_index(project: Project) -> list[Release]:
    """The releases that the project's index lists, oldest version first."""
    try:
        lines = documents.read_text(project.index).splitlines()
    except FileNotFoundError:
        problem = f"the release index of {project.title} is not there"
        raise PatchforgeError(problem, expected=str(project.index), do=documents.RESTORE) from None
    numbered = enumerate(lines[1:], start=2)
    releases = [_indexed(line, f"{project.index}:{number}") for number, line in numbered if line.strip()]
    seen: set[Version] = set()
    for release in releases:
        if release.version in seen:
            raise Damaged(f"{project.index} lists {release.version} twice", do="delete one of the two lines")
        seen.add(release.version)
    return sorted(releases, key=lambda release: release.version)


def _indexed(line: str, place: str) -> Release:
    version, commit = [*line.split("\t"), ""][:2]
    try:
        if re.fullmatch("[0-9a-f]{40}", commit):
            return Release(Version.parse(version), commit)
    except ValueError:
        pass
    expected = "version, commit of 40 hex digits, date; separated by tabs"
    raise Damaged(
        f"{place} is not a line of a release index",
        expected=expected,
        found=repr(line[:200]),
        do="correct the file; git checkout brings back the one of this patchforge",
    )


def recognise(tree: Tree, project: Project) -> Version | None:
    """The version that a tree states in its version file, or else in ``pyproject.toml``; None when it states none."""
    stated = [_version_file, _pyproject]
    versions = (state(tree, project) for state in stated)
    return next((version for version in versions if version), None)


def _version_file(tree: Tree, project: Project) -> Version | None:
    with suppress(KeyError):
        match = _STATED.search(tree.read(project.version_file)[:_MOST])
        return parsed_version(match[1].decode("utf-8", "replace")) if match else None
    return None


def _pyproject(tree: Tree, project: Project) -> Version | None:  # noqa: ARG001 - the same shape as _version_file
    with suppress(KeyError, TypeError, ValueError, RecursionError):  # a stranger's file states nothing, or a version
        data = tree.read("pyproject.toml")
        return parsed_version(str(tomllib.loads(data.decode())["project"]["version"])) if len(data) <= _MOST else None
    return None


def parsed_version(text: str) -> Version | None:
    """The version that a text is, if it is one."""
    try:
        return Version.parse(text)
    except ValueError:
        return None


def _plain(url: str) -> str:
    return url.rstrip("/").removesuffix(".git").lower()
