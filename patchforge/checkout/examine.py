"""What state a checkout is in, by the bytes of its files. Apply, revert, repair, update, status and doctor ask here."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from functools import cached_property
from pathlib import Path

from patchforge.checkout import journal, transaction
from patchforge.checkout.journal import Changed, FoundJournal, Kept
from patchforge.checkout.merge import merge
from patchforge.checkout.place import MANAGEMENT, FolderKind, Where, command, where
from patchforge.checkout.subject import (
    MARK,
    MODULE,
    ComfyUICheckout,
    Instead,
    NodePack,
    Subject,
    head,
    module_files,
    of_module,
)
from patchforge.errors import PatchforgeError
from patchforge.inside import EntryKind, Inside
from patchforge.vocabulary import Tree, git_blob_id

_CONFLICT = re.compile(rb"^<{7} ", re.MULTILINE)
_AS_IN_A_COPY = ", as in a copy that apply --to wrote"
_CONFLICT_END = re.compile(rb"^>{7} ", re.MULTILINE)


class FolderState(StrEnum):
    """The states of a checkout. There is no other."""

    UNTOUCHED = "not patched"  #: nothing of patchforge is in its files
    PATCHED = "patched"
    HALF = "half patched"  #: a run was ended in between, or something put part of the files back
    UPDATED = "updated since"  #: files are a newer or older release's than the one that was patched
    EDITED = "edited since"  #: patched, and a file was edited
    LOST = "module lost"  #: files call the module, and it is not there: ComfyUI does not start
    UNKNOWN = "not ComfyUI"


class FileState(Enum):
    """What one file of a journal holds."""

    ORIGINAL = auto()  #: what it is without patchforge
    PATCHED = auto()
    FOUND = auto()  #: what stood there when the journal was written: not written yet
    EDITED = auto()  #: something else, with something of ours in it
    OTHER = auto()  #: something else, and nothing of ours in it
    UPSTREAM = auto()  #: what the git checkout's commit has, which is not what the journal knows
    MISSING = auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """One file of a journal as it is now. ``before`` and ``after`` have the line ends that it has now."""

    path: str
    now: bytes | None
    part: FileState
    before: bytes | None
    after: bytes | None
    lost: bool = False  #: before and after are not known

    @property
    def alike(self) -> bool:
        """The patches do not change it (any more)."""
        return not self.lost and self.before == self.after


@dataclass(frozen=True)
class Examined:
    """A checkout as it is now."""

    inside: Inside
    subject: Subject
    state: FolderState
    found: FoundJournal
    stated: str = ""
    seen: tuple[Seen, ...] = ()
    leftovers: tuple[str, ...] = ()
    amiss: tuple[str, ...] = ()  #: edited files that are not what patchforge makes of the edit
    tree: Callable[[], Tree | None] = field(default=lambda: None)

    @cached_property
    def head(self) -> Tree | None:
        """The tree of the git checkout's commit."""
        return self.tree()

    @property
    def known(self) -> Kept | None:
        """The journal that is obeyed."""
        return self.found.known

    @cached_property
    def where(self) -> Where:
        """What the folder is."""
        return where(self.inside.shown)

    @property
    def misplaced(self) -> bool:
        """Patched as a pack, and more or less than one."""
        known = self.known is not None and self.known.journal.kind == "pack"
        return known and self.where.place not in (FolderKind.PACK, FolderKind.OTHER)

    @property
    def damaged(self) -> tuple[str, ...]:
        """What is missing from its journal, or is not what it was."""
        return self.known.damaged if self.known else ()

    @cached_property
    def untold(self) -> tuple[str, ...]:
        """Files of which neither a journal nor the git checkout tells what they are without patchforge."""
        if self.found.kept and not self.found.kept.lost:
            return ()
        lost = [
            file.path
            for file in self.seen
            if file.lost and file.part is not FileState.ORIGINAL and not of_module(file.path)
        ]
        paths = lost if self.known else [*self.subject.marked(self.inside)]
        return tuple(path for path in paths if not self.is_original_in_git(path))

    def is_original_in_git(self, path: str, data: bytes | None = None) -> bool:
        """Whether the git checkout's commit has a file unpatched (and as ``data``)."""
        if self.head is None or path not in self.head.entries():
            return False
        own = self.head.read(path)
        return not self.subject.names_ours(own) and (data is None or same_text(own, data))

    @property
    def repair(self) -> str:
        """The command that puts it right, with where the originals must come from if only a person can tell."""
        if not self.untold:
            return self.command("repair")
        what = f"ComfyUI {self.subject.stated(self.inside)}".strip() if self.subject.kind == "release" else "the pack"
        return f"{self.command('repair')} --from ARCHIVE|DIR, naming {what} as it comes,"

    @property
    def says(self) -> str:
        """The state in one sentence."""
        if self.misplaced:
            return f"converted as one pack, and it is {self.where.place}"
        edited = ", ".join(file.path for file in self.seen if file.part in (FileState.EDITED, FileState.OTHER))
        known = self.known.journal.subject if self.known else ""
        text = {
            FolderState.UNTOUCHED: "not patched" + (" any more, but there is a journal" if self.known else ""),
            FolderState.PATCHED: "patched",
            FolderState.HALF: "half patched: "
            + (_not_ours(self.amiss) or "some of the files are patched and some are not"),
            FolderState.UPDATED: f"updated since it was patched{f' (as {known})' if known and self.stated else ''}",
            FolderState.EDITED: f"edited since it was patched: {edited}",
            FolderState.LOST: f"module lost: its files call patchforge's module, and {MODULE} is missing or not whole",
            FolderState.UNKNOWN: str(self.where.place),
        }[self.state]
        aside = f"; {self.found.problem}, and is not obeyed" if self.found.problem else ""
        if self.damaged:
            aside = f"; in its journal {', '.join(self.damaged)} {'is' if len(self.damaged) == 1 else 'are'} damaged"
        alone = self.state is FolderState.PATCHED and self.found == FoundJournal()
        aside = f", and there is no journal of it{_AS_IN_A_COPY if self.is_copy else ''}" if alone else aside
        return text + aside

    @cached_property
    def is_copy(self) -> bool:
        """A whole ComfyUI that is patched as ``apply --to`` writes one: without a journal, and no git checkout."""
        alone = self.state is FolderState.PATCHED and self.found == FoundJournal() and not self.leftovers
        return alone and self.subject.kind == "release" and not (self.inside.root / ".git").exists()

    @property
    def do(self) -> str:
        """The command that puts it right; "" where nothing is wrong."""
        undo = self.command("revert")
        if self.misplaced:
            return f"{undo} undoes it"
        if self.state is FolderState.UNKNOWN:
            return self.where.refusal().do
        if self.state is FolderState.UNTOUCHED:
            return self._do_untouched(undo)
        undone = f"; or {undo} undoes it" if self.known and not self.untold else ""
        if self.state is FolderState.UPDATED:
            return f"{self.command('update')}{undone}"
        if self.state is FolderState.HALF:
            return f"{self.repair} finishes it{undone}"
        if self.state is FolderState.LOST:
            return f"{self.repair} puts it back{undone}"
        if self.is_copy:
            return f"write a new copy with apply --to; or {self.repair} makes a journal of it"
        if self.known is None or self.damaged:
            return f"{self.repair} makes a journal of it"
        return f"{self.repair} removes what a killed run left" if self.leftovers else ""

    def _do_untouched(self, undo: str) -> str:
        if self.known:
            return f"{self.repair} patches it again; or {undo} removes the journal"
        if self.found.problem:
            return f"look at {self.inside.shown / self.found.place} and move it away, then {self.command('apply')}"
        return f"{self.command('repair')} removes what a killed run left" if self.leftovers else self.command("apply")

    @property
    def in_order(self) -> bool:
        """Nothing needs to be put right."""
        fine = self.state in (FolderState.UNTOUCHED, FolderState.PATCHED, FolderState.EDITED)
        odd = (
            FolderState.UNTOUCHED if self.known else FolderState.PATCHED
        )  #: a journal of nothing, or none of something
        fine = fine and not self.misplaced and (self.state is not odd or self.is_copy)
        return fine and not self.leftovers and not self.found.problem and not self.damaged

    def command(self, name: str) -> str:
        """The whole command line, for this folder."""
        kind = self.known.journal.kind if self.known and name == "revert" else self.subject.kind
        return command(kind, name, self.inside.shown)


