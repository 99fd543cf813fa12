"""Trees read from git objects without a checkout.

One ``git cat-file --batch`` process serves every tree of a repository. Folders are parsed once and shared between
releases: most of them stay the same from one release to the next.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from patchforge import bounded
from patchforge.errors import Damaged, PatchforgeError
from patchforge.names import odd
from patchforge.sources.borrowed import Borrowed, OddRef, find
from patchforge.sources.command import git, git_environment, start_git
from patchforge.sources.missing import MissingBlobError
from patchforge.vocabulary import Entry

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FOLDER, _LINK, _SUBMODULE = 0o040000, 0o120000, 0o160000
_FILE = 0o100000
_HEADER = re.compile(rb"([0-9a-f]{40}(?:[0-9a-f]{24})?) ([a-z]+) (\d+)\n")
_REASONS = {_LINK: "symbolic link", _SUBMODULE: "submodule"}
_TREE = re.compile(rb"tree ([0-9a-f]{40}(?:[0-9a-f]{24})?)\n")
_COMMITTED = re.compile(rb"^committer [^\n]* (-?\d{1,18}) ([+-]\d{4})$", re.MULTILINE)
_MOST_BYTES = 1 << 28  #: of one object; ComfyUI's largest file has 2 MB
_MOST_FILES = 1_000_000  #: of one commit; a few small trees can name each other 10**10 times


class UnreadableError(LookupError):
    """Git has no such object, or cannot say which one is meant; ``str()`` is git's reason."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a tree that is not a regular file, or oddly named, and why it is left out."""

    path: str
    reason: str


class Listing(NamedTuple):
    entries: Mapping[str, Entry]
    skipped: tuple[Skipped, ...]


def import_git() -> Any:
    """GitPython, imported on first use (it costs 50 ms); an error a person can act on when git is not installed."""
    try:
        with _plain_environment():
            import git  # noqa: PLC0415 - keeps start-up light
    except ImportError as error:
        problem = "git cannot be run"
        raise PatchforgeError(problem, expected="a git command on PATH", found=str(error), do="install git") from error
    return git


@contextmanager
def _plain_environment() -> Iterator[None]:
    """GitPython starts ``git version`` when it is imported, with all that this process's environment has."""
    before, plain = dict(os.environ), git_environment(["version"])
    os.environ.clear()
    os.environ.update(plain)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def _command_type() -> Any:
    """GitPython's commands, started as every git of ours is.

    Its own ``execute`` passes the whole environment on, and its ``Repo`` obeys GIT_COMMON_DIR and GIT_OBJECT_DIRECTORY.
    """

    class Command(import_git().Git):  # type: ignore[misc]
        def execute(self, command: list[str], **_: Any) -> Any:
            return self.AutoInterrupt(start_git(*command[1:], repository=self._working_dir), command)

    return Command


