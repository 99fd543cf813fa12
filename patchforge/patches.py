"""Patch files: rendered from segments, applied by our own strict reader, checked against GNU patch and git.

The format is git's extended unified diff without index lines and timestamps, so the same edits are the same bytes.
Structure lines end in LF; what follows the ``+``, ``-`` or blank of a hunk line is the file's own bytes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path, PurePosixPath

from patchforge import processes, templating
from patchforge.errors import CheckFailed, Damaged, PatchforgeError
from patchforge.git.command import git_environment
from patchforge.vocabulary import FileChange, Purpose, Release, Segment, split_lines

Read = Callable[[str], bytes]

REASON = "generated for each release; gaps are reported one by one"

_COMMIT = re.compile("[0-9a-f]{40}")
_FEW, _WIDE = 12, 200  #: lines, and characters of each, that an error shows
_NO_NEWLINE = b"\\ No newline at end of file\n"
_RANGE = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@\n")
_NEW_FILE = re.compile(rb"new file mode (100644|100755)\n")
# What GNU patch or git could take for the start of a diff. GNU patch looks behind blanks, X and RFC 934's "- ".
_DIFF_LIKE = re.compile(
    r"(?:[ \tX]|- )*(?:--- |\+\+\+ |\*\*\*|@@|diff |index |Index:|Prereq:|GIT binary|\d+(?:,\d+)?[acd](?:\d|\s*$))"
)


@dataclass(frozen=True, slots=True)
class Hunk:
    """Neighbouring edits. ``old`` and ``new`` are 0-based line numbers; each line has its sign and its own end."""

    old: int
    new: int
    lines: tuple[tuple[bytes, bytes], ...]

    def side(self, drop: bytes) -> list[bytes]:
        """The lines before the edit (``drop`` is ``+``) or after it (``drop`` is ``-``)."""
        return [line for sign, line in self.lines if sign != drop]

    @property
    def range(self) -> str:
        """``@@ -3,0 +4,2 @@``: counts of 1 are left out, and an empty side names the line before it."""
        old, new = len(self.side(b"+")), len(self.side(b"-"))
        return f"@@ -{_span(self.old, old)} +{_span(self.new, new)} @@"


@dataclass(frozen=True, slots=True)
class FilePatch:
    """One file's part of a patch. ``mode`` is None for a file that is there already."""

    path: str
    mode: int | None
    hunks: tuple[Hunk, ...]


def file_name(purpose: Purpose) -> str:
    """``0001-device-support.patch``: a purpose has the same number in every release."""
    return f"{list(Purpose).index(purpose) + 1:04d}-{purpose.value}.patch"


def series(names: Iterable[str]) -> bytes:
    """The ``series`` file that quilt and Debian read: one patch a line, in order."""
    return "".join(f"{name}\n" for name in sorted(names)).encode()


def header(purpose: Purpose, subject: str, gaps: Mapping[str, str], release: Release) -> str:
    """The DEP-3 header of a patch (https://dep-team.pages.debian.net/deps/dep3/); ``gaps``: transform id to title.

    ``Forwarded`` must be exactly ``no``, so its reason has a field of its own; ``Last-Update`` would be a timestamp.
    Every field is one line: a folded line begins with a blank, as a diff's context does.
    """
    environment = templating.environment()
    text = environment.get_template("patch/header.j2").render(
        subject=" ".join(subject.split()),
        reason=REASON,
        purpose=purpose.value,
        gaps=gaps,
        release=release.version,
        commit=release.commit if _COMMIT.fullmatch(release.commit) else "",
    )
    check_header(text)
    return text


def check_header(text: str) -> None:
    """CheckFailed where a line of the header could be taken for the start of a diff."""
    for number, line in enumerate(re.split(r"[\n\v\f\x1c-\x1e\x85\u2028\u2029]", text), 1):
        if "\r" in line or _DIFF_LIKE.match(line):
            raise CheckFailed(
                f"line {number} of a patch header could be taken for a diff",
                expected="prose or a DEP-3 field, ended by LF",
                found=repr(line),
                do="reword the transform's title or docstring",
            )


def render(changes: Sequence[FileChange], *, header: str, context: int = 0) -> bytes:
    """The patch of ``changes``, sorted by path. CheckFailed where segments do not turn ``before`` into ``after``."""
    check_header(header)
    ordered = sorted(changes, key=lambda change: change.path)
    for earlier, later in pairwise(ordered):
        if earlier.path == later.path:
            raise CheckFailed(f"{later.path} is changed twice in one patch", do="render one FileChange per file")
    start = header if not header or header.endswith("\n") else header + "\n"
    return start.encode() + b"".join(_render_file(change, context) for change in ordered)