def subject_kind(inside: Inside, journals: FoundJournal) -> str:
    """Whether a folder is a release's or a pack's; "" for one that is neither."""
    if inside.kind(MANAGEMENT) is EntryKind.FILE:
        return "release"
    if journals.kept:
        return journals.kept.journal.kind
    return "pack" if where(inside.shown).place is FolderKind.PACK else ""


def subject_of(inside: Inside, comfyui: Subject) -> Subject:
    """What a folder is: a pack with the options that it was converted with, or ``comfyui``."""
    journals = journal.find(inside)
    if subject_kind(inside, journals) == "pack":
        return NodePack(journals.known.journal.options if journals.known else ())
    return comfyui


def look(folder: Path) -> Examined:
    """The state of a folder."""
    inside = Inside(folder)
    return examine(inside, subject_of(inside, ComfyUICheckout()))


def examine(inside: Inside, subject: Subject, journals: FoundJournal | None = None) -> Examined:
    """InTheWay where a link or a folder stands at a place of a file that was patched. Writes nothing.

    ``found`` is a journal that is taken for the folder's.
    """
    journals = journals or journal.find(inside)
    kind = subject_kind(inside, journals)
    if not kind or (kind != subject.kind and not journals.known):
        return Examined(inside, subject, FolderState.UNKNOWN, journals)
    tree = _once(inside)
    if not journals.known:
        return Examined(inside, subject, _without(inside, subject), journals, leftovers=tuple(_left(inside)), tree=tree)
    seen = tuple(_seen(inside, subject, changed, journals.known, tree) for changed in journals.known.journal.files)
    stated = subject.stated(inside)
    state = _state(seen, moved=bool(stated) and stated != journals.known.journal.subject)
    amiss = tuple(_amiss(inside, subject, seen) if state is FolderState.EDITED else _broken(seen))
    state = FolderState.HALF if amiss and state is FolderState.EDITED else state
    return Examined(inside, subject, state, journals, stated, seen, tuple(_left(inside, known=True)), amiss, tree)


