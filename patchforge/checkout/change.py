"""Patching a checkout in place, putting it back, and putting it right.

The journal, with the originals of all that is about to change, has its place before any file is changed. Files then
change together or not at all (see ``transaction``), and only if they still hold what was looked at. So a run that ends
anywhere leaves files that are old or new, and a journal that knows both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from patchforge.atomic import Step
from patchforge.checkout import journal, transaction
from patchforge.checkout.examine import (
    Examined,
    FileState,
    FolderState,
    Seen,
    broken,
    examine,
    hooked,
    is_ours,
    our_module,
    same_text,
    taken_out,
)
from patchforge.checkout.journal import Changed, FoundJournal, Journal, Kept, PatchFile
from patchforge.checkout.place import command
from patchforge.checkout.subject import MODULE, Files, PatchedFiles, Subject, module_files, of_module
from patchforge.checkout.transaction import Unfinished, Write
from patchforge.errors import CheckFailed, Damaged, Exit, PatchforgeError, SystemFault, TryAgain
from patchforge.escape import line
from patchforge.inside import EntryKind, Inside
from patchforge.interrupted import leaves
from patchforge.paths import quoted
from patchforge.sources.folder import LINK, FolderTree
from patchforge.vocabulary import Tree, git_blob_id

Source = Callable[[], Tree | None]  #: a release's own files, for when no journal tells them; asked only if needed


@dataclass(frozen=True)
class Plan:
    """What a command does to a checkout."""

    state: FolderState  #: of before
    writes: tuple[Write, ...] = ()
    files: tuple[str, ...] = ()  #: all that the journal knows
    journal: bool = False  #: a new one is made
    options: tuple[str, ...] = ()  #: that a new one has, after they had to be found out

    @property
    def written(self) -> list[str]:
        return sorted(write.path for write in self.writes if write.new is not None)

    @property
    def removed(self) -> list[str]:
        return sorted(write.path for write in self.writes if write.new is None)


@contextmanager
def opened(folder: Path, *, dry_run: bool = False, step: Step | None = None) -> Iterator[Inside]:
    """A checkout for one command at a time; TryAgain while another is at work there. A dry run holds nobody up."""
    inside = Inside(folder, step=step) if step else Inside(folder)
    if dry_run:
        yield inside
        return
    with inside.locked():
        leaves(folder, f"{command('release', 'status', inside.shown)} says how the folder is left")
        if journal.recover(inside):
            _tidy(inside)
        yield inside


# --- patching


def refuse_unless_untouched(inside: Inside, subject: Subject, *, dry_run: bool = False) -> Examined:
    """What patching asks first. PatchforgeError names the state that a checkout is in instead, and the way on.

    SystemFault where nothing may be written there.
    """
    seen = examine(inside, subject)
    _refuse_unknown(seen)
    if seen.state is FolderState.UNTOUCHED and not seen.found.problem:
        _check_links(seen)
        _check_module(seen)
        if not dry_run:
            inside.check_rights(journal.FOLDER)
        return seen
    again = f"{seen.command('update')} brings its patches up to date; {seen.command('revert')} undoes them"
    done = seen.state in (FolderState.PATCHED, FolderState.EDITED) and not seen.found.problem
    raise PatchforgeError(
        f"{inside.shown} is patched already" if done else f"{inside.shown}: {seen.says}",
        expected="a checkout that is not patched",
        found=seen.says if done else "",
        do=again if done and seen.known else way_on(seen),
    )


def patch(inside: Inside, subject: Subject, patched: PatchedFiles, *, context: int = 0, dry_run: bool = False) -> Plan:
    """Patches a checkout. PatchforgeError, and nothing written, unless its files hold what was converted."""
    seen = refuse_unless_untouched(inside, subject, dry_run=dry_run)
    plan = Plan(seen.state, tuple(_writes(inside, patched)), tuple(sorted(patched.after)))
    for write in plan.writes:
        if write.now != patched.before.get(write.path):
            what = "there already" if write.path not in patched.before else "not what was converted"
            raise CheckFailed(
                f"{inside.shown / write.path} is {what}",
                expected="nothing there" if write.path not in patched.before else "the release's own bytes",
                found="a file that is not patchforge's" if write.path not in patched.before else "other bytes",
                do="move it away, or name the release that is in the folder",
            )
    _say_links(inside, plan.writes)
    if not dry_run and plan.writes:
        _install(inside, subject, patched, _Steps(patched.files(context), plan.writes, patched.before, seen.known))
    return plan


def _writes(inside: Inside, patched: PatchedFiles) -> Iterator[Write]:
    for path, new in sorted(patched.after.items()):
        now = inside.read(path)
        if now != new:
            yield Write(path, now, new)


def _install(inside: Inside, subject: Subject, patched: PatchedFiles, steps: _Steps) -> None:
    """Gives the new journal its place and then changes the files. An error means that all is as it was."""
    made, aside = _journal(subject, patched, steps), steps.aside(inside)
    placed = False
    try:
        folder = journal.make(
            inside, made, steps.files, {file.path: steps.before.get(file.path) for file in made.files}
        )
        prepared = transaction.prepare(inside, folder, steps.writes)
        placed = True
        journal.put(inside, made, aside)
        moved = [replace(change, kept=change.kept.replace(folder, journal.FOLDER, 1)) for change in prepared]
        transaction.carry_out(inside, moved)
    except Unfinished as error:
        raise _way_on(error, inside, subject) from error
    except (Exception, KeyboardInterrupt):
        with suppress(PatchforgeError):
            _tidy(inside)
            if placed:
                journal.take_back(inside, made, aside)
            journal.unmake(inside, made)
        raise
    with _done(inside, subject):
        _tidy(inside)
        transaction.clear(inside, journal.FOLDER)
        if steps.earlier:
            journal.remove_old(inside, steps.earlier.journal)


def _say_links(inside: Inside, writes: Iterable[Write]) -> None:
    """Says, before it is so, that names of one file, as ``cp -al`` gives them, become files of their own."""
    if linked := [write.path for write in writes if inside.linked(write.path)]:
        more = f" and {len(linked) - 1} more" if len(linked) > 1 else ""
        print(
            f"note: {line(linked[0])}{more}: other names of the same file (hard links) keep what they hold, "
            "and are other files from then on",
            file=sys.stderr,
        )


def _way_on(error: Unfinished, inside: Inside, subject: Subject) -> Unfinished:
    finish, undo = (command(subject.kind, name, inside.shown) for name in ("repair", "revert"))
    do = f"once that is mended, {finish} finishes it and {undo} undoes it"
    return Unfinished(error.problem, found=error.found, do=do)


@contextmanager
def _done(inside: Inside, subject: Subject) -> Iterator[None]:
    """What is left to do when all files are what they shall be."""
    try:
        yield
    except PatchforgeError as error:
        raise SystemFault(
            f"the files are written, and not everything of ours could be removed after that: {error.problem}",
            found=error.found,
            do=f"once that is mended, {command(subject.kind, 'repair', inside.shown)} removes it",
        ) from error


@dataclass(frozen=True)
class _Steps:
    """What is to be written: the files of the journal, and changes of files that are without ours ``before``."""

    files: Mapping[str, bytes]
    writes: tuple[Write, ...]
    before: Files
    earlier: Kept | None

    def aside(self, inside: Inside) -> str:
        """What the folder at the journal's place is called from now on; "" where there is none."""
        if self.earlier:
            return journal.old(self.earlier.journal)
        return journal.free_name(inside) if inside.kind(journal.FOLDER) is not EntryKind.NOTHING else ""


