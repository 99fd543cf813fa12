"""A clone's objects, read as if no setting of the clone, the user or the machine existed.

``git archive`` and ``git cat-file`` obey core.autocrlf, filters, info/attributes and replacement objects (facts:
nix-and-bots, 3.4). A git folder of our own that borrows the clone's objects has none of these, and no remote from which
git could fetch what is missing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, cast

from patchforge import bounded
from patchforge.errors import Damaged, PatchforgeError
from patchforge.hashes.nar import CHUNK, File, Folder, Item, Link
from patchforge.sources.borrowed import Borrowed
from patchforge.sources.command import Settings, git_bytes, start_git
from patchforge.sources.git import UnreadableError, object_digest, object_id, parse_tree, tree_of
from patchforge.sources.missing import MissingBlobError

#: Blobs above this many bytes are streamed by git too, unless they are stored as a difference to another blob.
_STREAMED = (
    ("core.bigFileThreshold", "1m"),
    ("core.packedGitWindowSize", "1m"),
    ("core.packedGitLimit", "16m"),
)
_MOST_FILES = 10_000_000  #: of one commit; a few small trees can name each other 10**10 times


_FOLDER = "040000"
_DEEPEST = 1000  #: folders within each other
_LONGEST_LINK = 1 << 16  #: bytes; no system takes more
_SAID = 1 << 16  #: bytes of what git says of a fault

Named = tuple[bytes, str, str]  #: name, mode and id of what is in a tree


@dataclass(frozen=True, slots=True)
class Blob:
    """One line of a commit's listing."""

    path: bytes
    mode: str  #: as git writes it: 100644, 100755, 120000, 160000
    id: str

    @property
    def is_submodule(self) -> bool:
        return self.mode == "160000"


class IncompleteTreeError(MissingBlobError):
    """Files are listed and git lacks their content. Every one is named; ``missing`` maps path to blob id."""

    def __init__(self, missing: Sequence[Blob], origin: str) -> None:
        self.missing = {os.fsdecode(blob.path): blob.id for blob in missing}
        (path, blob), *others = self.missing.items()
        more = "".join(f"\n    {path}: blob {blob}" for path, blob in others)
        reason = "no such object" + (f", and the same of {len(others)} more:{more}" if others else "")
        super().__init__(path, blob, origin=origin, reason=reason)


@dataclass(frozen=True, slots=True)
class Listing:
    """Files, links and submodules of a commit in ``nar_order``, read from git each time they are asked for.

    Memory: the folders on the way to the present one. PatchforgeError when git lacks a folder.
    """

    objects: Objects
    commit: str
    keep: Callable[[Blob], bool] | None = None

    def __iter__(self) -> Iterator[Blob]:
        with self.objects.trees() as read:
            for count, blob in enumerate(_walk(read, self.objects.tree(self.commit))):
                if count >= _MOST_FILES:
                    raise self.objects.failed("cat-file", f"more than {_MOST_FILES} files in one commit".encode())
                if self.keep is None or self.keep(blob):
                    yield blob

    def only(self, keep: Callable[[Blob], bool]) -> Listing:
        return Listing(self.objects, self.commit, keep)