def _broken(seen: tuple[Seen, ...]) -> Iterator[str]:
    return (file.path for file in seen if file.part in (FileState.EDITED, FileState.OTHER) and broken(file.now))


def _amiss(inside: Inside, subject: Subject, seen: tuple[Seen, ...]) -> list[str]:
    """Edited files that are not what comes of the edit when ours is taken out and it is converted again."""
    edited = {file.path: file.now for file in seen if file.part in (FileState.EDITED, FileState.OTHER)}
    without = {file.path: (file.before, "") if file.path not in edited else _unpatched(file) for file in seen}
    if problems := [path for path, (_, problem) in without.items() if problem]:
        return problems
    files = {path: data for path, (data, _) in without.items()}
    try:
        tree = subject.tree(inside.root)
        strangers = {path: None for path in tree.entries() if of_module(path)}
        made = subject.convert_tree(inside, Instead(tree, {**strangers, **files}))
    except PatchforgeError:
        return list(edited)
    return [path for path, now in edited.items() if made.after.get(path, files[path]) != now]


def _unpatched(file: Seen) -> tuple[bytes | None, str]:
    if file.lost:
        return None, "its original is lost"
    data, problem = taken_out(file.now, file.before, file.after)
    return data, problem or broken(file.now) or broken(data)


def broken(data: bytes | None) -> str:
    """Why a file cannot be Python that a person means to run, or ""."""
    if data is None:
        return ""
    if _CONFLICT.search(data) and _CONFLICT_END.search(data):
        return "it holds marks of a conflict"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(data)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return f"it is not Python: {getattr(error, 'msg', '') or error}"
    return ""


def _not_ours(paths: tuple[str, ...]) -> str:
    if not paths:
        return ""
    return f"{', '.join(paths)} {'is' if len(paths) == 1 else 'are'} not what patchforge makes of the edit"


def _once(inside: Inside) -> Callable[[], Tree | None]:
    kept: list[Tree | None] = []

    def tree() -> Tree | None:
        if not kept:
            kept.append(head(inside))
        return kept[0]

    return tree


def _state(seen: tuple[Seen, ...], *, moved: bool) -> FolderState:
    parts = {file.part for file in seen if not file.alike or file.part is FileState.FOUND}
    hooked = any(
        file.part in (FileState.PATCHED, FileState.EDITED) and not file.alike
        for file in seen
        if not of_module(file.path)
    )
    if moved or FileState.UPSTREAM in {file.part for file in seen}:
        return FolderState.UPDATED
    if hooked and any(of_module(file.path) and file.now is None for file in seen):
        return FolderState.LOST
    if not parts:
        return FolderState.UNTOUCHED
    if parts <= {FileState.ORIGINAL, FileState.OTHER}:
        return FolderState.UNTOUCHED
    if parts == {FileState.PATCHED}:
        return FolderState.PATCHED
    return FolderState.EDITED if parts <= {FileState.PATCHED, FileState.EDITED} else FolderState.HALF


def _without(inside: Inside, subject: Subject) -> FolderState:
    """The state of a folder whose journal is missing, or not obeyed."""
    marked = subject.marked(inside)
    if subject.kind == "pack":
        return _whole(inside, subject, marked) if marked else FolderState.UNTOUCHED
    module = module_files(inside)
    if not marked:
        return FolderState.HALF if any(is_ours(path, data) for path, data in module.items()) else FolderState.UNTOUCHED
    if not {path for path, _ in our_module()} <= module.keys():
        return FolderState.LOST
    return _whole(inside, subject, marked)


