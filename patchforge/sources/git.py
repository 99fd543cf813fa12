"""Trees read from git objects without a checkout.

One ``git cat-file --batch`` process serves every tree of a repository. Folders are parsed once and shared between
releases: most of them stay the same from one release to the next.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from patchforge.errors import PatchforgeError
from patchforge.sources.missing import MissingBlobError
from patchforge.vocabulary import Entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

#: Reading never asks a network, a terminal or a replacement object. GIT_NO_LAZY_FETCH needs git 2.45;
#: for older ones GIT_ALLOW_PROTOCOL refuses every transport by which a missing object could be fetched.
_ENVIRONMENT = {
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
}
_FOLDER, _LINK, _SUBMODULE = b"40000", b"120000", b"160000"
_HEADER = re.compile(rb"([0-9a-f]{40,64}) [a-z]+ (\d+)\n")
_REASONS = {_LINK: "symbolic link", _SUBMODULE: "submodule"}


class UnreadableError(LookupError):
    """Git has no such object, or cannot say which one is meant; ``str()`` is git's reason."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something in a tree that is no regular file, and why it is left out."""

    path: str
    reason: str


class Listing(NamedTuple):
    entries: Mapping[str, Entry]
    skipped: tuple[Skipped, ...]


def import_git() -> Any:
    """GitPython, imported on first use (it costs 50 ms); an error a person can act on when git is not installed."""
    try:
        import git  # noqa: PLC0415 - keeps start-up light
    except ImportError as error:
        problem = "git cannot be run"
        raise PatchforgeError(problem, expected="a git command on PATH", found=str(error), do="install git") from error
    return git


class GitObjects:
    """The objects of one repository, bare or not. Not for use by two threads at once."""

    def __init__(self, path: Path) -> None:
        """PatchforgeError when ``path`` is no repository."""
        git = import_git()
        try:
            self._repo = git.Repo(path, expand_vars=False)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as error:
            raise PatchforgeError(
                f"{path} is not a git repository",
                expected="a bare or ordinary clone",
                found="a folder without git's files" if path.is_dir() else "no such folder",
                do="name a clone's top folder",
            ) from error
        self.path = path
        self._repo.git.update_environment(**_ENVIRONMENT)
        # A GIT_DIR in the environment (as in a hook) must not lead elsewhere; not every GitPython sees to it.
        self._repo.git.set_persistent_git_options(git_dir=self._repo.git_dir)
        self._process: Any = None
        self._folders: dict[tuple[str, str], tuple[Entry | Skipped, ...]] = {}
        self._listings: dict[str, Listing] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the git process. Reading afterwards starts another."""
        self._end()
        self._repo.close()

    def commit(self, name: str) -> str | None:
        """The id of the commit that a ref, tag or (abbreviated) id leads to; None when git knows none."""
        if not name:
            return None
        try:
            return self._object(name + "^{commit}")[0]
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
        """The bytes of a blob; UnreadableError when the repository lacks it."""
        return self._object(oid)[1]

    def listing(self, commit: str) -> Listing:
        """The files of a commit, sorted by path. Needs no blob."""
        if commit not in self._listings:
            try:
                found = self._folder(commit + "^{tree}", "")
            except UnreadableError as error:
                raise PatchforgeError(
                    f"the files of {commit} cannot be listed",
                    expected=f"a commit with all its folders in {self.path}",
                    found=str(error),
                    do="fetch the commit, or use a clone that has it",
                ) from error
            entries = {each.path: each for each in found if isinstance(each, Entry)}
            skipped = tuple(each for each in found if isinstance(each, Skipped))
            self._listings[commit] = Listing(MappingProxyType(entries), skipped)
        return self._listings[commit]

    def tags(self) -> list[str]:
        return self._lines("for_each_ref", "--format=%(refname:strip=2)", "refs/tags")

    def branches(self) -> list[str]:
        return self._lines("for_each_ref", "--format=%(refname:short)", "refs/heads", "refs/remotes")

    def history(self, *names: str, paths: tuple[str, ...] = ()) -> list[str]:
        """Commit ids, newest first, as ``git rev-list`` selects them."""
        return self._lines("rev_list", "--topo-order", *names, "--", *paths)

    def is_shallow(self) -> bool:
        return self._lines("rev_parse", "--is-shallow-repository") == ["true"]

    def _lines(self, command: str, *arguments: str) -> list[str]:
        git = import_git()
        try:
            output: str = getattr(self._repo.git, command)(*arguments)
        except git.GitCommandError as error:
            raise PatchforgeError(
                f"git {command.replace('_', '-')} failed in {self.path}",
                found=str(error.stderr).strip().removeprefix("stderr: ").strip("'\n "),
                do="use a clone with its whole history (neither shallow nor damaged)",
            ) from error
        return output.splitlines()

    def _object(self, name: str) -> tuple[str, bytes]:
        """Id and content of what ``name`` leads to."""
        if "\n" in name:
            raise UnreadableError("a name of two lines")
        header = self._ask(name)
        match = _HEADER.fullmatch(header)
        if not match:
            raise UnreadableError(header.split()[-1].decode() if header else self._end())
        size = int(match[2])
        data = self._git().stdout.read(size + 1)
        if len(data) <= size:
            raise UnreadableError(f"breaks off after {len(data)} of {size} bytes: {self._end()}")
        return match[1].decode(), data[:size]

    def _ask(self, name: str) -> bytes:
        """The line with which git answers; empty when it died over the question."""
        process = self._git()
        try:
            process.stdin.write(name.encode("utf-8", "surrogateescape") + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return b""
        line: bytes = process.stdout.readline()
        return line

    def _git(self) -> Any:
        if self._process is None:
            self._process = self._repo.git.cat_file("--batch", istream=subprocess.PIPE, as_process=True)
        return self._process.proc

    def _end(self) -> str:
        """End the git process; what it said last. The next read starts another."""
        if self._process is None:
            return ""
        _, said = self._process.proc.communicate()
        self._process = None
        lines = said.decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "git ended without a word")

    def _folder(self, name: str, prefix: str) -> tuple[Entry | Skipped, ...]:
        # Git sorts a folder as if its name ended in "/", so this order is that of the whole paths.
        key = (name, prefix)
        if key not in self._folders:
            self._folders[key] = tuple(self._walk(name, prefix))
        return self._folders[key]

    def _walk(self, name: str, prefix: str) -> Iterator[Entry | Skipped]:
        for mode, base, oid in _parse_tree(self._object(name)[1]):
            path = prefix + base
            if mode == _FOLDER:
                yield from self._folder(oid, path + "/")
            elif reason := _REASONS.get(mode):
                yield Skipped(path, reason)
            else:
                yield Entry(path, oid, 0o100755 if int(mode, 8) & 0o100 else 0o100644)


def _parse_tree(data: bytes) -> Iterator[tuple[bytes, str, str]]:
    """Mode, name and object id of each item: ``<mode> <name>``, a zero byte, 20 bytes."""
    start = 0
    while start < len(data):
        end = data.index(b"\0", start)
        mode, _, name = data[start:end].partition(b" ")
        start = end + 21
        yield mode, name.decode("utf-8", "surrogateescape"), data[end + 1 : start].hex()


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
