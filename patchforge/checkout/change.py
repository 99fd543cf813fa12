"""Patching a checkout in place, putting it back, and putting it right.

The journal, with the originals of all that is about to change, has its place before any file is written. Each file is
then replaced by one rename, and only if it still holds what was looked at. So a run that ends anywhere leaves files
that are old or new, and a journal that knows both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from patchforge.checkout import journal
from patchforge.checkout.examine import (
    Examined,
    Part,
    Seen,
    State,
    broken,
    could_write,
    examine,
    is_ours,
    our_module,
    same_text,
    taken_out,
)
from patchforge.checkout.journal import Changed, Journal, Kept, PatchFile
from patchforge.checkout.place import command
from patchforge.checkout.subject import MARK, MODULE, Files, PatchedFiles, Subject, head, module_files, of_module
from patchforge.errors import CheckFailed, Damaged, Exit, PatchforgeError, SystemFault, TryAgain
from patchforge.inside import Inside, Kind, Step
from patchforge.sources.folder import LINK, FolderTree
from patchforge.vocabulary import Tree, git_blob_id

Source = Callable[[], Tree | None]  #: a release's own files, for when no journal tells them; asked only if needed


@dataclass(frozen=True, slots=True)
class Write:
    """One change: what a file holds, and what it shall hold; None for nothing."""

    path: str
    now: bytes | None
    new: bytes | None


@dataclass(frozen=True)
class Plan:
    """What a command does to a checkout."""

    state: State  #: of before
    writes: tuple[Write, ...] = ()
    files: tuple[str, ...] = ()  #: all that the journal knows
    journal: bool = False  #: a new one is made

    @property
    def written(self) -> list[str]:
        return sorted(one.path for one in self.writes if one.new is not None)

    @property
    def removed(self) -> list[str]:
        return sorted(one.path for one in self.writes if one.new is None)


@contextmanager
def opened(folder: Path, *, dry_run: bool = False, step: Step | None = None) -> Iterator[Inside]:
    """A checkout for one command at a time; TryAgain while another is at work there. A dry run holds nobody up."""
    inside = Inside(folder, step=step) if step else Inside(folder)
    if dry_run:
        yield inside
        return
    with _locked(inside):
        journal.recover(inside)
        yield inside


@contextmanager
def _locked(inside: Inside) -> Iterator[None]:
    import filelock  # noqa: PLC0415 - keeps start-up light

    found = inside.root.stat()
    place = journal.state_folder() / "locks" / f"{found.st_dev:x}-{found.st_ino:x}.lock"
    lock = filelock.FileLock(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise TryAgain(
            f"another run of patchforge is at work in {inside.shown}", do="run this again when that has ended"
        ) from None
    except OSError as error:
        raise SystemFault(
            f"{place.parent} cannot be used",
            found=error.strerror or str(error),
            do="set PATCHFORGE_STATE to another folder",
        ) from error
    try:
        yield
    finally:
        lock.release()


# --- patching


def refuse_unless_untouched(inside: Inside, subject: Subject) -> Examined:
    """What patching asks first. PatchforgeError names the state that a checkout is in instead, and the way on."""
    seen = examine(inside, subject)
    _refuse_unknown(seen)
    if seen.state is State.UNTOUCHED and not seen.found.problem:
        _check_links(seen)
        _check_module(seen)
        return seen
    again = f"{seen.command('update')} brings its patches up to date; {seen.command('revert')} undoes them"
    done = seen.state in (State.PATCHED, State.EDITED) and not seen.found.problem
    raise PatchforgeError(
        f"{inside.shown} is patched already" if done else f"{inside.shown}: {seen.says}",
        expected="a checkout that is not patched",
        found=seen.says if done else "",
        do=again if done and seen.known else seen.do,
    )


def patch(inside: Inside, subject: Subject, patched: PatchedFiles, *, context: int = 0, dry_run: bool = False) -> Plan:
    """Patches a checkout. PatchforgeError, and nothing written, unless its files hold what was converted."""
    seen = refuse_unless_untouched(inside, subject)
    plan = Plan(seen.state, tuple(_writes(inside, patched)), tuple(sorted(patched.after)))
    for one in plan.writes:
        if one.now != patched.before.get(one.path):
            what = "there already" if one.path not in patched.before else "not what was converted"
            raise CheckFailed(
                f"{inside.shown / one.path} is {what}",
                expected="nothing there" if one.path not in patched.before else "the release's own bytes",
                found="a file that is not patchforge's" if one.path not in patched.before else "other bytes",
                do="move it away, or name the release that is in the folder",
            )
    if not dry_run and plan.writes:
        _install(inside, subject, patched, _Steps(patched.files(context), plan.writes, patched.before, seen.known))
    return plan


def _writes(inside: Inside, patched: PatchedFiles) -> Iterator[Write]:
    for path, new in sorted(patched.after.items()):
        now = inside.read(path)
        if now != new:
            yield Write(path, now, new)


def _install(inside: Inside, subject: Subject, patched: PatchedFiles, steps: _Steps) -> None:
    """Gives the new journal its place and then writes the files."""
    made = _journal(subject, patched, steps)
    journal.make(inside, made, steps.files, {one.path: steps.before.get(one.path) for one in made.files})
    journal.put(inside, made, steps.earlier.journal if steps.earlier else None)
    _write(inside, steps.writes)


@dataclass(frozen=True)
class _Steps:
    """What is to be written: the files of the journal, and changes of files that are without ours ``before``."""

    files: Mapping[str, bytes]
    writes: tuple[Write, ...]
    before: Files
    earlier: Kept | None


def _journal(subject: Subject, patched: PatchedFiles, steps: _Steps) -> Journal:
    manifest = json.loads(steps.files["manifest.json"])
    now = {one.path: one.now for one in steps.writes}
    return Journal(
        format=journal.FORMAT,
        name=journal.new_name(),
        kind=subject.kind,
        subject=str(manifest.get("pack") or manifest.get("release")),
        commit=str(manifest["commit"]),
        rules=str(manifest["rules"]),
        options=subject.options,
        patches=tuple(PatchFile(one["file"], one["sha256"]) for one in manifest["patches"]),
        files=tuple(_changed(path, patched, now, steps.before) for path in sorted({*patched.after, *now})),
    )


def _changed(path: str, patched: PatchedFiles, now: Files, before: Files) -> Changed:
    old = before.get(path)
    after = patched.after.get(path, old)
    return Changed(path, _blob(now.get(path, after)), _blob(old), _blob(after))


def _write(inside: Inside, writes: Sequence[Write]) -> None:
    for one in writes:
        if one.new is None:
            if one.now is not None:
                inside.remove(one.path, was=one.now)
        else:
            inside.replace(one.path, one.new, was=one.now)
    if any(one.new is None and of_module(one.path) for one in writes):
        _tidy(inside)


def _tidy(inside: Inside) -> None:
    """Removes the package's folder, with what Python compiled of our files, unless anything else is in it."""
    cached = f"{MODULE}/__pycache__"
    ours = {Path(path).stem for path, _ in our_module()}
    for folder, is_of_ours in ((cached, lambda name: name.partition(".")[0] in ours), (MODULE, lambda _: False)):
        if inside.kind(folder) is Kind.FOLDER:
            inside.remove_folder(folder, is_of_ours)


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
    writes = tuple(Write(one.path, one.now, new) for one in seen.seen if (new := _put_back(one, seen)) != one.now)
    if not dry_run:
        _clear(inside, seen)
        _write(inside, writes)
        journal.take_away(inside, seen.known.journal)
    return Plan(seen.state, writes, tuple(one.path for one in seen.seen))


