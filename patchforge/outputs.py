"""What patchforge may replace: every command that writes asks here.

A folder of ours holds ``SHA256SUMS``, which lists all its files (``sha256sum --check`` reads it). It may be replaced as
long as it holds those files as they were written, and no others; else somebody's work is in it, and it is left alone.
Outputs of earlier versions are known by what they hold. A file of ours has a line in it with the digest of all others.

The path that is named may be a link that the user made: then what it leads to must be ours. No link in a folder is
followed. What is read and what is written may not be in each other.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from patchforge import atomic, bounded, interrupted
from patchforge.atomic import Step
from patchforge.errors import PatchforgeError

LIST = "SHA256SUMS"
_TITLE = (
    b"# Written by patchforge, which replaces this folder as long as it holds these files, unchanged, and no others.\n"
)
_LISTED = re.compile(rb"([0-9a-f]{64})  ([^\n\\]+)\n")
_LARGEST = 1 << 24  #: bytes of a list or manifest
_SHOWN = 5

Check = Callable[[bytes], bool]
#: Whether a file by that name is ours, and how its bytes are checked. Of a folder the name ends with a slash.
Known = Callable[[str], Check | None]


@dataclass(frozen=True, slots=True)
class OutputKind:
    """A kind of folder that patchforge writes."""

    title: str
    names: re.Pattern[str]  #: of every file that may be in one
    #: What is ours in a folder of an earlier version, which has no list; None where it is not one.
    earlier: Callable[[Path], Known | None] = lambda _: None


def listed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files and the list of them."""
    lines = (
        hashlib.sha256(data).hexdigest().encode() + b"  " + name.encode() + b"\n"
        for name, data in sorted(files.items())
    )
    return {**files, LIST: _TITLE + b"".join(lines)}


def write_folder(
    target: Path,
    files: Mapping[str, bytes],
    kind: OutputKind,
    *,
    inputs: Iterable[Path] = (),
    step: Step = atomic.silent,
) -> bool:
    """Makes ``target`` a folder of ``files`` and their list; False when it is that already.

    PatchforgeError names what is not ours in a folder that is there, and what it would write over of ``inputs``; then
    nothing is written.
    """
    place = place_of(target, inputs)
    _refuse_where_we_are(place)
    _leaves(place)
    return atomic.write_tree(place, listed(files), ours=lambda folder: prove(folder, kind), step=step)


def _leaves(place: Path) -> None:
    interrupted.leaves(place, f"{place} is whole: as it was before, or as it was to be")


def check_folder(target: Path, kind: OutputKind, inputs: Iterable[Path] = ()) -> None:
    """PatchforgeError where ``write_folder`` would refuse what is there, or could not write: before the work."""
    place = place_of(target, inputs)
    _refuse_where_we_are(place)
    if os.path.lexists(place):
        prove(place, kind)
    else:
        atomic.try_place(place)


def write_new(
    target: Path, files: Mapping[str, bytes], *, executable: Iterable[str] = (), inputs: Iterable[Path] = ()
) -> bool:
    """Makes ``target`` a folder of ``files`` where none is, or an empty one; False when it is that already."""
    place = place_of(target, inputs)
    _refuse_where_we_are(place)
    _leaves(place)
    return atomic.write_tree(place, files, executable=frozenset(executable))


def check_new(target: Path, inputs: Iterable[Path] = ()) -> None:
    """PatchforgeError where ``write_new`` could not write: before the work."""
    place = place_of(target, inputs)
    _refuse_where_we_are(place)
    if not os.path.lexists(place):
        atomic.try_place(place)


def update_folder(folder: Path, kind: OutputKind, change: Callable[[Mapping[str, bytes]], Mapping[str, bytes]]) -> bool:
    """Writes what ``change`` makes of the files in a folder of ours, which may be new. Nobody else may write there."""
    return write_folder(folder, change(read_folder(folder, kind)), kind)


def read_folder(folder: Path, kind: OutputKind) -> dict[str, bytes]:
    """The files of a folder of ours, without their list; none where there is none. PatchforgeError as for writing."""
    place = place_of(folder)
    atomic.recover(place, ours=lambda killed: prove(killed, kind))
    if not os.path.lexists(place):
        return {}
    prove(place, kind)
    entries = sorted(atomic.content(place).items())
    return {name: bounded.file(place / name) for name, status in entries if status and name != LIST}


def prove(folder: Path, kind: OutputKind) -> None:
    """PatchforgeError unless all that is in the folder is ours."""
    if strange := list(islice(_strange(folder, kind), _SHOWN)):
        raise PatchforgeError(
            f"{folder} holds other files",
            expected=f"{kind.title} as patchforge wrote them, or nothing",
            found=", ".join(strange),
            do="choose another output, or move these away",
        )


