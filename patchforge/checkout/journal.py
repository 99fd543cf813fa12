"""The journal in ``.patchforge/``: which files were changed, from which bytes to which, and the originals.

A journal is input: anybody can put one into a folder. It is obeyed only if this user's patchforge wrote it, which a
record outside of the folder tells: its random name and the digest of its bytes. A folder that is moved or copied takes
its journal along, and the record still fits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args

from patchforge import bounded, faults
from patchforge.checkout import transaction
from patchforge.checkout.transaction import ORIGINAL, Write, is_spare, spare
from patchforge.errors import CheckFailed, Damaged, PatchforgeError, SystemFault
from patchforge.inside import EntryKind, Inside, InTheWay, check_path
from patchforge.names import kept
from patchforge.patches import FilePatch, apply_part, parse, reverse_part
from patchforge.vocabulary import git_blob_id

FOLDER = ".patchforge"  #: in the checkout
JOURNAL = "journal.json"
FORMAT = 1
_LARGEST = 16 << 20  #: bytes of a journal; one of ComfyUI has 10 kB
_NAME = re.compile(r"[0-9a-f]{32}")
_BLOB = re.compile(r"[0-9a-f]{40}")
_PATCH = re.compile(r"\d{4}-[a-z0-9-]+\.patch")
_ASIDE = re.compile(r"\.patchforge-(?:new|old)-([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class Changed:
    """One file, by the blob ids of what it held; None where it was not there.

    ``found`` stood there when the journal was written. ``before`` is what it is without patchforge: the same, or, where
    an earlier patchforge had been at work, what is left once that is taken out. ``after`` is what was written.
    """

    path: str
    found: str | None
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class PatchFile:
    """A patch in the journal, by its digest."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Journal:
    """What was done to a folder. ``subject`` is the release's version or the pack's name."""

    format: int
    name: str  #: random, 32 hex digits
    kind: Literal["release", "pack"]
    subject: str
    commit: str
    rules: str
    options: tuple[str, ...]
    patches: tuple[PatchFile, ...]
    files: tuple[Changed, ...]

    @property
    def data(self) -> bytes:
        """As it is written."""
        return (json.dumps(asdict(self), indent=1, sort_keys=True) + "\n").encode()


@dataclass(frozen=True)
class Kept:
    """A journal with its bytes."""

    journal: Journal
    before: Mapping[str, bytes | None]
    after: Mapping[str, bytes | None]
    lost: frozenset[str] = frozenset()  #: files of which one of both is neither kept nor to be had back
    damaged: tuple[str, ...] = ()  #: what is missing from the journal's folder, or is not what it was


@dataclass(frozen=True)
class FoundJournal:
    """What a folder has for a journal. ``problem`` says why it is not obeyed; both are empty where there is none."""

    kept: Kept | None = None
    problem: str = ""
    place: str = FOLDER

    @property
    def known(self) -> Kept | None:
        """The journal, if it is obeyed."""
        return None if self.problem else self.kept


def state_folder() -> Path:
    """Where records are: PATCHFORGE_STATE, or the user's folder for such things."""
    import platformdirs  # noqa: PLC0415 - keeps start-up light

    return Path(os.environ.get("PATCHFORGE_STATE") or platformdirs.user_state_path("patchforge")).expanduser()


def new_name() -> str:
    """A name that nobody can guess."""
    return secrets.token_hex(16)


# --- reading


def find(inside: Inside) -> FoundJournal:
    """The journal of a folder; also one that a killed run had put aside and not replaced."""
    kind = inside.kind(FOLDER)
    if kind is EntryKind.FOLDER:
        return _at(inside, FOLDER)
    if kind is not EntryKind.NOTHING:
        return FoundJournal(problem=f"{inside.shown / FOLDER} is {kind}")
    aside = (name for name, _ in put_aside(inside) if name.startswith(".patchforge-old-"))
    return next(
        (kept_journal for kept_journal in (_at(inside, name) for name in aside) if kept_journal.known), FoundJournal()
    )


def put_aside(inside: Inside) -> Iterator[tuple[str, str]]:
    """Folders of killed runs, with the journal's name in theirs: only a run of this user's could know that."""
    for name in inside.names():
        match = _ASIDE.fullmatch(name)
        if match and _record(match[1]) and inside.kind(name) is EntryKind.FOLDER:
            yield name, match[1]