def _nothing_to_undo(seen: Examined) -> PatchforgeError:
    shown = seen.inside.shown
    if seen.state is State.UNKNOWN and not seen.found.problem:
        return seen.where.refusal(seen.subject.kind)
    if above := _converted_with(seen):
        return PatchforgeError(
            f"{shown} was converted with all that is in {above}",
            expected=f"{shown / journal.FOLDER}",
            found=f"{above / journal.FOLDER}",
            do=f"{command('pack', 'revert', above)} undoes it",
        )
    if seen.state is State.UNTOUCHED and not seen.found.problem:
        return PatchforgeError(f"{shown} is not patched", found="no journal", do="nothing to undo here")
    expected = f"{shown / journal.FOLDER}, which tells what was there before"
    if seen.found.problem:
        return PatchforgeError(f"{shown} cannot be put back: {seen.found.problem}", expected=expected, do=seen.do)
    return PatchforgeError(
        f"{shown} is not patched with a journal: {seen.says}",
        expected=expected,
        do=f"{seen.command('repair')} makes one; then run this again",
    )


def _converted_with(seen: Examined) -> Path | None:
    """The folder above whose journal names files of this one."""
    for above in seen.inside.root.parents[:2]:
        name = f"{seen.inside.root.relative_to(above).as_posix()}/"
        known = journal.find(Inside(above)).known
        if known and any(one.path.startswith(name) for one in known.journal.files):
            return above
    return None