def _journal(subject: Subject, patched: PatchedFiles, steps: _Steps) -> Journal:
    manifest = json.loads(steps.files["manifest.json"])
    now = {write.path: write.now for write in steps.writes}
    return Journal(
        format=journal.FORMAT,
        name=journal.new_name(),
        kind=subject.kind,
        subject=str(manifest.get("pack") or manifest.get("release")),
        commit=str(manifest["commit"]),
        rules=str(manifest["rules"]),
        options=subject.options,
        patches=tuple(PatchFile(entry["file"], entry["sha256"]) for entry in manifest["patches"]),
        files=tuple(_changed(path, patched, now, steps.before) for path in sorted({*patched.after, *now})),
    )


def _changed(path: str, patched: PatchedFiles, now: Files, before: Files) -> Changed:
    old = before.get(path)
    after = patched.after.get(path, old)
    return Changed(path, _blob(now.get(path, after)), _blob(old), _blob(after))


def _write(inside: Inside, subject: Subject, writes: Sequence[Write]) -> None:
    """Changes files of which the journal in place knows both contents."""
    left = set(transaction.spares(inside, journal.FOLDER))
    try:
        ready = {write.path: (f"{journal.FOLDER}/{transaction.ORIGINAL}/{write.path}",) for write in writes}
        prepared = transaction.prepare(inside, journal.FOLDER, writes, ready)
        transaction.carry_out(inside, prepared)
    except Unfinished as error:
        raise _way_on(error, inside, subject) from error
    except (Exception, KeyboardInterrupt):
        with suppress(PatchforgeError):
            transaction.clear(inside, journal.FOLDER, keep=left)
            _tidy(inside)
        raise


