"""A clone's objects, read as if no setting of the clone, the user or the machine existed.

``git archive`` and ``git cat-file`` obey core.autocrlf, filters, info/attributes and replacement objects (facts:
nix-and-bots, 3.4). A scratch repository that borrows the clone's objects has none of these, and no remote from which
git could fetch what is missing.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO, cast

from patchforge.errors import PatchforgeError
from patchforge.hashes.nar import CHUNK, File, Folder, Item, Link
from patchforge.sources.missing import MissingBlobError

_CONFIG = f"""\
[core]
\trepositoryformatversion = 0
\tbare = true
\tautocrlf = false
\teol = lf
\tattributesFile = {os.devnull}
"""
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
#: Blobs above this many bytes are streamed by git too, unless they are stored as a difference to another blob.
_STREAMED = ("-c", "core.bigFileThreshold=1m", "-c", "core.packedGitWindowSize=1m", "-c", "core.packedGitLimit=16m")


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
            yield from filter(self.keep, _walk(read, self.commit + "^{tree}", b""))

    def only(self, keep: Callable[[Blob], bool]) -> Listing:
        return Listing(self.objects, self.commit, keep)


class Objects:
    """The objects of one repository, in isolation."""

    def __init__(self, scratch: Path, objects: Path, origin: str) -> None:
        self.origin = origin
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            **_ENVIRONMENT,
            "GIT_DIR": str(scratch),
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_OBJECT_DIRECTORY": str(objects),
        }

    def run(self, *arguments: str, given: bytes = b"") -> bytes:
        """What a git command prints; PatchforgeError with its own words when it fails."""
        done = subprocess.run(["git", *arguments], env=self._environment, input=given, capture_output=True, check=False)
        if done.returncode:
            raise self.failed(arguments[0], done.stderr)
        return done.stdout

    @contextmanager
    def piped(self, *arguments: str, given: Iterable[bytes] = ()) -> Iterator[IO[bytes]]:
        """What a git command prints, as it comes; PatchforgeError when the command failed, even after all was read."""
        with tempfile.TemporaryFile() as said:
            command = ["git", *arguments]
            process = subprocess.Popen(command, env=self._environment, stdin=-1, stdout=-1, stderr=said, bufsize=CHUNK)
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
                said.seek(0)
                raise self.failed(arguments[0], said.read())

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
    def trees(self) -> Iterator[Callable[[str], tuple[int, bytes]]]:
        """A function from a tree's name to the bytes in its ids and its content; PatchforgeError if there is none."""
        command = ["git", "cat-file", "--batch"]
        with subprocess.Popen(command, env=self._environment, stdin=-1, stdout=-1, stderr=-3) as process:
            asked, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)

            def read(name: str) -> tuple[int, bytes]:
                asked.write(name.encode() + b"\n")
                asked.flush()
                about = answers.readline().split()
                size = int(about[2]) if about[1:2] == [b"tree"] else -1
                data = answers.read(size + 1)[:-1] if size >= 0 else b""
                if len(data) != size:
                    raise self.failed("cat-file", f"no whole tree {name}".encode())
                return len(about[0]) // 2, data

            try:
                yield read
            finally:
                process.kill()

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
        with self.piped(*_STREAMED, "cat-file", "--batch", "--buffer", given=_ids(blobs)) as answers:
            for blob in blobs:
                if blob.is_submodule:
                    yield blob.path, Folder()
                    continue
                about = answers.readline().split()
                if about[1:] == [b"missing"]:
                    absent.append(blob)
                elif len(about) != 3:
                    answers.read()
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
    with tempfile.TemporaryDirectory(prefix="patchforge-") as folder:
        scratch = Path(folder)
        (scratch / "refs").mkdir()
        (scratch / "HEAD").write_text("ref: refs/heads/none\n", "utf-8")
        (scratch / "config").write_text(_CONFIG, "utf-8")
        yield Objects(scratch, _objects_of(clone), str(clone))


def _objects_of(clone: Path) -> Path:
    command = ["git", "-C", str(clone), "rev-parse", "--path-format=absolute", "--git-path", "objects"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise PatchforgeError("git cannot be run", expected="a git command on PATH", do="install git") from error
    if done.returncode:
        raise PatchforgeError(
            f"{clone} is not a git repository",
            expected="a bare or ordinary clone",
            found=done.stderr.decode("utf-8", "replace").strip(),
            do="name a clone's top folder",
        )
    return Path(os.fsdecode(done.stdout.rstrip(b"\n")))


def _walk(read: Callable[[str], tuple[int, bytes]], tree: str, top: bytes) -> Iterator[Blob]:
    for name, mode, oid in sorted(_entries(*read(tree))):
        if mode == "040000":
            yield from _walk(read, oid, top + name + b"/")
        else:
            yield Blob(top + name, mode, oid)


def _entries(width: int, data: bytes) -> Iterator[tuple[bytes, str, str]]:
    """Name, mode and id of what is in a tree: each is ``mode name``, a zero byte, and ``width`` bytes of the id."""
    at = 0
    while at < len(data):
        end = data.index(b"\0", at)
        mode, _, name = data[at:end].partition(b" ")
        at = end + 1 + width
        yield name, sys.intern(mode.decode().zfill(6)), data[end + 1 : at].hex()


def _ids(blobs: Iterable[Blob]) -> Iterator[bytes]:
    return (blob.id.encode() + b"\n" for blob in blobs if not blob.is_submodule)


def _item(blob: Blob, size: int, answers: IO[bytes]) -> Item:
    if blob.mode == "120000":
        return blob.path, Link(answers.read(size))

    def chunks() -> Iterator[bytes]:
        left = size
        while left and (chunk := answers.read(min(left, CHUNK))):
            left -= len(chunk)
            yield chunk

    return blob.path, File(size, chunks, bool(int(blob.mode, 8) & 0o100))


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