def _put_back(one: Seen, seen: Examined) -> bytes | None:
    """What a file holds once ours is taken out."""
    if one.part in (Part.UPSTREAM, Part.OTHER) or (one.lost and one.part is Part.ORIGINAL):
        return one.now
    if one.lost:
        raise Damaged(
            f"the original of {one.path} is missing from {seen.inside.shown / journal.FOLDER}",
            expected="its bytes, or a file whose patches can be taken out",
            found="neither",
            do=f"{seen.command('repair')} gets it from the release",
        )
    if one.part is Part.MISSING:
        return None if _gone_upstream(one.path, seen) else one.before
    if one.part is Part.FOUND:
        return one.before
    new, problem = taken_out(one.now, one.before, one.after)
    if problem:
        raise _in_one_place(one.path, problem, seen)
    return new


def _gone_upstream(path: str, seen: Examined) -> bool:
    """Whether an update removed a file: the git checkout's commit has none, and it has others."""
    return seen.head is not None and path not in seen.head.entries() and not of_module(path)


def _in_one_place(path: str, problem: str, seen: Examined) -> CheckFailed:
    shown, found = seen.inside.shown, broken(seen.inside.read(path)) or problem
    if of_module(path):
        do = f"save your edit, remove {shown / path} and run this again"
    elif seen.head is not None and path in seen.head.entries() and not _is_patched(seen.head, path):
        do = f"save your edit, run git -C {shown} checkout HEAD -- {path}, and run this again"
    else:
        named = f"{seen.command('repair')} --from ARCHIVE|DIR, naming what it was made from"
        do = f"{named}; or save your edit, put the unpatched {path} in its place, and run this again"
    return CheckFailed(f"{path} was edited after it was patched, and the edit cannot be kept", found=found, do=do)


# --- putting right


def repair(inside: Inside, subject: Subject, sources: Sequence[Source] = (), *, dry_run: bool = False) -> Plan:
    """Finishes what is half done, puts a lost module back, and removes what killed runs left.

    What the journal knows is enough where nothing else was edited. Otherwise ours is taken out of every file and what
    is left is converted anew. Nothing is written unless all of it can be.
    """
    seen = _adopted(inside, subject, dry_run=dry_run)
    if not dry_run:
        _clear(inside, seen)
    if seen.known and seen.state in (State.PATCHED, State.EDITED):
        return Plan(seen.state, (), tuple(one.path for one in seen.seen))
    if not seen.known and seen.state is State.UNTOUCHED:
        return Plan(seen.state)
    if seen.known and seen.state is not State.UPDATED and not _needs_more(seen.seen):
        writes = tuple(Write(one.path, one.now, new) for one in seen.seen if (new := _finished(one)) != one.now)
        if not dry_run:
            _write(inside, writes)
        return Plan(seen.state, writes, tuple(one.path for one in seen.seen))
    return _renew(inside, subject, seen, sources, dry_run=dry_run)


def update(inside: Inside, subject: Subject, sources: Sequence[Source] = (), *, dry_run: bool = False) -> Plan:
    """As ``repair``, and patches for the release and by the rules of now."""
    seen = _adopted(inside, subject, dry_run=dry_run)
    if not seen.known and seen.state is State.UNTOUCHED:
        raise PatchforgeError(f"{inside.shown} is not patched", found="nothing to update", do=seen.do)
    if not dry_run:
        _clear(inside, seen)
    return _renew(inside, subject, seen, sources, dry_run=dry_run)