def _tidy(inside: Inside) -> None:
    """Removes the package's folder, with what Python compiled of our files, once none of them is in it."""
    if inside.kind(MODULE) is not EntryKind.FOLDER:
        return
    ours = {Path(path).name for path, _ in our_module()}
    if ours.isdisjoint(inside.names(MODULE)):
        compiled = {name.partition(".")[0] for name in ours}
        inside.remove_folder(f"{MODULE}/__pycache__", lambda name: name.partition(".")[0] in compiled)
        inside.remove_folder(MODULE, lambda _: False)


def _blob(data: bytes | None) -> str | None:
    return None if data is None else git_blob_id(data)


# --- putting back


def revert(inside: Inside, subject: Subject, *, dry_run: bool = False) -> Plan:
    """Takes everything of patchforge out again and removes the journal.

    A file that was edited since keeps the edit, and one that an update brought stays as it is. CheckFailed, and nothing
    written, where an edit and ours are in one place.
    """
    seen = examine(inside, subject)
    if seen.known is None:
        raise _nothing_to_undo(seen)
    writes = _undoing(seen)
    _say_links(inside, writes)
    if not dry_run:
        _write(inside, subject, writes)
        _tidy(inside)
        journal.take_away(inside, seen.known.journal)
    return Plan(seen.state, writes, tuple(file.path for file in seen.seen))


def _undoing(seen: Examined) -> tuple[Write, ...]:
    files = {file.path: file for file in seen.seen}
    new = _all_or_none(files, lambda path: _put_back(files[path], seen), seen)
    return tuple(Write(path, files[path].now, data) for path, data in new.items() if data != files[path].now)


def _nothing_to_undo(seen: Examined) -> PatchforgeError:
    shown = seen.inside.shown
    if seen.state is FolderState.UNKNOWN and not seen.found.problem:
        return seen.where.refusal(seen.subject.kind)
    if above := _converted_with(seen):
        return PatchforgeError(
            f"{shown} was converted with all that is in {above}",
            expected=f"{shown / journal.FOLDER}",
            found=f"{above / journal.FOLDER}",
            do=f"{command('pack', 'revert', above)} undoes it",
        )
    if seen.state is FolderState.UNTOUCHED and not seen.found.problem:
        return PatchforgeError(f"{shown} is not patched", found="no journal", do="nothing to undo here")
    expected = f"{shown / journal.FOLDER}, which tells what was there before"
    if seen.found.problem:
        return Damaged(f"{shown} cannot be put back: {seen.found.problem}", expected=expected, do=seen.do)
    return PatchforgeError(
        f"{shown} is not patched with a journal: {seen.says}",
        expected=expected,
        do=f"{seen.repair} makes one; then run this again",
    )