def _strange(folder: Path, kind: OutputKind) -> Iterator[str]:
    """What is not ours, with why."""
    if not folder.is_dir() or folder.is_symlink():
        yield f"{folder}, which is not a folder"
        return
    known = _by_list(folder) or kind.earlier(folder)
    if known is None:
        yield from sorted(entry.name for entry in os.scandir(folder))
        return
    for name, status in atomic.content(folder).items():
        path = folder / name
        if status is None and _is_plain_folder(path):
            if known(f"{name}/") is None:
                yield f"{name}/"
        elif status is None:
            yield f"{name}, which is not a plain file"
        elif (check := known(name)) is None or not (name == LIST or kind.names.fullmatch(name)):
            yield name
        elif status.st_size > bounded.MOST or not check(bounded.file(path)):
            yield f"{name}, edited since"


def _is_plain_folder(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _by_list(folder: Path) -> Known | None:
    """What the list of a folder says; None without a list of ours."""
    digests = _digests(folder)
    if digests is None:
        return None
    return known_by({LIST: lambda _: True, **{name: has_digest(digest) for name, digest in digests.items()}})


def _digests(folder: Path) -> dict[str, str] | None:
    """The files that the list of a folder names, with their digests; None without a list of ours."""
    text = read_plain(folder / LIST)
    if text is None or not text.replace(b"\r\n", b"\n").startswith(_TITLE):
        return None
    lines = text.replace(b"\r\n", b"\n").removeprefix(_TITLE)
    digests = {name.decode("utf-8", "surrogateescape"): digest.decode() for digest, name in _LISTED.findall(lines)}
    size = sum(len(digest) + len(name.encode("utf-8", "surrogateescape")) + 3 for name, digest in digests.items())
    return digests if size == len(lines) else None


def differences(folder: Path, expected: Iterable[str]) -> list[str]:
    """How a folder differs from what its list names, and the list from what is ``expected`` in it; file by file."""
    content = atomic.content(folder)
    digests = _digests(folder)
    problems = []
    if digests is None:
        problems.append(f"{LIST} is {'not as patchforge wrote it' if LIST in content else 'missing'}")
    else:
        problems += [f"{LIST} does not name {name}" for name in sorted(set(expected) - digests.keys())]
    named = digests if digests is not None else dict.fromkeys(expected, "")
    for name in sorted(named.keys() | content.keys() - {LIST}):
        status, digest = content.get(name), named.get(name)
        if name not in content:
            problems.append(f"{name} is missing")
        elif digest is None:
            problems.append(f"{name} is not one of its files")
        elif status is None:
            problems.append(f"{name} is not a plain file")
        elif digest and (status.st_size > bounded.MOST or not has_digest(digest)(bounded.file(folder / name))):
            problems.append(f"{name} has other bytes than {LIST} names")
    return problems


def known_by(checks: Mapping[str, Check]) -> Known:
    """What is ours, said file by file."""
    folders = {f"{name[: at.start()]}/" for name in checks for at in re.finditer("/", name)}
    return lambda name: (lambda _: True) if name in folders else checks.get(name)


def has_digest(digest: str) -> Check:
    """Whether bytes have that SHA-256, also where git turned their line ends into those of Windows."""
    return lambda data: (
        digest
        in {
            hashlib.sha256(data).hexdigest(),
            hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest(),
        }
    )


def read_plain(path: Path) -> bytes | None:
    """The bytes of a plain file of moderate size; None for a link, for anything else and where there is nothing."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
        return None
    return bounded.file(path, _LARGEST)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a plain JSON file; None where there is none."""
    try:
        document = json.loads(read_plain(path) or b"")
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _earlier_patches(folder: Path) -> Known | None:
    """A manifest of format 1 lists its patches with digests; series and report follow from it."""
    manifest = read_json(folder / "manifest.json") or {}
    patches = manifest.get("patches")
    if manifest.get("format") != 1 or not isinstance(manifest.get("rules"), str) or not isinstance(patches, list):
        return None
    digests: dict[str, str] = {}
    for patch in patches:
        if not (
            isinstance(patch, dict) and isinstance(patch.get("file"), str) and isinstance(patch.get("sha256"), str)
        ):
            return None
        digests[patch["file"]] = patch["sha256"]
    order = "".join(f"{name}\n" for name in sorted(digests)).encode()
    return known_by(
        {
            **{name: has_digest(digest) for name, digest in digests.items()},
            "manifest.json": lambda _: True,
            "series": lambda data: data.replace(b"\r\n", b"\n") == order,
            "REPORT.md": lambda data: bool(re.match(rb"# .+ (for|on) Intel GPUs\r?\n", data)),
        }
    )


PATCHES = OutputKind("patches", re.compile(r"[^/]+\.patch|series|manifest\.json|REPORT\.md"), _earlier_patches)

# Files


_MARK = "Written by patchforge, which replaces this file as long as nothing else in it changes; sha256 of the rest:"
_MARKED = re.compile(rf"^[^\n]*{re.escape(_MARK)} ([0-9a-f]{{64}})[^\n]*\n".encode(), re.MULTILINE)
_BLANK = "0" * 64


def mark() -> str:
    """A text for one line of a file; ``marked`` puts the digest of all other lines into it."""
    return f"{_MARK} {_BLANK}"


def marked(text: str) -> bytes:
    """The file with its mark filled in. ``text`` has one line with ``mark()``, and ends that line."""
    data = text.encode()
    line = _MARKED.search(data)
    if line is None:
        raise ValueError("no mark")
    digest = hashlib.sha256(data[: line.start()] + data[line.end() :]).hexdigest()
    return data.replace(mark().encode(), f"{_MARK} {digest}".encode(), 1)


def is_marked(data: bytes) -> bool:
    """Whether the file is as ``marked`` made it."""
    data = data.replace(b"\r\n", b"\n")
    line = _MARKED.search(data)
    return (
        line is not None and hashlib.sha256(data[: line.start()] + data[line.end() :]).hexdigest() == line[1].decode()
    )


def has_mark(data: bytes) -> bool:
    """Whether a file says that it is ours, unchanged or not."""
    return _MARKED.search(data.replace(b"\r\n", b"\n")) is not None


def write_document(
    path: Path,
    data: bytes,
    known: Check = is_marked,
    *,
    inputs: Iterable[Path] = (),
    step: Step = atomic.silent,
) -> bool:
    """Makes ``data`` the content of a file; False when it is that already.

    A file that is there must be as ``known`` says ours is, or empty; else PatchforgeError, and nothing is written.
    """
    place = place_of(path, inputs)
    _leaves(place)
    return atomic.write_file(place, data, ours=lambda file: _prove_file(file, known), step=step)


def check_document(path: Path, known: Check = is_marked, inputs: Iterable[Path] = ()) -> None:
    """PatchforgeError where ``write_document`` would refuse what is there, or could not write."""
    place = place_of(path, inputs)
    if os.path.lexists(place):
        _prove_file(place, known)
    else:
        atomic.try_place(place)


def _prove_file(file: Path, known: Check) -> None:
    if file.is_symlink() or not file.is_file():
        raise PatchforgeError(
            f"{file} is not a plain file", expected="a file, or nothing yet", do="name another output"
        )
    data = bounded.file(file)
    if data and not known(data):
        raise PatchforgeError(
            f"{file} is not as patchforge wrote it",
            expected="a file that patchforge made, unchanged",
            found="edited since" if has_mark(data) else "another file",
            do="choose another output, or move it away",
        )


def place_of(named: Path, inputs: Iterable[Path] = ()) -> Path:
    """Where to write. A link that is named leads there; one to nothing, or in a circle, is refused."""
    place = Path(os.path.realpath(named))
    if named.is_symlink() and not place.exists():
        raise PatchforgeError(
            f"{named} is a link to nothing",
            expected="a link to an output, or no link",
            do="remove it, or name another output",
        )
    for source in inputs:
        if how := _overlap(place, Path(os.path.realpath(source))):
            raise PatchforgeError(
                f"the output {named} {how} {source}, which is read",
                expected="an output apart from what is read",
                do="name another output",
            )
    return place


def _overlap(output: Path, read: Path) -> str:
    if _identity(output) == _identity(read):
        return "is"
    if _identity(read) in map(_identity, output.parents):
        return "lies in"
    return "contains" if _identity(output) in map(_identity, read.parents) else ""


def _identity(path: Path) -> tuple[int, int] | Path:
    """What two paths of one thing share, on file systems that do not tell upper from lower case too."""
    try:
        status = path.stat()
    except OSError:
        return path
    return (status.st_dev, status.st_ino) if status.st_ino else path


def _refuse_where_we_are(place: Path) -> None:
    if _overlap(place, Path.cwd()) in {"is", "contains"}:
        raise PatchforgeError(
            f"{place} is where you are, or holds it",
            expected="a folder that can be replaced",
            do="change to another folder first, or name another output",
        )