class GitObjects:
    """The objects of one repository, bare or not, through a git folder of our own. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        """PatchforgeError when ``path`` is not a repository."""
        self.path = path
        find(path)
        self._opened: Borrowed | None = None
        self._process: Any = None
        self._folders: dict[tuple[str, str], tuple[Entry | Skipped, ...]] = {}
        self._listings: dict[str, Listing] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the git process and forget the refs. Reading afterwards starts another, which sees them as they are."""
        self._end()
        if self._opened:
            self._opened.close()
        self._opened = None

    def commit(self, name: str) -> str | None:
        """The id of the commit that a ref, tag or (abbreviated) id leads to; None when git knows none."""
        if not name:
            return None
        try:
            return self._object(name + "^{commit}", b"commit")[0]
        except UnreadableError:
            self._refuse_ambiguous(name)
            return None

    def _refuse_ambiguous(self, name: str) -> None:
        try:
            self._object(name)
        except UnreadableError as error:
            if str(error) == "ambiguous":
                problem = f"{name} is the beginning of more than one object id in {self.path}"
                raise PatchforgeError(problem, do="write more of its digits") from error

    def blob(self, oid: str) -> bytes:
        """The bytes of a blob; UnreadableError when the repository lacks it, or has another content under its id."""
        return self._object(oid, b"blob")[1]

    def date(self, commit: str) -> datetime:
        """When a commit was made, as its committer's git wrote it. Damaged when it is not there or has no such date."""
        try:
            data = self._object(commit, b"commit")[1]
        except UnreadableError as error:
            raise Damaged(f"{commit} is not a commit that can be read", found=str(error)) from error
        return commit_date(commit, data)

    def listing(self, commit: str) -> Listing:
        """The files of a commit, sorted by path. Needs no blob."""
        if commit not in self._listings:
            try:
                found = self._folder(tree_of(self._object(commit, b"commit")[1]), "")
            except UnreadableError as error:
                raise PatchforgeError(
                    f"the files of {commit} cannot be listed",
                    expected=f"a commit with all its folders in {self.path}",
                    found=str(error),
                    do="fetch the commit, or use a clone that has it",
                ) from error
            entries = {each.path: each for each in sorted(_files(found), key=lambda each: each.path)}
            skipped = tuple(each for each in found if isinstance(each, Skipped))
            self._listings[commit] = Listing(MappingProxyType(entries), skipped)
        return self._listings[commit]

    def tags(self) -> list[str]:
        """Names of tags, without ``refs/tags/``, in order. What they lead to is not looked at."""
        return self._refs("refs/tags/")

    def branches(self) -> list[str]:
        """Names of branches, without ``refs/heads/`` or ``refs/remotes/``."""
        return [*self._refs("refs/heads/"), *self._refs("refs/remotes/")]

    def odd_refs(self) -> tuple[OddRef, ...]:
        """Refs that git could not read either: damaged, or oddly named."""
        return self._borrowed.place.refs[1]

    def commits(self, names: Iterable[str]) -> dict[str, str]:
        """Tag → id of the commit that it leads to; "" for one that leads to none."""
        refs = self._borrowed.place.refs[0]
        ids = {name: refs.get(f"refs/tags/{name}", "") for name in names}
        found = self._peeled({oid for oid in ids.values() if oid})
        return {name: found.get(oid, "") for name, oid in ids.items()}

    def _peeled(self, oids: Iterable[str]) -> dict[str, str]:
        asked = list(oids)
        given = "".join(f"{oid}^{{commit}}\n" for oid in asked)
        done = git("cat-file", "--batch-check", given=given, repository=self._borrowed.folder)
        answers = [line.split(" ") for line in done.stdout.split("\n")[:-1]]
        found = {oid: words[0] if words[1:2] == ["commit"] else "" for oid, words in zip(asked, answers, strict=False)}
        # Git dies over a damaged object; those after it are asked for one by one.
        return found | {oid: self.commit(oid) or "" for oid in asked[len(found) :]}

    def history(self, *names: str, paths: tuple[str, ...] = ()) -> list[str]:
        """Commit ids, newest first, as ``git rev-list`` selects them."""
        words = ("--literal-pathspecs", "rev-list", "--topo-order", "--end-of-options", *names, "--", *paths)
        done = git(*words, repository=self._borrowed.folder)
        if done.returncode:
            raise PatchforgeError(
                f"git rev-list failed in {self.path}",
                found=done.stderr.strip(),
                do="use a clone with its whole history (neither shallow nor damaged)",
            )
        return done.stdout.split()

    def is_shallow(self) -> bool:
        return bool(self._borrowed.place.shallow)

    @property
    def _borrowed(self) -> Borrowed:
        if self._opened is None:
            self._opened = Borrowed(self.path)
        return self._opened

    def _refs(self, top: str) -> list[str]:
        names: list[str]
        names = [name.removeprefix(top) for name in self._borrowed.place.refs[0] if name.startswith(top)]
        return sorted(names)

    def _object(self, name: str, kind: bytes = b"") -> tuple[str, bytes]:
        """Id and content of what ``name`` leads to, which has that id; UnreadableError for one of another ``kind``."""
        if "\n" in name:
            raise UnreadableError("a name of two lines")
        header = self._ask(name)
        match = _HEADER.fullmatch(header)
        if not match:
            raise UnreadableError(header.split()[-1].decode("utf-8", "replace") if header else self._end())
        oid, found, size = match[1].decode(), match[2], int(match[3])
        if size > _MOST_BYTES:
            self._stop()
            raise UnreadableError(f"{size} bytes, more than {_MOST_BYTES}")
        data = self._git().stdout.read(size + 1)
        if len(data) <= size:
            raise UnreadableError(f"breaks off after {len(data)} of {size} bytes: {self._end()}")
        if kind not in {b"", found}:
            raise UnreadableError(f"a {found.decode()}, not a {kind.decode()}")
        if object_id(found, data[:size], len(oid)) != oid:
            raise UnreadableError("corrupt: it is not what its id says")
        return oid, data[:size]

    def _ask(self, name: str) -> bytes:
        """The line with which git answers; empty when it died over the question."""
        process = self._git()
        try:
            process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        line: bytes = next(bounded.lines(process.stdout), b"")
        return line

    def _git(self) -> Any:
        if self._process is None:
            self._process = _command_type()(self._borrowed.folder).cat_file("--batch")
        return self._process.proc

    def _end(self) -> str:
        """End the git process; what it said last. The next read starts another."""
        if self._process is None:
            return ""
        _, said = self._process.proc.communicate()
        self._process = None
        lines = said.decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "git ended without a word")

    def _stop(self) -> None:
        """End the git process in the middle of an answer."""
        process, self._process = self._process, None
        process.proc.kill()
        process.proc.communicate()

    def _folder(self, oid: str, prefix: str) -> tuple[Entry | Skipped, ...]:
        # Git sorts a folder as if its name ended in "/", so this order is that of the whole paths.
        key = (oid, prefix)
        if key not in self._folders:
            self._folders[key] = tuple(self._walk(oid, prefix))
        return self._folders[key]

    def _walk(self, tree: str, prefix: str) -> Iterator[Entry | Skipped]:
        seen, count = set(), 0
        for mode, name, oid in parse_tree(self._object(tree, b"tree")[1], len(tree) // 2):
            base = name.decode("utf-8", "surrogateescape")
            path = prefix + base
            reason = ("listed twice" if base in seen else "") or ("/" in base and "a slash in its name") or odd(path)
            seen.add(base)
            found = (Skipped(path, reason),) if reason else self._one(mode, path, oid)
            count += len(found)
            if count > _MOST_FILES:
                raise Damaged(
                    f"{self.path}: a commit lists more files than can be read", expected=f"{_MOST_FILES} at most"
                )
            yield from found

    def _one(self, mode: int, path: str, oid: str) -> tuple[Entry | Skipped, ...]:
        if mode == _FOLDER:
            return self._folder(oid, path + "/")
        if mode & ~0o7777 != _FILE:
            return (Skipped(path, _REASONS.get(mode, "not a file")),)
        return (Entry(path, oid, 0o100755 if mode & 0o100 else 0o100644),)


def _files(found: Iterable[Entry | Skipped]) -> Iterator[Entry]:
    return (each for each in found if isinstance(each, Entry))


def tree_of(commit: bytes) -> str:
    """The id of the tree that a commit's content names; UnreadableError when it names none."""
    match = _TREE.match(commit)
    if match is None:
        raise UnreadableError("a commit that names no tree")
    return match[1].decode()


def parse_tree(data: bytes, width: int) -> Iterator[tuple[int, bytes, str]]:
    """Mode, name and object id of each item of a tree: ``<mode> <name>``, a zero byte, ``width`` bytes of the id.

    UnreadableError for what is not such a tree.
    """
    start = 0
    while start < len(data):
        end = data.find(b"\0", start)
        mode, _, name = data[start:end].partition(b" ")
        start, oid = end + 1 + width, data[end + 1 : end + 1 + width]
        if end < 0 or len(oid) != width or not re.fullmatch(b"[0-7]{1,7}", mode):
            raise UnreadableError("a folder that git could not have written")
        yield int(mode, 8), name, oid.hex()


def object_digest(kind: bytes, size: int, length: int) -> Any:
    """What gives an object's id of 40 (SHA-1) or 64 (SHA-256) digits once it is fed with ``size`` bytes."""
    method = hashlib.sha1 if length == 40 else hashlib.sha256
    return method(b"%s %d\0" % (kind, size), usedforsecurity=False)


def object_id(kind: bytes, data: bytes, length: int) -> str:
    """Git's id of an object, in ``length`` hex digits."""
    digest = object_digest(kind, len(data), length)
    digest.update(data)
    return str(digest.hexdigest())


def commit_date(commit: str, data: bytes) -> datetime:
    """When a commit was made, out of its content; Damaged when it does not say that, or names no year up to 9999."""
    head = data.partition(b"\n\n")[0]
    match = _COMMITTED.search(head)
    try:
        if match:
            minutes = int(match[2][:1] + b"1") * (int(match[2][1:3]) * 60 + int(match[2][3:]))
            zone = timezone(timedelta(minutes=minutes)) if abs(minutes) < 24 * 60 else UTC
            return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(match[1]))).astimezone(zone)
    except OverflowError:
        pass
    raise Damaged(f"the commit {commit} has no date that can be read", do="ask upstream; until then it is left out")


class GitTree:
    """The tree of one commit. Cheap to make: all of a repository's trees share its process and its listings."""

    def __init__(self, repo: GitObjects, commit: str, origin: str = "") -> None:
        self.commit = commit
        self.origin = f"{origin or repo.path} at {commit[:12]}"
        self._repo = repo

    def entries(self) -> Mapping[str, Entry]:
        return self._repo.listing(self.commit).entries

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Symbolic links and submodules."""
        return self._repo.listing(self.commit).skipped

    def read(self, path: str) -> bytes:
        """The file's bytes; KeyError when there is no such file, MissingBlobError when git lacks its content."""
        blob = self.entries()[path].blob
        try:
            return self._repo.blob(blob)
        except UnreadableError as error:
            raise MissingBlobError(path, blob, origin=self.origin, reason=str(error)) from error