def apply(patch: bytes, read: Read) -> dict[str, bytes]:
    """The files that ``patch`` changes or adds, after it. Every line must stand exactly where the patch says.

    ``read`` gives a file's bytes and raises KeyError or FileNotFoundError when there is none.
    """
    after: dict[str, bytes] = {}
    for part in parse(patch):
        after[part.path] = apply_part(part, _read(read, part.path))
    return after


def apply_part(part: FilePatch, before: bytes | None) -> bytes:
    """One file after its part of a patch; ``before`` is None where there is no file."""
    if (before is None) != (part.mode is not None):
        raise _presence(part.path, wanted=part.mode is None)
    return _apply_hunks(part, before or b"")


def reverse(patch: bytes, read: Read) -> dict[str, bytes | None]:
    """The files that ``patch`` changed, as they were before it; None for a file that it had added."""
    return {part.path: reverse_part(part, _read(read, part.path)) for part in parse(patch)}


def reverse_part(part: FilePatch, after: bytes | None) -> bytes | None:
    """One file before its part of a patch; None for a file that the patch adds."""
    if after is None:
        raise _presence(part.path, wanted=True)
    restored = _apply_hunks(FilePatch(part.path, part.mode, tuple(map(_swapped, part.hunks))), after)
    if part.mode is not None and restored:
        raise CheckFailed(f"{part.path}: more is in the file than the patch added", do="undo later edits first")
    return None if part.mode is not None else restored


def parse(patch: bytes) -> list[FilePatch]:
    """The parts of a patch that ``render`` wrote. CheckFailed for any other form."""
    return list(_PatchReader(patch).files())


def check_every_way(
    patches: Sequence[bytes], before: Mapping[str, bytes], after: Mapping[str, bytes], *, context: int
) -> None:
    """CheckFailed unless our own reader, GNU patch and git make exactly ``after`` of ``before``, and undo it again.

    ``patches`` are applied in order; only files that they touch are written to disk. Of GNU patch and git those are
    asked that are installed: ``ways`` names them.
    """
    modes = {part.path: part.mode for patch in patches for part in parse(patch)}
    for path in sorted((before.keys() | after.keys()) - modes.keys()):
        if before.get(path) != after.get(path):
            raise CheckFailed(f"{path} differs and no patch touches it", do="render a patch for it")
    old = {path: before[path] for path in sorted(modes) if path in before}
    new = {path: after[path] for path in sorted(modes) if path in after}
    _check_own(patches, old, new)
    added = {path: mode for path, mode in modes.items() if mode is not None and path not in before}
    tools = [tool for tool in _tools(context) if tool.is_here()]
    with ThreadPoolExecutor(len(tools) or 1) as pool:
        for done in [pool.submit(_check_tool, tool, patches, old, new, added) for tool in tools]:
            done.result()


def ways() -> str:
    """Who reads the patches of ``check_every_way`` on this machine, in words."""
    named = ", ".join(["patchforge", *(tool.name for tool in _tools() if tool.is_here())])
    less = lacking()
    return named + (f"; {less} {'are' if ' and ' in less else 'is'} not installed" if less else "")


def lacking() -> str:
    """Who would read them as well and is not installed; "" for nobody."""
    return " and ".join(tool.name for tool in _tools() if not tool.is_here())


def _tools(context: int = 0) -> tuple[_Tool, ...]:
    git = ("git", "apply", "--whitespace=nowarn")
    zero = ("--unidiff-zero",) if context == 0 else ()
    return (
        _Tool("GNU patch", (*_GNU_PATCH, "-i"), (*_GNU_PATCH, "-R", "-i"), says="GNU patch"),
        _Tool("git apply", (*git, *zero), (*git, *zero, "-R"), (*git, *zero, "--check"), says="git version"),
    )


_GNU_PATCH = ("patch", "-p1", "--fuzz=0", "--no-backup-if-mismatch", "--binary", "--force", "--silent", "-r", "-")


def _span(start: int, count: int) -> str:
    first = start + 1 if count else start
    return str(first) if count == 1 else f"{first},{count}"


# --- rendering