def _at(inside: Inside, place: str) -> FoundJournal:
    where = inside.shown / place
    try:
        data = inside.read(f"{place}/{JOURNAL}")
        if data is None:
            return _of_before(inside, place, "has no record of your patchforge")
        try:
            journal = _parsed(data)
        except Damaged as error:
            return _of_before(inside, place, f"holds a {JOURNAL} that is damaged: {error.problem}")
        kept = _kept(inside, place, journal)
    except PatchforgeError as error:
        if isinstance(error, SystemFault):
            raise
        return FoundJournal(problem=f"{where} is not a journal of patchforge: {error.problem}", place=place)
    if _record(journal.name) == hashlib.sha256(data).hexdigest():
        return FoundJournal(kept, place=place)
    return FoundJournal(kept, f"{where} was not written by your patchforge", place)


def _of_before(inside: Inside, place: str, problem: str) -> FoundJournal:
    """A journal of patchforge 0.1, which had no records, or a damaged one: the manifest beside it tells the same."""
    data = inside.read(f"{place}/manifest.json")
    if data is None:
        why = problem if inside.kind(f"{place}/{JOURNAL}") is EntryKind.FILE else f"has no {JOURNAL}"
        return FoundJournal(problem=f"{inside.shown / place} is not a journal of patchforge: it {why}", place=place)
    manifest = _json(data)
    try:
        last = {file["path"]: file for patch in manifest["patches"] for file in patch["files"]}
        first = {file["path"]: file for patch in reversed(manifest["patches"]) for file in patch["files"]}
        plain = {
            "format": FORMAT,
            "name": hashlib.sha256(data).hexdigest()[:32],
            "kind": "pack" if "pack" in manifest else "release",
            "subject": manifest.get("pack") or manifest.get("release"),
            "commit": manifest["commit"],
            "rules": manifest["rules"],
            "options": [],
            "patches": [{"file": patch["file"], "sha256": patch["sha256"]} for patch in manifest["patches"]],
            "files": [
                {"path": path, "found": file["before"], "before": file["before"], "after": last[path]["after"]}
                for path, file in first.items()
            ],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"its manifest is not one ({type(error).__name__})") from None
    kept = _kept(inside, place, _checked(plain))
    return FoundJournal(kept, f"{inside.shown / place} {problem}", place)


def _parsed(data: bytes) -> Journal:
    return _checked(_json(data))


def _json(data: bytes) -> Any:
    if len(data) > _LARGEST:
        raise Damaged(f"it is larger than {_LARGEST} bytes")
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Damaged("it is not JSON") from None


def _checked(plain: Any) -> Journal:
    """Damaged unless the values have the types of a journal, and every name and path is one that we would write."""
    import cattrs  # noqa: PLC0415 - keeps start-up light

    if not isinstance(plain, dict):
        raise Damaged("it does not have the form of one")
    try:
        journal: Journal = _converter().structure(plain, Journal)
    except (cattrs.BaseValidationError, AttributeError, RecursionError):
        raise Damaged("it does not have the form of one") from None
    _check(journal)
    return journal