def _converted_with(seen: Examined) -> Path | None:
    """The folder above whose journal names files of this one."""
    for above in seen.inside.root.parents[:2]:
        name = f"{seen.inside.root.relative_to(above).as_posix()}/"
        known = journal.find(Inside(above)).known
        if known and any(file.path.startswith(name) for file in known.journal.files):
            return above
    return None


def _put_back(file: Seen, seen: Examined) -> bytes | None:
    """What a file holds once ours is taken out."""
    if file.part in (FileState.UPSTREAM, FileState.OTHER) or (file.lost and file.part is FileState.ORIGINAL):
        return file.now
    if file.lost:
        raise Damaged(
            f"the original of {file.path} is no longer in {seen.inside.shown / journal.FOLDER}",
            expected="its original, or a file whose patches can be taken out",
            found=f"{', '.join(seen.damaged)} missing or damaged",
            do=f"{seen.repair} makes the journal anew; then run this again",
        )
    if file.part is FileState.MISSING:
        return None if _gone_upstream(file.path, seen) else file.before
    if file.part is FileState.FOUND:
        return file.before
    new, problem = taken_out(file.now, file.before, file.after)
    if problem:
        raise _in_one_place(file.path, problem, seen)
    return new


def _gone_upstream(path: str, seen: Examined) -> bool:
    """Whether an update removed a file: the git checkout's commit has none, and it has others."""
    return seen.head is not None and path not in seen.head.entries() and not of_module(path)


class InTheWayOfOurs(CheckFailed):
    """What must not be written over stands where ours goes. Once ``first`` is done, the command can do its work."""

    def __init__(self, problem: str, first: str, *, expected: str = "", found: str = "") -> None:
        super().__init__(problem, expected=expected, found=found, do=f"{first}, and run this again")
        self.first = first


class InOnePlace(InTheWayOfOurs):
    """An edit and ours are in one place, for each of the files with why."""

    def __init__(self, problems: Mapping[str, str], first: str) -> None:
        paths, reasons = list(problems), set(problems.values())
        one = len(paths) == 1
        edited, edits = ("was edited", "the edit") if one else ("were edited", "the edits")
        super().__init__(
            f"{_listed(paths)} {edited} after {'it was' if one else 'they were'} patched, and {edits} cannot be kept",
            first,
            found=reasons.pop() if len(reasons) == 1 else "; ".join(f"{path}: {problems[path]}" for path in paths),
        )
        self.problems = problems