def _render_file(change: FileChange, context: int) -> bytes:
    check_path(change.path)
    name, tab = change.path.encode(), b"\t" if " " in change.path else b""
    out = [b"diff --git a/%s b/%s\n" % (name, name)]
    if change.before is None:
        if not change.after:
            raise PatchforgeError(f"{change.path}: a patch cannot add an empty file", do="give it a line")
        out += [b"new file mode %o\n" % change.mode, b"--- /dev/null\n"]
    else:
        out.append(b"--- a/%s%s\n" % (name, tab))
    out.append(b"+++ b/%s%s\n" % (name, tab))
    hunks = list(_hunks(change, context))
    for hunk in hunks:
        out += [hunk.range.encode(), b"\n", *_hunk_lines(hunk)]
    return b"".join(out) if hunks else b""


def _hunk_lines(hunk: Hunk) -> Iterator[bytes]:
    for sign, line in hunk.lines:
        yield sign + line
        if not line.endswith(b"\n"):
            yield b"\n" + _NO_NEWLINE


def _hunks(change: FileChange, context: int) -> Iterator[Hunk]:
    before = split_lines(change.before or b"")
    parts = list(change.segments)
    if change.before is None and not parts:
        parts = [Segment(0, 0, tuple(split_lines(change.after)))]
    _check_segments(change, before, parts)
    shift = 0
    for group in _groups([part for part in (_trimmed(part, before) for part in parts) if part], context):
        first, last = max(group[0].start - context, 0), min(group[-1].end + context, len(before))
        lines = tuple(_signed(group, before, first, last))
        yield Hunk(first, first + shift, lines)
        shift += sum(len(part.lines) - (part.end - part.start) for part in group)


def _signed(group: Sequence[Segment], before: Sequence[bytes], first: int, last: int) -> Iterator[tuple[bytes, bytes]]:
    position = first
    for part in group:
        yield from ((b" ", line) for line in before[position : part.start])
        yield from ((b"-", line) for line in before[part.start : part.end])
        yield from ((b"+", line) for line in part.lines)
        position = part.end
    yield from ((b" ", line) for line in before[position:last])


def _groups(parts: Iterable[Segment], context: int) -> list[list[Segment]]:
    groups: list[list[Segment]] = []
    for part in parts:
        if groups and part.start - groups[-1][-1].end <= 2 * context:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _trimmed(part: Segment, before: Sequence[bytes]) -> Segment | None:
    """The segment without the lines that it has in common with ``before`` at its ends; None when nothing is left."""
    old, new = before[part.start : part.end], part.lines
    room = min(len(old), len(new))
    head = next((index for index in range(room) if old[index] != new[index]), room)
    room -= head
    tail = next((index for index in range(room) if old[-1 - index] != new[-1 - index]), room)
    trimmed = Segment(part.start + head, part.end - tail, new[head : len(new) - tail])
    return trimmed if trimmed.lines or trimmed.start < trimmed.end else None


def _check_segments(change: FileChange, before: Sequence[bytes], parts: Sequence[Segment]) -> None:
    lines: list[bytes] = []
    position = 0
    for number, part in enumerate(parts):
        if not position + bool(number) <= part.start <= part.end <= len(before):
            raise CheckFailed(
                f"{change.path}: segment {number + 1} is out of place",
                expected=f"ascending segments that do not touch, within {len(before)} lines",
                found=f"lines {part.start}:{part.end} after line {position}",
            )
        lines += [*before[position : part.start], *part.lines]
        position = part.end
    lines += before[position:]
    if b"".join(lines) != change.after or any(not line.endswith(b"\n") for line in lines[:-1]):
        raise CheckFailed(f"{change.path}: the segments do not turn the file before into the file after, line by line")


def check_path(path: str) -> None:
    """PatchforgeError for a path that GNU patch, git and our own reader would not read alike."""
    pure = PurePosixPath(path)
    whole = path and str(pure) == path and not pure.is_absolute() and ".." not in pure.parts
    if not whole or re.search(r'[\x00-\x1f\x7f"\\]', path) or path.strip() != path:
        raise Damaged(
            f"a patch cannot name {path[:300]!r}",
            expected="a plain relative POSIX path",
            do="rename it where it comes from",
        )


# --- our own reader


