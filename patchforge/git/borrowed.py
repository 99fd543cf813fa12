"""Somebody's repository, read through a git folder of our own.

Git obeys what it finds in a repository: settings that name programs (core.fsmonitor, core.sshCommand, filters, drivers,
…) or other files (include.path), hooks, grafts, replacement objects, a remote from which missing objects are fetched.
None of that is in a folder that we write: it has settings of ours, the repository's refs as we read them, and its
objects as an alternate, which git only reads.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import unquote, urlsplit

from patchforge import faults
from patchforge.errors import Damaged, PatchforgeError, SystemFault
from patchforge.git.command import git, split_setting

_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
#: As git check-ref-format has it.
_ODD_NAME = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{|(?:^|/)\.|\.lock(?:/|$)|[/.]$")
_SMALL, _LARGE = 1 << 16, 1 << 28  #: bytes: of a file with one ref, and of a file with all of them
_MOST_REFS = 2_000_000
_LONGEST_CHAIN = 5  #: of symbolic refs, and of alternates, as in git
_FORMATS = {"sha1", "sha256"}
#: What a repository may say that it is, without being another one than we read.
_EXTENSIONS = frozenset(
    ["noop", "noop-v1", "partialclone", "preciousobjects", "worktreeconfig", "relativeworktrees", "compatobjectformat"]
)
NOT_AN_ID = "it does not hold the id of an object"
_NOWHERE = "refs/patchforge/none"  #: what HEAD leads to where the repository's cannot be read


class NotARepositoryError(PatchforgeError):
    """There is no repository at a path."""


class OddRef(NamedTuple):
    """A ref that is passed over, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class RepositoryPlace:
    """Where the parts of a repository are. Reading them starts no git in it."""

    path: Path  #: as it was named
    folder: Path  #: with HEAD
    common: Path  #: with refs, settings and objects; another one in a worktree

    @property
    def objects(self) -> Path:
        return self.common / "objects"

    @cached_property
    def settings(self) -> tuple[tuple[str, str], ...]:
        """The repository's own settings, without files that they include. Damaged when git cannot read them."""
        text = _read(self.common / "config", _SMALL * 16)
        if not text:
            return ()
        given = text.decode("utf-8", "surrogateescape")
        done = git("config", "--file", "-", "--no-includes", "-z", "--list", given=given)
        if done.returncode:
            said = done.stderr.strip()
            raise Damaged(f"the settings of {self.path} cannot be read", found=said, do="correct .git/config")
        return tuple(split_setting(pair) for pair in done.stdout.split("\0") if pair)

    def values(self, key: str) -> list[str]:
        """Every value of a setting whose name matches the pattern ``key``, which is in lower case."""
        return [value for name, value in self.settings if re.fullmatch(key, name)]

    @cached_property
    def shallow(self) -> tuple[str, ...]:
        """The commits at which a shallow clone ends."""
        lines = _read(self.common / "shallow", _LARGE).decode("ascii", "replace").split("\n")
        return tuple(line for line in lines if _ID.fullmatch(line))

    @cached_property
    def refs(self) -> tuple[Mapping[str, str], tuple[OddRef, ...]]:
        """Name → object id of every ref in files, and what is passed over."""
        targets, odd = _packed(_read(self.common / "packed-refs", _LARGE))
        links: dict[str, str] = {}
        for name, text in _loose(self.common / "refs"):
            if why := _why_odd(name):
                odd.append(OddRef(name, why))
            elif _ID.fullmatch(text):
                targets[name] = text
            elif text.startswith("ref:"):
                targets.pop(name, None)
                links[name] = text[4:].strip()
            else:
                odd.append(OddRef(name, NOT_AN_ID))
        for name, target in links.items():
            if oid := _followed(name, links, targets):
                targets[name] = oid
            else:
                odd.append(OddRef(name, f"leads to {target}, which is not there"))
        return targets, tuple(sorted(odd))

    @cached_property
    def head(self) -> str:
        """What HEAD says: ``ref: NAME``, an id, or "" when it cannot be read."""
        text = _read(self.folder / "HEAD", _SMALL).decode("utf-8", "surrogateescape").strip()
        if text.startswith("ref:") and not _why_odd(name := text[4:].strip()):
            return f"ref: {name}"
        return text if _ID.fullmatch(text) else ""

    @property
    def format(self) -> dict[str, str]:
        """Hash and storage of refs, as settings. PatchforgeError for a kind of repository that we do not read."""
        stated = {name[11:]: value for name, value in self.settings if name.startswith("extensions.")}
        kind: dict[str, str] = {}
        for key in {"objectformat", "refstorage"} & stated.keys():
            kind[key] = stated.pop(key).lower()
        strange = sorted(stated.keys() - _EXTENSIONS)
        strange += [
            text for key, text in kind.items() if text not in (_FORMATS if key[0] == "o" else {"files", "reftable"})
        ]
        if strange:
            raise PatchforgeError(
                f"{self.path} is a kind of repository that patchforge does not read",
                found=f"extensions: {', '.join(strange)}",
                do="git clone it, and name the clone",
            )
        return kind