def _whole(inside: Inside, subject: Subject, marked: dict[str, bytes]) -> FolderState:
    if any(map(broken, marked.values())):
        return FolderState.HALF
    try:
        return FolderState.PATCHED if subject.whole(inside) else FolderState.HALF
    except PatchforgeError:
        return FolderState.HALF


def our_module() -> list[tuple[str, bytes]]:
    """The package that hooks call, as this patchforge has it: path and bytes."""
    from patchforge.pipeline import runtime_changes  # noqa: PLC0415 - slow to import

    return [(change.path, change.after) for change in runtime_changes()]


def is_ours(path: str, data: bytes) -> bool:
    """Whether bytes are those of a file of this patchforge's package."""
    return any(path == place and same_text(data, own) for place, own in our_module())


Tell = Callable[[], Tree | None]


def _seen(inside: Inside, subject: Subject, changed: Changed, kept: Kept, tree: Tell) -> Seen:
    now = inside.read(changed.path)
    if changed.path in kept.lost:
        return Seen(changed.path, now, _by_id(changed, now, subject), None, None, lost=True)
    before, after = fit(kept.before[changed.path], now), fit(kept.after[changed.path], now)
    if (part := _known_part(changed, now, before, after)) is None:
        upstream = (
            before is not None and not subject.names_ours(now or b"") and _is_in(tree(), changed.path, now or b"")
        )
        part = (
            FileState.UPSTREAM
            if upstream
            else FileState.EDITED
            if hooked(now or b"", before, after)
            else FileState.OTHER
        )
    return Seen(changed.path, now, part, before, after)


def _by_id(changed: Changed, now: bytes | None, subject: Subject) -> FileState:
    if now is None:
        return FileState.ORIGINAL if changed.before is None else FileState.MISSING
    known = {changed.found: FileState.FOUND, changed.before: FileState.ORIGINAL, changed.after: FileState.PATCHED}
    return known.get(git_blob_id(now), FileState.EDITED if subject.names_ours(now) else FileState.OTHER)


def _known_part(changed: Changed, now: bytes | None, before: bytes | None, after: bytes | None) -> FileState | None:
    if now == after:
        return FileState.PATCHED
    if now == before:
        return FileState.ORIGINAL
    if now is None:
        return FileState.MISSING
    return FileState.FOUND if git_blob_id(now) == changed.found else None


def _is_in(tree: Tree | None, path: str, now: bytes) -> bool:
    entry = tree.entries().get(path) if tree else None
    if tree is None or entry is None:
        return False
    return entry.blob == git_blob_id(now) or same_text(now, tree.read(path))


def hooked(now: bytes, before: bytes | None, after: bytes | None) -> bool:
    """Whether something of what the patches put into a file is in these bytes."""
    theirs, lines = set((before or b"").splitlines()), now.splitlines()
    added = set((after or b"").splitlines()) - theirs
    if after is None or any(map(MARK.search, added)):
        return any(MARK.search(line) for line in lines if line not in theirs)
    return not added.isdisjoint(lines)


def fit(data: bytes | None, now: bytes | None) -> bytes | None:
    """``data`` with the line ends of ``now``, where those are all of one kind."""
    if data is None or now is None:
        return data
    plain = data.replace(b"\r\n", b"\n")
    if b"\r\n" not in now:
        return plain
    return plain.replace(b"\n", b"\r\n") if now.count(b"\n") == now.count(b"\r\n") else data


def same_text(text: bytes, other: bytes) -> bool:
    """Whether two files differ in their line ends at most."""
    return text == other or text.replace(b"\r\n", b"\n") == other.replace(b"\r\n", b"\n")


def _left(inside: Inside, *, known: bool = False) -> Iterator[str]:
    """What killed runs left: folders of journals and, in one that is ``known``, files that were to change places."""
    yield from (name for name, _ in journal.put_aside(inside))
    yield from transaction.spares(inside, journal.FOLDER) if known else ()


def taken_out(now: bytes | None, before: bytes | None, after: bytes | None) -> tuple[bytes | None, str]:
    """A file without what the patches put into it, all else kept; and why that cannot be done, or "".

    A three-way merge with the patched file as its base.
    """
    before, after = fit(before, now), fit(after, now)
    if now in (before, after):
        return before, ""
    if now is None or not hooked(now, before, after):
        return now, ""
    if before is None or after is None:
        return None, "the whole file is patchforge's"
    data = merge(after, now, before)
    if data is None:
        return None, "a line that both changed"
    return (data, "") if not hooked(data, before, after) else (None, "lines that another patchforge added")
