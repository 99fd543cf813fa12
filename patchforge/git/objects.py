"""The objects of a repository: read through one ``git cat-file`` process, bounded, and checked against their ids.

GitPython starts that process, by our door, and ends it when nobody reads any more. Its own readers are not used:
docs/architecture.md says why.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any, Self, cast

from patchforge import bounded
from patchforge.errors import Damaged, PatchforgeError
from patchforge.git.borrowed import Borrowed, OddRef, find
from patchforge.git.command import Settings, git, git_bytes, start_git
from patchforge.git.gitpython import reading

CHUNK = 1 << 16  #: bytes of a blob that are read at once

_HEADER = re.compile(rb"([0-9a-f]{40}(?:[0-9a-f]{24})?) ([a-z]+) (\d+)\n")
_TREE = re.compile(rb"tree ([0-9a-f]{40}(?:[0-9a-f]{24})?)\n")
_COMMITTED = re.compile(rb"^committer [^\n]* (-?\d{1,18}) ([+-]\d{4})$", re.MULTILINE)
_MOST_BYTES = 1 << 28  #: of an object that is read as a whole; ComfyUI's largest file has 2 MB
_SAID = 1 << 16  #: bytes of git's own words that are looked at


class UnreadableError(LookupError):
    """Git has no such object, or cannot say which one is meant; ``str()`` is git's reason."""