class _PatchReader:
    """Reads what ``render`` writes, and nothing looser."""

    def __init__(self, patch: bytes) -> None:
        self.lines = split_lines(patch)
        self.at = next((i for i, line in enumerate(self.lines) if line.startswith(b"diff --git ")), len(self.lines))

    def files(self) -> Iterator[FilePatch]:
        seen: set[str] = set()
        while self.at < len(self.lines):
            part = self._file()
            if part.path in seen:
                raise CheckFailed(f"{part.path} occurs twice in one patch")
            seen.add(part.path)
            yield part

    def _file(self) -> FilePatch:
        start = self._take()
        new = _NEW_FILE.fullmatch(self._peek())
        if new:
            self.at += 1
        old_name, new_name = self._take(), self._take()
        name = new_name.removeprefix(b"+++ b/").removesuffix(b"\n").removesuffix(b"\t")
        tab = b"\t" if b" " in name else b""
        expected = (
            b"diff --git a/%s b/%s\n" % (name, name),
            b"--- /dev/null\n" if new else b"--- a/%s%s\n" % (name, tab),
            b"+++ b/%s%s\n" % (name, tab),
        )
        if (start, old_name, new_name) != expected:
            raise self._unreadable("the lines diff --git, --- and +++ of one file", start + old_name + new_name)
        try:
            path = name.decode()
        except UnicodeDecodeError:
            raise self._unreadable("a path in UTF-8", name) from None
        check_path(path)
        hunks = tuple(self._hunks(path))
        if not hunks:
            raise self._unreadable(f"a hunk of {path}", self._peek())
        return FilePatch(path, int(new[1], 8) if new else None, hunks)

    def _hunks(self, path: str) -> Iterator[Hunk]:
        while match := _RANGE.fullmatch(self._peek()):
            self.at += 1
            old, new = (int(match[2] or b"1"), int(match[4] or b"1"))
            lines = tuple(self._hunk_body(path, old, new))
            hunk = Hunk(int(match[1]) - bool(old), int(match[3]) - bool(new), lines)
            if hunk.old < 0 or hunk.new < 0:
                raise self._unreadable("line numbers from 1", match[0])
            yield hunk

    def _hunk_body(self, path: str, old: int, new: int) -> Iterator[tuple[bytes, bytes]]:
        while old or new:
            raw = self._take()
            sign, line = raw[:1], raw[1:]
            old, new = old - (sign in b" -"), new - (sign in b" +")
            if sign not in (b" ", b"-", b"+") or old < 0 or new < 0:
                raise self._unreadable(f"a line of a hunk of {path}", raw)
            if self._peek() == _NO_NEWLINE:
                self.at += 1
                line = line.removesuffix(b"\n")
            yield sign, line

    def _peek(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def _take(self) -> bytes:
        line = self._peek()
        if not line.endswith(b"\n"):
            raise self._unreadable("a whole line", line)
        self.at += 1
        return line

    def _unreadable(self, expected: str, found: bytes) -> CheckFailed:
        shown = found.decode(errors="backslashreplace").rstrip("\n") or "the end of the patch"
        return CheckFailed(f"line {self.at + 1} of the patch cannot be read", expected=expected, found=shown)


def _apply_hunks(part: FilePatch, before: bytes) -> bytes:
    lines, out = split_lines(before), list[bytes]()
    position = 0
    for number, hunk in enumerate(part.hunks, 1):
        old = hunk.side(b"+")
        out += lines[position : hunk.old]
        found = lines[hunk.old : hunk.old + len(old)]
        if hunk.old < position or hunk.old > len(lines) or found != old:
            raise _does_not_apply(part.path, number, hunk, old, found)
        if len(out) != hunk.new:
            raise CheckFailed(f"{part.path}: hunk {number} ({hunk.range}) counts lines that the hunks before it do not")
        out += hunk.side(b"-")
        position = hunk.old + len(old)
    out += lines[position:]
    if any(not line.endswith(b"\n") for line in out[:-1]):
        raise CheckFailed(f"{part.path}: the patch adds lines after one that has no line end")
    return b"".join(out)


def _does_not_apply(path: str, number: int, hunk: Hunk, old: Sequence[bytes], found: Sequence[bytes]) -> CheckFailed:
    return CheckFailed(
        f"{path}: hunk {number} ({hunk.range}) does not apply",
        expected=_shown(old) or f"at least {hunk.old} lines, and hunks in order",
        found=_shown(found) or "other line numbers",
        do="apply the patch to the release that it was made for",
    )


def _shown(lines: Sequence[bytes]) -> str:
    """The first lines, each with its beginning."""
    kept = [line[:_WIDE] for line in lines[:_FEW]]
    more = b"\n... and %d lines more" % (len(lines) - _FEW) if len(lines) > _FEW else b""
    return (b"".join(kept).rstrip(b"\n") + more).decode(errors="backslashreplace").replace("\n", "\n    ").rstrip()


def _swapped(hunk: Hunk) -> Hunk:
    signs = {b"+": b"-", b"-": b"+", b" ": b" "}
    return Hunk(hunk.new, hunk.old, tuple((signs[sign], line) for sign, line in hunk.lines))


def _read(read: Read, path: str) -> bytes | None:
    try:
        return read(path)
    except (KeyError, FileNotFoundError):
        return None


def _presence(path: str, *, wanted: bool) -> CheckFailed:
    words = ("a file", "none") if wanted else ("no file, because the patch adds it", "a file")
    return CheckFailed(f"{path}: the patch does not fit", expected=words[0], found=words[1])


# --- the other two ways


@dataclass(frozen=True, slots=True)
class _Tool:
    name: str
    forward: tuple[str, ...]
    backward: tuple[str, ...]
    check: tuple[str, ...] = ()
    says: str = ""  #: what its --version begins with: that of BSD and macOS is not GNU patch

    def is_here(self) -> bool:
        place = processes.program(self.forward[0])
        return bool(place) and _version(place).startswith(self.says)


@cache
def _version(program: str) -> str:
    try:
        done = processes.run([program, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, processes.TimeoutExpired):  # Windows asks an administrator about anything called patch.exe
        return ""
    return str(done.stdout)


def _check_own(patches: Sequence[bytes], before: Mapping[str, bytes], after: Mapping[str, bytes]) -> None:
    state = dict(before)
    for patch in patches:
        state.update(apply(patch, state.__getitem__))
    _compare("patchforge", state, after)
    for patch in reversed(patches):
        for path, data in reverse(patch, state.__getitem__).items():
            if data is None:
                del state[path]
            else:
                state[path] = data
    _compare("patchforge, undoing", state, before)


def _check_tool(
    tool: _Tool,
    patches: Sequence[bytes],
    before: Mapping[str, bytes],
    after: Mapping[str, bytes],
    added: Mapping[str, int],
) -> None:
    with tempfile.TemporaryDirectory(prefix="patchforge-") as name:
        root = Path(name).resolve()
        tree = root / "tree"
        tree.mkdir()
        _write(tree, before)
        files = [root / f"{number:04d}.patch" for number in range(len(patches))]
        for file, patch in zip(files, patches, strict=True):
            file.write_bytes(patch)
        for file in files:
            if tool.check:
                _run(tool, (*tool.check, str(file)), tree)
            _run(tool, (*tool.forward, str(file)), tree)
        _compare(tool.name, _files(tree), after)
        _check_modes(tool, tree, added)
        for file in reversed(files):
            _run(tool, (*tool.backward, str(file)), tree)
        _compare(f"{tool.name}, undoing", _files(tree), before)


def _run(tool: _Tool, command: tuple[str, ...], tree: Path) -> None:
    done = processes.run(command, cwd=tree, env=git_environment(command[1:], folder=tree), capture_output=True)
    if done.returncode:
        raise CheckFailed(
            f"{tool.name} refuses the patch",
            expected=" ".join(command),
            found=(done.stdout + done.stderr).decode(errors="replace").strip(),
        )


def _write(tree: Path, files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def _files(tree: Path) -> dict[str, bytes]:
    return {file.relative_to(tree).as_posix(): file.read_bytes() for file in tree.rglob("*") if file.is_file()}


def _check_modes(tool: _Tool, tree: Path, added: Mapping[str, int]) -> None:
    for path, mode in added.items():
        executable = (tree / path).stat().st_mode & 0o111
        if bool(executable) != bool(mode & 0o111):
            raise CheckFailed(f"{tool.name}: {path} has the wrong mode", expected=f"{mode:o}", found=f"{executable:o}")


def _compare(way: str, found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> None:
    for path in sorted(found.keys() | expected.keys()):
        old, new = expected.get(path), found.get(path)
        if old == new:
            continue
        number, line_old, line_new = _first_difference(old, new)
        raise CheckFailed(f"{way}: {path} comes out wrong at line {number}", expected=line_old, found=line_new)


def _first_difference(expected: bytes | None, found: bytes | None) -> tuple[int, str, str]:
    if expected is None or found is None:
        return 1, *("no file" if side is None else "a file" for side in (expected, found))  # type: ignore[return-value]
    sides = split_lines(expected), split_lines(found)
    number = next((i for i, (a, b) in enumerate(zip(*sides, strict=False)) if a != b), min(map(len, sides)))
    shown = [repr(side[number]) if number < len(side) else "the end of the file" for side in sides]
    return number + 1, shown[0], shown[1]