@cache
def _converter() -> Any:
    import cattrs  # noqa: PLC0415

    def text(value: object, _: object) -> str:
        if not isinstance(value, str):
            raise TypeError("not a text")
        return value

    def number(value: object, _: object) -> int:
        if type(value) is not int:
            raise TypeError("not a number")
        return value

    def several(value: object, kind: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise TypeError("not a list")
        return tuple(converter.structure(item, get_args(kind)[0]) for item in value)

    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(str, text)
    converter.register_structure_hook(int, number)
    converter.register_structure_hook_func(lambda kind: getattr(kind, "__origin__", None) is tuple, several)
    return converter


def _check(journal: Journal) -> None:
    blobs = [blob for file in journal.files for blob in (file.found, file.before, file.after) if blob is not None]
    names = [patch.file for patch in journal.patches]
    paths = [file.path for file in journal.files]
    wrong = {
        "the format of this patchforge": journal.format != FORMAT,
        "a name": not _NAME.fullmatch(journal.name),
        "a blob id": not all(map(_BLOB.fullmatch, blobs)),
        "a digest": not all(re.fullmatch("[0-9a-f]{64}", patch.sha256) for patch in journal.patches),
        "the name of a patch": not all(map(_PATCH.fullmatch, names)),
        "each patch once": len(set(names)) < len(names),
        "each file once": len(set(paths)) < len(paths),
        "a file before or after": any(file.before is file.after is None for file in journal.files),
    }
    if problems := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise Damaged(f"it does not have {problems[0]}")
    for file in journal.files:
        check_path(file.path)
        if kept(file.path) or not file.path.endswith(".py"):
            raise Damaged("it names a file that patchforge never writes", found=file.path)


def _kept(inside: Inside, place: str, journal: Journal) -> Kept:
    """The bytes that a journal stands for, as far as their blob ids are right; from wherever they can be had."""
    parts, damaged = _parts(inside, place, journal)
    whole = not damaged
    before: dict[str, bytes | None] = {}
    after: dict[str, bytes | None] = {}
    lost: set[str] = set()
    for file in journal.files:
        copies = _copies(inside, place, file)
        try:
            before[file.path], after[file.path] = _both(file, copies, parts.get(file.path, []), whole=whole)
        except LookupError:
            lost.add(file.path)
        if file.before is not None and (
            copies[0] is None or _blob(copies[0]) not in (file.before, file.after, file.found)
        ):
            damaged.append(f"{ORIGINAL}/{file.path}")
    return Kept(journal, before, after, frozenset(lost), tuple(damaged))


def _copies(inside: Inside, place: str, file: Changed) -> list[bytes | None]:
    """What may be one of both: the kept original, what a run that was killed had prepared or put aside, the file."""
    kept = [inside.read(path) for path in (f"{place}/{ORIGINAL}/{file.path}", spare(place, file.path))]
    with suppress(InTheWay):  # whoever looks at the file itself says so
        kept.append(inside.read(file.path))
    return kept


def _parts(inside: Inside, place: str, journal: Journal) -> tuple[dict[str, list[FilePatch]], list[str]]:
    """File → its parts of all patches, in order; and the patches that are missing or damaged."""
    known, damaged = {file.path for file in journal.files}, []
    parts: dict[str, list[FilePatch]] = {}
    for patch in sorted(journal.patches, key=lambda each: each.file):
        data = inside.read(f"{place}/{patch.file}")
        if data is None or hashlib.sha256(data).hexdigest() != patch.sha256:
            damaged.append(patch.file)
            continue
        for part in parse(data):
            if part.path not in known:
                raise Damaged(f"{patch.file} changes a file that it does not name")
            parts.setdefault(part.path, []).append(part)
    return parts, damaged


def _both(
    file: Changed, copies: Sequence[bytes | None], parts: Sequence[FilePatch], *, whole: bool
) -> tuple[bytes | None, bytes | None]:
    """A file's bytes before and after. LookupError where they cannot be had."""
    before, after = (_with_blob(blob, copies) for blob in (file.before, file.after))
    if before is _NOWHERE and whole and after is not _NOWHERE:
        before = after
        for part in reversed(parts):
            before = reverse_part(part, before)
    if before is _NOWHERE or _blob(before) != file.before:
        raise LookupError(file.path)
    if whole:
        after = before
        for part in parts:
            after = apply_part(part, after)
        if _blob(after) != file.after:
            raise Damaged(f"its patches do not make the {file.path} that it names")
    if after is _NOWHERE:
        raise LookupError(file.path)
    return before, after


_NOWHERE: bytes | None = b"\0nowhere"  #: no file is this very object


def _with_blob(blob: str | None, copies: Sequence[bytes | None]) -> bytes | None:
    if blob is None:
        return None
    return next((data for data in copies if data is not None and git_blob_id(data) == blob), _NOWHERE)


def _blob(data: bytes | None) -> str | None:
    return None if data is None else git_blob_id(data)


# --- writing


def make(inside: Inside, journal: Journal, files: Mapping[str, bytes], before: Mapping[str, bytes | None]) -> str:
    """Writes the record, and then the journal into a folder aside, which it returns; ``put`` gives it its place.

    CheckFailed, and nothing written, for one that would not be obeyed when it is read again.
    """
    _check_own(journal)
    _write_record(inside, journal)
    folder = _new(journal)
    for path, data in {".gitignore": b"*\n", **files}.items():
        inside.add(f"{folder}/{path}", data)
    for path, original in before.items():
        if original is not None:
            inside.add(f"{folder}/{ORIGINAL}/{path}", original, like=path)
    inside.add(f"{folder}/{JOURNAL}", journal.data)
    return folder


def _check_own(journal: Journal) -> None:
    try:
        known = _parsed(journal.data)
    except Damaged as error:
        raise CheckFailed(
            "this could not be undone, so nothing is written",
            expected="a journal that patchforge would obey",
            found=f"{error.problem}{error.found and f': {error.found}'}",
            do="report it",
        ) from error
    if known != journal:
        raise CheckFailed("this could not be undone, so nothing is written", found="another journal", do="report it")


def unmake(inside: Inside, journal: Journal) -> None:
    """Removes what ``make`` wrote, as far as it came."""
    if inside.kind(_new(journal)) is not EntryKind.NOTHING:
        _remove(inside, _new(journal))
    with suppress(OSError):
        _place(journal.name).unlink(missing_ok=True)


def put(inside: Inside, journal: Journal, aside: str) -> None:
    """Gives a journal that was made its place; what stands there is called ``aside`` from now on."""
    if aside:
        inside.rename(FOLDER, aside)
    inside.rename(_new(journal), FOLDER)


def take_back(inside: Inside, journal: Journal, aside: str) -> None:
    """Undoes ``put``, as far as it came."""
    if inside.kind(_new(journal)) is EntryKind.NOTHING:
        inside.rename(FOLDER, _new(journal))
    if aside and inside.kind(aside) is not EntryKind.NOTHING:
        inside.rename(aside, FOLDER)


def old(journal: Journal) -> str:
    """What a journal's folder is called before it is removed."""
    return f".patchforge-old-{journal.name}"


def _new(journal: Journal) -> str:
    return f".patchforge-new-{journal.name}"


def free_name(inside: Inside) -> str:
    """What a folder that is not obeyed can be called, to be out of the way."""
    return next(
        name for name in map(f"{FOLDER}-not-obeyed-{{}}".format, count(1)) if inside.kind(name) is EntryKind.NOTHING
    )


def take_away(inside: Inside, journal: Journal) -> None:
    """Removes a journal. What else lies in its folder stays there."""
    inside.rename(FOLDER, old(journal))
    _remove(inside, old(journal))


def remove_old(inside: Inside, journal: Journal) -> None:
    """Removes a journal that another one has replaced."""
    _remove(inside, old(journal))


def adopt(inside: Inside, journal: Journal) -> None:
    """Records a journal that was found to be what patchforge makes, so that it is obeyed from now on."""
    _write_record(inside, journal)
    path = f"{FOLDER}/{JOURNAL}"
    if (now := inside.read(path)) != journal.data:
        transaction.carry_out(inside, transaction.prepare(inside, FOLDER, [Write(path, now, journal.data)]))
        transaction.clear(inside, FOLDER)


def recover(inside: Inside) -> bool:
    """Ends what a killed run had begun with journals: one has its place, and nothing is left aside. Whether it had."""
    if inside.kind(FOLDER) is EntryKind.NOTHING and (journals := find(inside)).known:
        inside.rename(journals.place, FOLDER)
    left = [name for name, _ in put_aside(inside)]
    for name in left:
        _remove(inside, name)
    return bool(left)


def _remove(inside: Inside, folder: str) -> None:
    """A folder of ours; without its journal it is nobody's, so that goes first. Others' files in it are kept."""
    if not inside.remove_folder(folder, _is_ours, JOURNAL) and inside.kind(FOLDER) is EntryKind.NOTHING:
        inside.rename(folder, FOLDER)


def _is_ours(name: str) -> bool:
    own = {JOURNAL, "manifest.json", "series", "REPORT.md", ".gitignore", ORIGINAL}
    return name in own or is_spare(name) or bool(_PATCH.fullmatch(name))


# --- records


def _record(name: str) -> str:
    """The digest of the journal of that name; "" where there is no record."""
    try:
        known = json.loads(bounded.file(_place(name)))
        return str(known["sha256"])
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""  # a record that was cut short: its journal had not been given its place
    except OSError as error:
        raise _no_state(error) from error


def _write_record(inside: Inside, journal: Journal) -> None:
    place = _place(journal.name)
    told = {"sha256": hashlib.sha256(journal.data).hexdigest(), "folder": str(inside.root)}
    fresh = place.with_suffix(".new")
    try:
        inside.step("record")
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(json.dumps(told), "utf-8")
        with fresh.open("rb+") as stream:
            os.fsync(stream.fileno())
        inside.step("record in place")
        fresh.replace(place)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise _no_state(error) from error


def _place(name: str) -> Path:
    return state_folder() / "checkouts" / f"{name}.json"


def _no_state(error: OSError) -> SystemFault:
    return SystemFault(
        f"{state_folder()} cannot be used",
        expected="a folder in which patchforge keeps records of the checkouts that it patched",
        found=faults.reason(error),
        do="set PATCHFORGE_STATE to another folder",
    )