def _refuse_unknown(seen: Examined) -> None:
    if seen.misplaced:
        raise PatchforgeError(f"{seen.inside.shown}: {seen.says}", expected="one pack", do=seen.do)
    if seen.state is State.UNKNOWN:
        raise seen.where.refusal(seen.subject.kind)


def _adopted(inside: Inside, subject: Subject, *, dry_run: bool) -> Examined:
    """The examination; a journal without a record is obeyed from now on if it leads to the release's own files."""
    seen = examine(inside, subject)
    _refuse_unknown(seen)
    if not seen.found.problem:
        return seen
    kept = seen.found.kept
    if kept and not kept.lost and not dry_run and _leads_to_the_release(inside, subject, kept):
        journal.adopt(inside, kept.journal)
        return examine(inside, subject)
    place = inside.shown / seen.found.place
    raise PatchforgeError(
        f"{inside.shown}: {seen.found.problem}, and is not obeyed",
        expected="a journal that your patchforge wrote, or one whose originals are the release's own",
        found="it could put anything into these files" if kept else "",
        do=f"look at {place} and move it away; "
        + (seen.command("apply") if seen.state is State.UNTOUCHED else f"then {seen.command('repair')}"),
    )


def _leads_to_the_release(inside: Inside, subject: Subject, kept: Kept) -> bool:
    """Whether the originals are those of the checkout's commit, or we make of them what the journal says."""
    tree = head(inside)
    if tree is not None and all(_is_of(tree, path, data) for path, data in kept.before.items()):
        return True
    try:
        patched = subject.convert(inside, dict(kept.before))
    except PatchforgeError:
        return False
    changed = {path: data for path, data in kept.after.items() if data != kept.before[path]}
    return dict(patched.after) == changed and all(patched.before.get(path) == kept.before[path] for path in changed)


def _is_of(tree: Tree, path: str, data: bytes | None) -> bool:
    if data is None or path not in tree.entries():
        return data is None and of_module(path) and path not in tree.entries()
    return same_text(data, tree.read(path))


def _needs_more(seen: Iterable[Seen]) -> bool:
    """Whether a file holds what the journal does not know how to patch, or an edit that nobody compared with ours."""
    unknown = (Part.OTHER, Part.UPSTREAM, Part.EDITED)
    return any(one.lost and one.part is not Part.PATCHED for one in seen) or any(
        one.part in unknown and not one.alike for one in seen
    )


def _finished(one: Seen) -> bytes | None:
    return one.now if one.lost or one.alike else one.after


def _renew(inside: Inside, subject: Subject, seen: Examined, sources: Sequence[Source], *, dry_run: bool) -> Plan:
    """Ours out of every file, and the release that is left patched anew."""
    _check_links(seen)
    without = _without_ours(inside, subject, seen, sources)
    patched = subject.convert(inside, without)
    before: dict[str, bytes | None] = {**patched.before, **without}
    wanted = {path: patched.after.get(path, data) for path, data in before.items()} | dict(patched.after)
    found = {path: inside.read(path) for path in sorted(wanted)}
    writes = tuple(Write(path, found[path], new) for path, new in sorted(wanted.items()) if found[path] != new)
    plan = Plan(seen.state, writes, tuple(sorted(patched.after)), bool(writes) or not _is_current(seen, patched))
    if not dry_run and plan.journal:
        _install(inside, subject, patched, _Steps(patched.files(), plan.writes, before, seen.known))
    return plan


def _is_current(seen: Examined, patched: PatchedFiles) -> bool:
    """Whether the journal says what it would say if it were written now."""
    if seen.known is None:
        return False
    kept = seen.known
    changed = {path: data for path, data in kept.after.items() if data != kept.before[path]}
    return (
        not kept.lost
        and changed == dict(patched.after)
        and kept.journal.subject in ("", seen.stated or kept.journal.subject)
    )


def _without_ours(
    inside: Inside, subject: Subject, seen: Examined, sources: Sequence[Source]
) -> dict[str, bytes | None]:
    """Every file that was or is patched, without ours. CheckFailed names the first where that cannot be done."""
    known = {one.path: one for one in seen.seen}
    paths = [*known, *(path for path in subject.marked(inside) if path not in known)]
    others = _Others(inside, subject, [lambda: seen.head, *sources])
    without = {path: _stripped(path, known.get(path), seen, others) for path in paths}
    for path, data in without.items():
        if problem := broken(inside.read(path)) and broken(data):
            raise _in_one_place(path, problem, seen)
    if subject.kind == "release":
        _check_module(seen)
        without |= dict.fromkeys(path for path in module_files(inside) if path not in without)
    return without