def find(path: Path) -> RepositoryPlace:
    """The repository at ``path``: a bare one, a checkout, worktree or submodule. PatchforgeError if there is none."""
    try:
        folder = _git_folder(path)
        text = _read(folder / "commondir", _SMALL).decode("utf-8", "surrogateescape").rstrip("\n")
        place = RepositoryPlace(path, folder, folder / text if text else folder)
        if os.path.lexists(folder / "HEAD") and place.objects.is_dir() and (place.common / "refs").is_dir():
            return place
        found = "a folder without git's files" if path.is_dir() else "a file" if path.exists() else "no such folder"
    except (OSError, ValueError) as error:
        found = faults.reason(error)
    raise NotARepositoryError(
        f"{path} is not a git repository",
        expected="a bare or ordinary clone",
        found=found,
        do="name a clone's top folder",
    )


def head(path: Path) -> str:
    """The commit that HEAD of a repository leads to; "" for none."""
    try:
        place = find(path)
        text = place.head
        if text.startswith("ref:") and "refstorage" in place.format:
            with Borrowed(path) as opened:
                return opened.ask("rev-parse", "--verify", "--quiet", "HEAD")
    except PatchforgeError:
        return ""
    return place.refs[0].get(text[5:], "") if text.startswith("ref:") else text


def checked_out(folder: Path) -> str:
    """The commit that a checkout stands on; "" for a folder that is not a checkout, and before its first commit."""
    return head(folder) if os.path.lexists(folder / ".git") else ""