class Objects:
    """The objects of one repository, in isolation."""

    def __init__(self, borrowed: Borrowed) -> None:
        self.origin = str(borrowed.place.path)
        self._folder = borrowed.folder

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        """What a git command prints; PatchforgeError with its own words when it fails."""
        done = git_bytes(*arguments, repository=self._folder, given=given)
        if done.returncode:
            raise self.failed(arguments[0], done.stderr)
        return done.stdout

    @contextmanager
    def piped(self, *arguments: str, given: Iterable[bytes] = (), settings: Settings = ()) -> Iterator[IO[bytes]]:
        """What a git command prints, as it comes; PatchforgeError when the command failed, even after all was read."""
        with tempfile.TemporaryFile() as said:
            process = start_git(*arguments, repository=self._folder, settings=settings, stderr=said)
            feeder = Thread(target=_feed, args=(process.stdin, given), daemon=True)
            feeder.start()
            try:
                output = cast("IO[bytes]", process.stdout)
                yield output
                while output.read(CHUNK):
                    pass  # unread output would keep the process waiting
                status = process.wait()
            finally:
                _stop(process, feeder)
            if status:
                raise self.failed(arguments[0], bounded.ended(said, _SAID).encode())

    def failed(self, command: str, said: bytes) -> PatchforgeError:
        words = said.decode("utf-8", "replace").strip()
        return PatchforgeError(
            f"git {command} failed in {self.origin}",
            expected="a clone with every object of the revision",
            found=words or "no word from git",
            do="use a complete clone (neither --filter nor damaged)",
        )

    def listing(self, commit: str) -> Listing:
        """Every file, link and submodule of a commit, in ``nar_order``."""
        return Listing(self, commit)

    @contextmanager
    def trees(self) -> Iterator[Callable[[str], list[Named]]]:
        """A function from a tree's id to what is in it, sorted; PatchforgeError if there is none."""
        with start_git("cat-file", "--batch", repository=self._folder, stderr=-3) as process:
            asked, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)

            def read(name: str) -> list[Named]:
                asked.write(name.encode() + b"\n")
                asked.flush()
                about = next(bounded.lines(answers), b"").split()
                size = int(about[2]) if about[1:2] == [b"tree"] else -1
                if size > bounded.MOST:
                    raise self.failed("cat-file", f"a folder of {size} bytes: {name}".encode())
                data = answers.read(size + 1)[:-1] if size >= 0 else b""
                if len(data) != size or object_id(b"tree", data, len(name)) != name:
                    raise self.failed("cat-file", f"no whole tree {name}".encode())
                try:
                    return sorted(
                        (base, sys.intern(f"{mode:06o}"), oid) for mode, base, oid in parse_tree(data, len(name) // 2)
                    )
                except UnreadableError as error:
                    raise self.failed("cat-file", str(error).encode()) from error

            try:
                yield read
            finally:
                process.kill()

    def commit(self, name: str) -> bytes:
        """What a commit says: its tree, its date, … PatchforgeError when it is not there."""
        data = self.run("cat-file", "commit", name)
        if re.fullmatch("[0-9a-f]{40,64}", name) and object_id(b"commit", data, len(name)) != name:
            raise self.failed("cat-file", f"{name} is not what its id says".encode())
        return data

    def tree(self, commit: str) -> str:
        """The id of a commit's tree."""
        try:
            return tree_of(self.commit(commit))
        except UnreadableError as error:
            raise self.failed("cat-file", str(error).encode()) from error

    def require(self, needed: Iterable[Blob], listed: Iterable[Blob] = ()) -> None:
        """IncompleteTreeError unless the clone has what is needed; it names what is missing of the ``listed`` too."""
        if missing := self._absent(needed):
            raise IncompleteTreeError(self._absent(listed) or missing, self.origin)

    def _absent(self, blobs: Iterable[Blob]) -> list[Blob]:
        files = (blob for blob in blobs if not blob.is_submodule)
        with self.piped("cat-file", "--batch-check", "--buffer", given=_ids(blobs)) as answers:
            return [blob for blob, line in zip(files, answers, strict=False) if line.endswith(b" missing\n")]

    def items(self, blobs: Iterable[Blob]) -> Iterator[Item]:
        """The blobs' content, in their order, out of one git process; a submodule is a folder.

        IncompleteTreeError at the end.
        """
        absent = []
        with self.piped("cat-file", "--batch", "--buffer", given=_ids(blobs), settings=_STREAMED) as answers:
            for blob in blobs:
                if blob.is_submodule:
                    yield blob.path, Folder()
                    continue
                about = next(bounded.lines(answers), b"").split()
                if about[1:] == [b"missing"]:
                    absent.append(blob)
                elif len(about) != 3:
                    break  # git died; the end of ``piped`` says of what
                else:
                    yield _item(blob, int(about[2]), answers)
                    answers.read(1)
        if absent:
            raise IncompleteTreeError(absent, self.origin)

    def content(self, blob: Blob) -> bytes:
        return self.run("cat-file", "blob", blob.id)

    def with_attribute(self, commit: str, name: str, blobs: Sequence[Blob]) -> list[Blob]:
        """The blobs for which the commit's own .gitattributes set an attribute."""
        self.run("read-tree", commit)
        asked = b"".join(blob.path + b"\0" for blob in blobs)
        fields = self.run("check-attr", "--cached", "-z", "--stdin", name, given=asked).split(b"\0")
        having = {path for path, value in zip(fields[::3], fields[2::3], strict=False) if value == b"set"}
        return [blob for blob in blobs if blob.path in having]


@contextmanager
def isolated(clone: Path) -> Iterator[Objects]:
    """The objects of a clone (bare or not). PatchforgeError when it is none."""
    with Borrowed(clone) as borrowed:
        yield Objects(borrowed)


def _walk(read: Callable[[str], list[Named]], tree: str) -> Iterator[Blob]:
    """Depth first, and without recursion."""
    opened = [(b"", iter(read(tree)))]
    while opened:
        folder, items = opened[-1]
        for name, mode, oid in items:
            if mode == _FOLDER:
                opened.append((folder + name + b"/", iter(read(oid))))
                break
            yield Blob(folder + name, mode, oid)
        else:
            opened.pop()
        if len(opened) > _DEEPEST:
            raise Damaged("folders are within each other without end", expected=f"{_DEEPEST} at most", found=tree)


def _ids(blobs: Iterable[Blob]) -> Iterator[bytes]:
    return (blob.id.encode() + b"\n" for blob in blobs if not blob.is_submodule)


def _item(blob: Blob, size: int, answers: IO[bytes]) -> Item:
    if blob.mode == "120000":
        if size > _LONGEST_LINK:
            raise Damaged(f"{os.fsdecode(blob.path)} is a link that leads too far", found=f"{size} bytes")
        return blob.path, Link(b"".join(_checked(blob, size, answers)))

    def chunks() -> Iterator[bytes]:
        return _checked(blob, size, answers)

    return blob.path, File(size, chunks, bool(int(blob.mode, 8) & 0o100))


def _checked(blob: Blob, size: int, answers: IO[bytes]) -> Iterator[bytes]:
    """A blob's bytes. Damaged at their end when they are not what its id says."""
    digest, left = object_digest(b"blob", size, len(blob.id)), size
    while left and (chunk := answers.read(min(left, CHUNK))):
        left -= len(chunk)
        digest.update(chunk)
        yield chunk
    if not left and digest.hexdigest() != blob.id:
        path = os.fsdecode(blob.path)
        raise Damaged(f"{path} is not what its id says", expected=blob.id, found=digest.hexdigest(), do="clone again")


def _feed(pipe: IO[bytes], given: Iterable[bytes]) -> None:
    try:
        with pipe:
            pipe.writelines(given)
    except (BrokenPipeError, PatchforgeError):
        pass  # the process ended, or a folder is missing: who reads the answers finds the same


def _stop(process: subprocess.Popen[bytes], feeder: Thread) -> None:
    if process.poll() is None:
        process.kill()
        process.wait()
    feeder.join()
    if process.stdout:
        process.stdout.close()