def _check_links(seen: Examined) -> None:
    """InTheWay for a link among ComfyUI's own files: what it leads to is not read, so it could not be patched."""
    if seen.subject.kind != "release":
        return
    for one in FolderTree(seen.inside.root).skipped:
        top = one.path.partition("/")[0]
        if one.reason == LINK and (top.startswith("comfy") or (top == one.path and top.endswith(".py"))):
            seen.inside.read(one.path)


def _check_module(seen: Examined) -> None:
    """What lies at the package's place must be ours, to be replaced by ours."""
    inside = seen.inside
    if seen.subject.kind != "release" or inside.kind(MODULE) not in (Kind.FOLDER, Kind.NOTHING):
        return
    known = {one.path for one in seen.seen} | {f"{MODULE}/__pycache__"}
    there = [*(f"{MODULE}/{name}" for name in inside.names(MODULE)), *_alone(inside)]
    for path in there:
        data = inside.read(path) if inside.kind(path) is Kind.FILE else None
        if path not in known and not (data is not None and is_ours(path, data)):
            raise CheckFailed(
                f"{inside.shown / path} is not of this patchforge, and lies where its module goes",
                expected="nothing but patchforge's own files there",
                found="another version's, an edited one, or your own",
                do=f"move {inside.shown / path} away and run this again",
            )


def _alone(inside: Inside) -> list[str]:
    return [f"{MODULE}.py"] if inside.kind(f"{MODULE}.py") is not Kind.NOTHING else []


def _stripped(path: str, one: Seen | None, seen: Examined, others: _Others) -> bytes | None:
    problem = ""
    if one is not None and not one.lost:
        if one.part in (Part.EDITED, Part.OTHER) and of_module(path) and one.now is not None:
            if is_ours(path, one.now):
                return None
            raise _in_one_place(path, "the whole file is patchforge's", seen)
        if one.part in (Part.UPSTREAM, Part.OTHER):
            return one.now
        if one.part is Part.MISSING:
            return None if _gone_upstream(path, seen) else one.before
        if one.part is Part.FOUND:
            return one.before
        new, problem = taken_out(one.now, one.before, one.after)
        if not problem:
            return new
    now = seen.inside.read(path)
    for before, after in others.of(path):
        if now is None:
            return before
        new, problem = taken_out(now, before, after)
        if not problem and new is not None:
            return new
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


def _is_patched(tree: Tree, path: str) -> bool:
    """Whether a file is no original: somebody committed it patched."""
    return path in tree.entries() and bool(MARK.search(tree.read(path)))


class _Others:
    """The bytes of a file before and after our patches, from wherever the release can be had."""

    def __init__(self, inside: Inside, subject: Subject, sources: Sequence[Source]) -> None:
        self.inside, self.subject, self.sources = inside, subject, list(sources)
        self.made: list[tuple[Tree, PatchedFiles]] = []
        self.problems: list[str] = []
        self.again = False  #: a source may answer later, and the original may be there

    def of(self, path: str) -> Iterator[tuple[bytes, bytes]]:
        """Before and after, from one source after the other."""
        number = 0
        while number < len(self.made) or self._next():
            tree, patched = self.made[number]
            number += 1
            if path in tree.entries() and not _is_patched(tree, path):
                before = tree.read(path)
                yield before, patched.after.get(path, before)

    def _next(self) -> bool:
        while self.sources:
            try:
                tree = self.sources.pop(0)()
                if tree is not None:
                    self.made.append((tree, self.subject.convert_tree(self.inside, tree)))
                    return True
            except PatchforgeError as error:
                self.problems.append(error.problem)
                self.again = self.again or error.status is Exit.AGAIN
        return False


def _clear(inside: Inside, seen: Examined) -> None:
    """Removes half-written files of killed runs."""
    for one in seen.seen:
        inside.clear(one.path, could_write(one))