def _listed(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{', '.join(paths[:-1])} and {paths[-1]}"


def _in_one_place(path: str, problem: str, seen: Examined) -> InOnePlace:
    return _in_the_same_places({path: broken(seen.inside.read(path)) or problem}, seen)


def _in_the_same_places(problems: Mapping[str, str], seen: Examined) -> InOnePlace:
    shown, known = seen.inside.shown, {file.path: file.before for file in seen.seen if not file.lost}
    steps = [f"save your edit{'' if len(problems) == 1 else 's'}"]
    added = [path for path in problems if of_module(path) or known.get(path, b"") is None]
    if added:
        steps.append(f"remove {' '.join(quoted(shown / path) for path in added)}")
    others = [path for path in problems if path not in added]
    if in_git := [path for path in others if seen.is_original_in_git(path)]:
        steps.append(f"run git -C {quoted(shown)} checkout HEAD -- {' '.join(map(quoted, in_git))}")
    for path in others:
        if path not in in_git:
            original = shown / journal.FOLDER / transaction.ORIGINAL / path
            there = quoted(original) if path in known else f"the unpatched {path}"
            steps.append(f"copy {there} to {quoted(shown / path)}")
    return InOnePlace(problems, ", ".join(steps))


def _all_or_none(paths: Iterable[str], make: Callable[[str], bytes | None], seen: Examined) -> dict[str, bytes | None]:
    """What ``make`` gives for each path. InOnePlace names all files whose edits are in the way, not the first alone."""
    made: dict[str, bytes | None] = {}
    problems: dict[str, str] = {}
    for path in paths:
        try:
            made[path] = make(path)
        except InOnePlace as error:
            problems |= error.problems
    if problems:
        raise _in_the_same_places(problems, seen)
    return made


def way_on(seen: Examined) -> str:
    """What puts a checkout right, tried without writing; "" where nothing is wrong. Reads no network."""
    if seen.state in (FolderState.UNTOUCHED, FolderState.UNKNOWN) or seen.misplaced or not seen.do:
        return seen.do
    undoes = seen.known is not None and not _refusal(lambda: _undoing(seen))
    refused = _refusal(lambda: _would_put_right(seen))
    if refused is None:
        return seen.do if undoes or seen.is_copy else seen.do.partition("; or ")[0]
    undo = f"; or {seen.command('revert')} undoes it" if undoes else ""
    if seen.is_copy:
        return seen.do.partition("; or ")[0]
    if isinstance(refused, InTheWayOfOurs):
        return f"{refused.first}, then {seen.do.partition('; or ')[0]}{undo}"
    return f"{refused.do}{undo}"


def _would_put_right(seen: Examined) -> None:
    if not seen.untold:
        command = update if seen.state is FolderState.UPDATED else repair
        command(seen.inside, seen.subject, dry_run=True)
        return
    _check_links(seen)
    others, known = _Others(seen, seen.subject, ()), {file.path: file for file in seen.seen}

    def stripped(path: str) -> bytes | None:
        if path not in seen.untold:
            return _stripped(path, known.get(path), seen, others)
        if problem := broken(seen.inside.read(path)):
            raise _in_one_place(path, problem, seen)
        return None

    _all_or_none(dict.fromkeys([*known, *seen.untold]), stripped, seen)
    _check_module(seen)


def _refusal(act: Callable[[], object]) -> PatchforgeError | None:
    try:
        act()
    except PatchforgeError as error:
        return error
    return None


# --- putting right


def repair(inside: Inside, subject: Subject, sources: Sequence[Source] = (), *, dry_run: bool = False) -> Plan:
    """Finishes what is half done, puts a lost module back, and removes what killed runs left.

    What the journal knows is enough where nothing else was edited. Otherwise ours is taken out of every file and what
    is left is converted anew. Nothing is written unless all of it can be.
    """
    asked, (seen, subject) = subject, _adopted(inside, subject, dry_run=dry_run)
    if not seen.known and seen.state is FolderState.UNTOUCHED and not (sources and _unnamed(seen, subject, sources)):
        return Plan(seen.state)
    finished = _finished_by_the_journal(seen)
    if finished is None:
        return _renew(inside, subject, seen, sources, asked=asked, dry_run=dry_run)
    _say_links(inside, finished)
    if not dry_run:
        _write(inside, subject, finished)
        with _done(inside, subject):
            transaction.clear(inside, journal.FOLDER)
    return Plan(seen.state, finished, tuple(file.path for file in seen.seen), options=_found_out(asked, subject))


def _found_out(asked: Subject, subject: Subject) -> tuple[str, ...]:
    """Options that no journal told, and that the files showed."""
    return subject.options if subject.options != asked.options else ()


def _finished_by_the_journal(seen: Examined) -> tuple[Write, ...] | None:
    """What is left to change, where the journal alone tells it."""
    if seen.known is None or seen.known.damaged:
        return None
    if seen.state in (FolderState.PATCHED, FolderState.EDITED):
        return ()
    if seen.state is FolderState.UPDATED or _needs_more(seen.seen):
        return None
    return tuple(Write(file.path, file.now, new) for file in seen.seen if (new := _finished(file)) != file.now)


def update(inside: Inside, subject: Subject, sources: Sequence[Source] = (), *, dry_run: bool = False) -> Plan:
    """As ``repair``, and patches for the release and by the rules of now."""
    asked, (seen, subject) = subject, _adopted(inside, subject, dry_run=dry_run)
    if not seen.known and seen.state is FolderState.UNTOUCHED:
        raise PatchforgeError(f"{inside.shown} is not patched", found="nothing to update", do=seen.do)
    return _renew(inside, subject, seen, sources, asked=asked, dry_run=dry_run)


def _refuse_unknown(seen: Examined) -> None:
    if seen.misplaced:
        raise PatchforgeError(f"{seen.inside.shown}: {seen.says}", expected="one pack", do=seen.do)
    if seen.state is FolderState.UNKNOWN:
        raise seen.where.refusal(seen.subject.kind)


def _adopted(inside: Inside, subject: Subject, *, dry_run: bool) -> tuple[Examined, Subject]:
    """The examination; a journal without a record is obeyed from now on if it leads to the release's own files.

    Where it does not, and the files are patched, they are put right without it. Damaged where they are not.
    """
    seen = examine(inside, subject)
    _refuse_unknown(seen)
    if not seen.found.problem:
        return seen, subject
    kept = seen.found.kept
    if kept and not kept.lost and (made_by := _leads_to_the_release(inside, subject, kept)):
        kept = replace(kept, journal=replace(kept.journal, options=made_by.options))
        if not dry_run:
            journal.adopt(inside, kept.journal)
        return examine(inside, made_by, FoundJournal(kept, place=seen.found.place)), made_by
    if seen.state is FolderState.UNTOUCHED:
        raise _not_obeyed(seen)
    return seen, subject


def _not_obeyed(seen: Examined) -> Damaged:
    return Damaged(
        f"{seen.inside.shown}: {seen.found.problem}, and is not obeyed",
        expected="a journal that your patchforge wrote, or one whose originals are the release's own",
        found="it could put anything into these files" if seen.found.kept else "",
        do=seen.do,
    )


def _leads_to_the_release(inside: Inside, subject: Subject, kept: Kept) -> Subject | None:
    """What makes of the originals what the journal says."""
    changed = {path: data for path, data in kept.after.items() if data != kept.before[path]}
    for variant in subject.variants():
        try:
            patched = variant.convert(inside, dict(kept.before))
        except PatchforgeError:
            continue
        originals = all(patched.before.get(path) == kept.before[path] for path in changed)
        if dict(patched.after) == changed and originals:
            return variant
    return None


def _needs_more(seen: Iterable[Seen]) -> bool:
    """Whether a file holds what the journal does not know how to patch, or an edit that nobody compared with ours."""
    unknown = (FileState.OTHER, FileState.UPSTREAM, FileState.EDITED)
    return any(file.lost and file.part is not FileState.PATCHED for file in seen) or any(
        file.part in unknown and not file.alike for file in seen
    )


def _finished(file: Seen) -> bytes | None:
    return file.now if file.lost or file.alike else file.after


def _renew(
    inside: Inside, subject: Subject, seen: Examined, sources: Sequence[Source], *, asked: Subject, dry_run: bool
) -> Plan:
    """Ours out of every file, and the release that is left patched anew."""
    _check_links(seen)
    others = _Others(seen, subject, sources)
    without = _without_ours(inside, subject, seen, others)
    patched = others.subject.convert(inside, without)
    before: dict[str, bytes | None] = {**patched.before, **without}
    wanted = {path: patched.after.get(path, data) for path, data in before.items()} | dict(patched.after)
    present = {path: inside.read(path) for path in sorted(wanted)}
    writes = tuple(Write(path, present[path], new) for path, new in sorted(wanted.items()) if present[path] != new)
    anew = bool(writes) or not _is_current(seen, patched)
    plan = Plan(seen.state, writes, tuple(sorted(patched.after)), anew, _found_out(asked, others.subject))
    _say_links(inside, writes)
    if not dry_run and plan.journal:
        _install(inside, others.subject, patched, _Steps(patched.files(), plan.writes, before, seen.known))
    elif not dry_run:
        transaction.clear(inside, journal.FOLDER)
    return plan


def _is_current(seen: Examined, patched: PatchedFiles) -> bool:
    """Whether the journal says what it would say if it were written now."""
    if seen.known is None:
        return False
    kept = seen.known
    changed = {path: data for path, data in kept.after.items() if data != kept.before[path]}
    return (
        not kept.damaged
        and changed == dict(patched.after)
        and kept.journal.subject in ("", seen.stated or kept.journal.subject)
    )


def _without_ours(inside: Inside, subject: Subject, seen: Examined, others: _Others) -> dict[str, bytes | None]:
    """Every file that was or is patched, without ours. CheckFailed names the first where that cannot be done."""
    known = {file.path: file for file in seen.seen}
    paths = list(dict.fromkeys([*known, *subject.marked(inside), *others.unnamed()]))

    def stripped(path: str) -> bytes | None:
        data = _stripped(path, known.get(path), seen, others)
        if problem := broken(inside.read(path)) and broken(data):
            raise _in_one_place(path, problem, seen)
        return data

    without = _all_or_none(paths, stripped, seen)
    if subject.kind == "release":
        _check_module(seen)
        without |= dict.fromkeys(path for path in module_files(inside) if path not in without)
    return without


def _unnamed(seen: Examined, subject: Subject, sources: Sequence[Source]) -> list[str]:
    return _Others(seen, subject, sources).unnamed()


def _check_links(seen: Examined) -> None:
    """InTheWay for a link among ComfyUI's own files: what it leads to is not read, so it could not be patched."""
    if seen.subject.kind != "release":
        return
    for skipped in FolderTree(seen.inside.root).skipped:
        top = skipped.path.partition("/")[0]
        if skipped.reason == LINK and (top.startswith("comfy") or (top == skipped.path and top.endswith(".py"))):
            seen.inside.read(skipped.path)


def _check_module(seen: Examined) -> None:
    """What lies at the package's place must be ours, to be replaced by ours."""
    inside = seen.inside
    if seen.subject.kind != "release" or inside.kind(MODULE) not in (EntryKind.FOLDER, EntryKind.NOTHING):
        return
    known = {file.path for file in seen.seen} | {f"{MODULE}/__pycache__"}
    strange = []
    for path in [*(f"{MODULE}/{name}" for name in inside.names(MODULE)), *_alone(inside)]:
        data = inside.read(path) if inside.kind(path) is EntryKind.FILE else None
        if path not in known and not (data is not None and is_ours(path, data)):
            strange.append(str(inside.shown / path))
    if strange:
        one = len(strange) == 1
        raise InTheWayOfOurs(
            f"{_listed(strange)} {'is' if one else 'are'} not of this patchforge, and {'lies' if one else 'lie'} where "
            "its module goes",
            f"move {' '.join(map(quoted, strange))} away",
            expected="nothing but patchforge's own files there",
            found="another version's, an edited one, or your own",
        )


def _alone(inside: Inside) -> list[str]:
    return [f"{MODULE}.py"] if inside.kind(f"{MODULE}.py") is not EntryKind.NOTHING else []


def _stripped(path: str, file: Seen | None, seen: Examined, others: _Others) -> bytes | None:
    problem = ""
    if file is not None and of_module(path) and (file.now is None or file.part in (FileState.EDITED, FileState.OTHER)):
        if file.now is None or is_ours(path, file.now):
            return None
        raise _in_one_place(path, "the whole file is patchforge's", seen)
    if file is not None and not file.lost:
        if file.part in (FileState.UPSTREAM, FileState.OTHER):
            return file.now
        if file.part is FileState.MISSING:
            return None if _gone_upstream(path, seen) else file.before
        if file.part is FileState.FOUND:
            return file.before
        new, problem = taken_out(file.now, file.before, file.after)
        if not problem:
            return new
    now = seen.inside.read(path)
    for before, after in others.of(path):
        if now is None:
            return before
        new, problem = taken_out(now, before, after)
        if not problem and new is not None:
            return new
    if file is None and seen.known and not others.made_of(path):
        return now  # the user's own, which only names the module
    if not problem:
        raise _nothing_tells(path, seen, others)
    raise _in_one_place(path, "; ".join([problem, *others.problems]), seen)


def _nothing_tells(path: str, seen: Examined, others: _Others) -> PatchforgeError:
    what = "the unpatched release" if seen.subject.kind == "release" else "the pack as it comes"
    return (TryAgain if others.again else CheckFailed)(
        f"nothing tells what {path} was before it was patched",
        expected="a journal, a git checkout that was not committed patched, or the original itself",
        found="; ".join(others.problems) or "none of them",
        do=f"{seen.command('repair')} --from ARCHIVE|DIR, naming {what}",
    )


class _Others:
    """The bytes of a file before and after our patches, from wherever the release can be had."""

    def __init__(self, seen: Examined, subject: Subject, sources: Sequence[Source]) -> None:
        self.seen, self.subject = seen, subject
        self.sources: list[Source] = [lambda: seen.head, *sources]
        self.made: list[tuple[Tree, PatchedFiles]] = []
        self.problems: list[str] = []
        self.again = False  #: a source may answer later, and the original may be there

    def of(self, path: str) -> Iterator[tuple[bytes, bytes]]:
        """Before and after, from one source after the other."""
        if pair := self._not_obeyed(path):
            yield pair
        number = 0
        while number < len(self.made) or self._next():
            tree, patched = self.made[number]
            number += 1
            if path in tree.entries() and not self.subject.names_ours(before := tree.read(path)):
                yield before, patched.after.get(path, before)

    def unnamed(self) -> list[str]:
        """Files of a pack that were converted without a helper of ours in them; without a journal this alone tells."""
        if self.subject.kind != "pack" or self.seen.known:
            return []
        asked = True
        while asked and not any(patched.after for _, patched in self.made):  # what is converted already tells nothing
            asked = self._next()
        made = [(path, tree, patched) for tree, patched in self.made for path in patched.after]
        return sorted({path for path, tree, patched in made if self._holds(path, tree, patched)})

    def _holds(self, path: str, tree: Tree, patched: PatchedFiles) -> bool:
        now, before = self.seen.inside.read(path), tree.read(path) if path in tree.entries() else None
        known = now is not None and before is not None and not same_text(now, before)
        return known and hooked(now or b"", before, patched.after[path])

    def made_of(self, path: str) -> bool:
        """Whether a release or pack that was asked has such a file."""
        return any(path in tree.entries() for tree, _ in self.made)

    def _not_obeyed(self, path: str) -> tuple[bytes, bytes] | None:
        """What a journal without a record says, if its original is git's: no more than that can come back."""
        kept = self.seen.found.kept if self.seen.found.problem else None
        before, after = (kept.before.get(path), kept.after.get(path)) if kept else (None, None)
        known = before is not None and after is not None and self.seen.is_original_in_git(path, before)
        return (before, after) if known and before is not None and after is not None else None

    def _next(self) -> bool:
        while self.sources:
            try:
                tree = self.sources.pop(0)()
                if tree is not None:
                    self.made.append((tree, self._converted(tree)))
                    return True
            except PatchforgeError as error:
                self.problems.append(error.problem)
                self.again = self.again or error.status is Exit.AGAIN
        return False

    def _converted(self, tree: Tree) -> PatchedFiles:
        """By the choice of options, where no journal tells it, that gives most of the files as they are."""
        if self.seen.known:
            return self.subject.convert_tree(self.seen.inside, tree)
        files = self.subject.marked(self.seen.inside)
        ways: list[tuple[tuple[int, int], Subject, PatchedFiles]] = []
        for subject in self.subject.variants():
            made = subject.convert_tree(self.seen.inside, tree)
            ways.append((_fits(files, tree, made), subject, made))
            if ways[-1][0][0] == len(files):
                break
        _, self.subject, converted = max(ways, key=lambda way: way[0])
        return converted


def _fits(files: Mapping[str, bytes], tree: Tree, made: PatchedFiles) -> tuple[int, int]:
    """How many files are as converted, and of how many the conversion can be taken out."""
    known = {path: data for path, data in files.items() if path in tree.entries()}
    same = sum(same_text(data, made.after.get(path, b"")) for path, data in known.items())
    fit = sum(not taken_out(data, tree.read(path), made.after.get(path))[1] for path, data in known.items())
    return same, fit