class Borrowed:
    """A git folder of ours for somebody's repository. It shows the refs as they were when it was made."""

    def __init__(self, path: Path) -> None:
        """PatchforgeError when ``path`` is not a repository, or one that cannot be read."""
        self.place = find(path)
        kind = self.place.format
        _require_files(self.place.objects)
        self.folder = Path(tempfile.mkdtemp(prefix="patchforge-git-"))
        self._remove = weakref.finalize(self, _remove, self.folder, os.getpid())
        try:
            _write(self.folder, self.place, kind)
        except OSError as error:
            self.close()
            raise SystemFault(
                f"a folder for reading {path} cannot be made", found=faults.reason(error), do="check the disk"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._remove()

    def ask(self, *arguments: str) -> str:
        """What a git command prints, without the last line end; "" when it fails."""
        done = git(*arguments, repository=self.folder)
        return done.stdout.rstrip("\n") if done.returncode == 0 else ""


@contextmanager
def source_of(address: str) -> Iterator[str]:
    """What git is given to reach an address: for one on this machine a folder of ours, without its settings.

    PatchforgeError for a ``file://`` address without a repository.
    """
    if not address.lower().startswith("file://"):
        yield address
        return
    with Borrowed(Path(unquote(urlsplit(address).path))) as borrowed:
        yield borrowed.folder.as_uri()


def _git_folder(path: Path) -> Path:
    inside = path / ".git"
    if not os.path.lexists(inside):
        return path
    if not inside.is_file():
        return inside
    text = _read(inside, _SMALL).decode("utf-8", "surrogateescape")
    if not text.startswith("gitdir: "):
        raise ValueError(f"{inside} does not say where its repository is")
    return path / text.removeprefix("gitdir: ").rstrip("\n")


def _read(path: Path, most: int) -> bytes:
    """A file's bytes; none for one that is not there. Damaged for what is not a file, or larger than ``most`` bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except OSError as error:
        raise SystemFault(f"{path} cannot be read", found=faults.reason(error), do="check its permissions") from error
    with os.fdopen(descriptor, "rb") as stream:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode) or about.st_size > most:
            found = f"{about.st_size} bytes" if stat.S_ISREG(about.st_mode) else "not a file"
            raise Damaged(
                f"{path} is not what git writes",
                expected=f"a file of at most {most} bytes",
                found=found,
                do="git fsck says what is wrong; a fresh clone mends it",
            )
        return stream.read(most + 1)


def _packed(text: bytes) -> tuple[dict[str, str], list[OddRef]]:
    targets: dict[str, str] = {}
    odd: list[OddRef] = []
    for line in text.decode("utf-8", "surrogateescape").split("\n"):
        if not line or line[0] in "#^":
            continue
        oid, space, name = line.partition(" ")
        why = "" if _ID.fullmatch(oid) and space else NOT_AN_ID
        if why := why or _why_odd(name):
            odd.append(OddRef(name or oid, why))
        else:
            targets[name] = oid
    return targets, odd


def _loose(top: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each file below a folder of refs. Links are not followed."""
    left, count = [("refs", top)], 0
    while left:
        name, folder = left.pop()
        with _scanned(folder) as items:
            for item in items:
                count += 1
                below = f"{name}/{item.name}"
                if count > _MOST_REFS or len(below) > _SMALL:
                    raise Damaged(
                        f"{top} holds more refs than can be read",
                        expected=f"at most {_MOST_REFS}",
                        do="name a clone with fewer, or a release as an archive",
                    )
                if item.is_dir(follow_symlinks=False):
                    left.append((below, folder / item.name))
                else:
                    yield below, _ref_text(Path(item.path), plain=item.is_file(follow_symlinks=False))


def _ref_text(path: Path, *, plain: bool) -> str:
    try:
        return _read(path, _SMALL).decode("utf-8", "surrogateescape").rstrip() if plain else ""
    except (Damaged, SystemFault):
        return ""


@contextmanager
def _scanned(folder: Path) -> Iterator[Iterable[os.DirEntry[str]]]:
    try:
        items = os.scandir(folder)
    except OSError as error:
        raise SystemFault(f"{folder} cannot be read", found=faults.reason(error), do="check its permissions") from error
    with items:
        yield items


def _why_odd(name: str) -> str:
    if not name.startswith("refs/"):
        return "not below refs/"
    return "not a name that git allows" if _ODD_NAME.search(name) else ""


def _followed(name: str, links: Mapping[str, str], targets: Mapping[str, str]) -> str:
    for _ in range(_LONGEST_CHAIN):
        if name not in links:
            break
        name = links[name]
    return targets.get(name, "")


def _require_files(objects: Path, depth: int = 0) -> None:
    """Damaged where git would wait for ever: for a pipe or a device among the objects, or those that are borrowed."""
    names = ["", "pack", "info", *(f"{number:02x}" for number in range(256))]
    for folder in (f"{objects}/{name}" for name in names):
        if not os.path.isdir(folder):  # noqa: PTH112 - of 259 names, for every repository that is opened
            continue
        with _scanned(Path(folder)) as items:
            for item in items:
                if not item.is_dir() and not item.is_file() and Path(item.path).exists():
                    raise Damaged(
                        f"{item.path} is not a file",
                        expected="objects as git writes them",
                        found="a device or pipe",
                        do="git fsck says what is wrong; a fresh clone mends it",
                    )
    for line in _read(objects / "info" / "alternates", _SMALL).decode("utf-8", "surrogateescape").split("\n"):
        if line and line[0] != "#" and depth < _LONGEST_CHAIN and (objects / line).is_dir():
            _require_files(objects / line, depth + 1)


def _write(folder: Path, place: RepositoryPlace, kind: Mapping[str, str]) -> None:
    (folder / "objects" / "info").mkdir(parents=True)
    (folder / "refs").mkdir()
    lines = ["[core]", f"\trepositoryformatversion = {int(bool(kind))}", "\tbare = true"]
    lines += ["[uploadpack]", "\tallowFilter = true", "\tallowAnySHA1InWant = true"]
    lines += ["[extensions]", *(f"\t{key} = {value}" for key, value in kind.items())] if kind else []
    (folder / "config").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "HEAD").write_bytes(os.fsencode(place.head or f"ref: {_NOWHERE}") + b"\n")
    (folder / "objects" / "info" / "alternates").write_bytes(_quoted(os.fsencode(place.objects.absolute())) + b"\n")
    if place.shallow:
        (folder / "shallow").write_text("".join(f"{oid}\n" for oid in place.shallow))
    if kind.get("refstorage") == "reftable":
        _copy_tables(place.common / "reftable", folder / "reftable")
    refs = sorted((os.fsencode(name), oid.encode()) for name, oid in place.refs[0].items())
    (folder / "packed-refs").write_bytes(
        b"# pack-refs with: sorted \n" + b"".join(b"%s %s\n" % (oid, name) for name, oid in refs)
    )


def _quoted(path: bytes) -> bytes:
    """A path as git reads it in a file of lines."""
    return b'"' + re.sub(rb'["\\\x00-\x1f]', lambda match: b"\\%03o" % match[0][0], path) + b'"'


def _copy_tables(tables: Path, to: Path) -> None:
    """Refs in git's binary form, which holds nothing but refs."""
    to.mkdir()
    listed = _read(tables / "tables.list", _SMALL)
    (to / "tables.list").write_bytes(listed)
    for name in listed.decode("ascii", "replace").split("\n"):
        if re.fullmatch(r"[\w-]+\.ref", name, re.ASCII):
            (to / name).write_bytes(_read(tables / name, _LARGE))


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a child that has the same objects
        shutil.rmtree(folder, ignore_errors=True)