class Objects:
    """The objects of one repository, bare or not, through a git folder of our own. Not for two threads at once."""

    def __init__(self, path: Path, settings: Settings = ()) -> None:
        """PatchforgeError when ``path`` is not a repository. ``settings``: of the git that reads objects."""
        self.path, self._settings = path, settings
        find(path)
        self._opened: Borrowed | None = None
        self._process: Any = None
        self._said: IO[bytes] | None = None
        self._kind = b""  #: of the object that was found last
        self._unread = 0  #: bytes of a blob that is being read in pieces

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

    # objects

    def read(self, name: str, kind: bytes = b"") -> tuple[str, bytes]:
        """Id and content of what ``name`` leads to, which has that id; UnreadableError for one of another ``kind``."""
        oid, size = self._find(name, kind)
        if size > _MOST_BYTES:
            self._stop()
            raise UnreadableError(f"{size} bytes, more than {_MOST_BYTES}")
        data = self._running().stdout.read(size + 1)
        if len(data) <= size:
            raise UnreadableError(f"breaks off after {len(data)} of {size} bytes: {self._end()}")
        if object_id(self._kind, data[:size], len(oid)) != oid:
            raise UnreadableError("corrupt: it is not what its id says")
        return oid, data[:size]

    def pieces(self, oid: str, path: str) -> tuple[int, Iterator[bytes]]:
        """Size and content of a blob of any size, piece by piece; whatever is read next ends the pieces.

        UnreadableError when it is not there; Damaged, at the end, with the file's ``path`` for other content.
        """
        _, size = self._find(oid, b"blob")
        self._unread = size + 1
        return size, self._pieces(oid, size, path)

    def _pieces(self, oid: str, size: int, path: str) -> Iterator[bytes]:
        digest, stream, left = object_digest(b"blob", size, len(oid)), self._running().stdout, size
        while left and (piece := stream.read(min(left, CHUNK))):
            left -= len(piece)
            self._unread -= len(piece)
            digest.update(piece)
            yield piece
        if left or digest.hexdigest() != oid:
            found = f"{size - left} of {size} bytes: {self._end()}" if left else digest.hexdigest()
            raise Damaged(f"{path} is not what its id says", expected=oid, found=found, do="clone again")
        self._unread -= len(stream.read(1))

    def lacks(self, oids: Iterable[str]) -> list[bool]:
        """Which objects are not there, asked of all at once."""
        asked = list(oids)
        done = git("cat-file", "--batch-check", given="".join(f"{oid}\n" for oid in asked), repository=self._folder)
        answers = done.stdout.split("\n")[:-1]
        return [line.endswith(" missing") for line in answers] + [True] * (len(asked) - len(answers))

    def commit(self, name: str) -> str | None:
        """The id of the commit that a ref, tag or (abbreviated) id leads to; None when git knows none."""
        if not name:
            return None
        try:
            return self.read(name + "^{commit}", b"commit")[0]
        except UnreadableError:
            self._refuse_ambiguous(name)
            return None

    def _refuse_ambiguous(self, name: str) -> None:
        try:
            self.read(name)
        except UnreadableError as error:
            if str(error) == "ambiguous":
                problem = f"{name} is the beginning of more than one object id in {self.path}"
                raise PatchforgeError(problem, do="write more of its digits") from error

    def blob(self, oid: str) -> bytes:
        """The bytes of a blob; UnreadableError when the repository lacks it, or has another content under its id."""
        return self.read(oid, b"blob")[1]

    def date(self, commit: str) -> datetime:
        """When a commit was made, as its committer's git wrote it. Damaged when it is not there or has no such date."""
        try:
            data = self.read(commit, b"commit")[1]
        except UnreadableError as error:
            raise Damaged(
                f"{commit} is not a commit that can be read",
                found=str(error),
                do="git fsck says what is wrong; a fresh clone mends it",
            ) from error
        return commit_date(commit, data)

    def tree_of(self, commit: str) -> str:
        """The id of a commit's tree; UnreadableError when there is none."""
        match = _TREE.match(self.read(commit, b"commit")[1])
        if match is None:
            raise UnreadableError("a commit that names no tree")
        return match[1].decode()

    def tree(self, oid: str) -> Iterator[tuple[int, bytes, str]]:
        """Mode, name and id of each item of a tree, in its order; UnreadableError for what is not one."""
        return parse_tree(self.read(oid, b"tree")[1], len(oid) // 2)

    # refs and history

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
        commits = self._peeled({oid for oid in ids.values() if oid})
        return {name: commits.get(oid, "") for name, oid in ids.items()}

    def _peeled(self, oids: Iterable[str]) -> dict[str, str]:
        asked = list(oids)
        given = "".join(f"{oid}^{{commit}}\n" for oid in asked)
        done = git("cat-file", "--batch-check", given=given, repository=self._folder)
        answers = [line.split(" ") for line in done.stdout.split("\n")[:-1]]
        peeled = {oid: words[0] if words[1:2] == ["commit"] else "" for oid, words in zip(asked, answers, strict=False)}
        # Git dies over a damaged object; those after it are asked for one by one.
        return peeled | {oid: self.commit(oid) or "" for oid in asked[len(peeled) :]}

    def history(self, *names: str, paths: tuple[str, ...] = ()) -> list[str]:
        """Commit ids, newest first, as ``git rev-list`` selects them."""
        words = ("--literal-pathspecs", "rev-list", "--topo-order", "--end-of-options", *names, "--", *paths)
        done = git(*words, repository=self._folder)
        if done.returncode:
            raise PatchforgeError(
                f"git rev-list failed in {self.path}",
                found=done.stderr.strip(),
                do="use a clone with its whole history (neither shallow nor damaged)",
            )
        return done.stdout.split()

    def is_shallow(self) -> bool:
        """Whether the clone ends before its first commit."""
        return bool(self._borrowed.place.shallow)

    def _refs(self, top: str) -> list[str]:
        return sorted(name.removeprefix(top) for name in self._borrowed.place.refs[0] if name.startswith(top))

    # other commands of git

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        """What a git command prints; PatchforgeError with its own words when it fails."""
        done = git_bytes(*arguments, repository=self._folder, given=given)
        if done.returncode:
            raise self.failed(arguments[0], done.stderr)
        return done.stdout

    @contextmanager
    def piped(self, *arguments: str) -> Iterator[IO[bytes]]:
        """What a git command prints, as it comes; PatchforgeError when the command failed, even after all was read."""
        with tempfile.TemporaryFile() as said:
            process = start_git(*arguments, repository=self._folder, stderr=said)
            try:
                output = cast("IO[bytes]", process.stdout)
                yield output
                while output.read(CHUNK):
                    pass  # unread output would keep the process waiting
                status = process.wait()
            finally:
                process.kill()
                process.communicate()
            if status:
                raise self.failed(arguments[0], bounded.ended(said, _SAID))

    def failed(self, command: str, said: bytes | str) -> PatchforgeError:
        """What is said of a git command that failed."""
        words = (said.decode("utf-8", "replace") if isinstance(said, bytes) else said).strip()
        return PatchforgeError(
            f"git {command} failed in {self.path}",
            expected="a clone with every object of the revision",
            found=words or "git said nothing",
            do="use a complete clone (neither --filter nor damaged)",
        )

    # the process

    @property
    def _borrowed(self) -> Borrowed:
        if self._opened is None:
            self._opened = Borrowed(self.path)
        return self._opened

    @property
    def _folder(self) -> Path:
        return self._borrowed.folder

    def _find(self, name: str, kind: bytes) -> tuple[str, int]:
        """Id and size of what a name leads to; its content is what git says next."""
        if "\n" in name:
            raise UnreadableError("a name of two lines")
        header = self._ask(name)
        match = _HEADER.fullmatch(header)
        if not match:
            raise UnreadableError(header.split()[-1].decode("utf-8", "replace") if header else self._end())
        oid, self._kind, size = match[1].decode(), match[2], int(match[3])
        if kind not in {b"", self._kind}:
            self._skip(size + 1)
            raise UnreadableError(f"a {self._kind.decode()}, not a {kind.decode()}")
        return oid, size

    def _ask(self, name: str) -> bytes:
        """The line with which git answers; empty when it died over the question."""
        self._skip(self._unread)
        process = self._running()
        try:
            process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        line: bytes = next(bounded.lines(process.stdout), b"")
        return line

    def _skip(self, size: int) -> None:
        """Passes over an answer that nobody wants; a long one ends the process."""
        self._unread = 0
        if size > _MOST_BYTES:
            self._stop()
        elif size:
            self._running().stdout.read(size)

    def _running(self) -> Any:
        if self._process is None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = reading(self._folder, self._settings, self._said)
        return self._process.proc

    def _end(self) -> str:
        """End the git process; what it said last. The next read starts another."""
        if self._process is None or self._said is None:
            return ""
        process, self._process = self._process, None
        if self._unread:  # the rest may be larger than memory
            process.proc.kill()
        self._unread = 0
        process.proc.communicate()
        with self._said as said:
            lines = bounded.ended(said, _SAID).split("\n")
        return next((line for line in reversed(lines) if line.strip()), "git ended without a word")

    def _stop(self) -> None:
        """End the git process in the middle of an answer."""
        if self._process is not None:
            self._process.proc.kill()
            self._end()


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
