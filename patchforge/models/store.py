"""The store: one link to each model file, called by its SHA-256, and the links that programs get from it.

Every change is one system call that makes, replaces or removes a name: a link beside its place, then a rename over it.
So a process that is killed leaves each name as it was or as it was to be, and the next run does what is left; there is
nothing to be put right. Bytes go only when the last name does, and that is removed by ``gc`` alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from patchforge import atomic, bounded, faults, interrupted, progress, symlinks
from patchforge.atomic import Step, silent
from patchforge.errors import Damaged, PatchforgeError, SystemFault, TryAgain
from patchforge.escape import line
from patchforge.inside import Inside, open_elsewhere
from patchforge.models import gguf, kinds, ollama
from patchforge.models.hashing import Digests, Stamp
from patchforge.models.places import Places
from patchforge.models.survey import TEMPORARY, UNFINISHED, ModelFile, ModelProblem, Place, Survey
from patchforge.names import unfit

#: Architectures that city96/ComfyUI-GGUF loads, by the folder of ComfyUI's (loader.py, TXT_ARCH_LIST, IMG_ARCH_LIST).
READ_BY_COMFYUI = {
    "text_encoders": frozenset(["t5", "t5encoder", "llama", "qwen2vl", "qwen3", "qwen3vl"]),
    "diffusion_models": frozenset(
        ["flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "hyvid", "wan", "lumina2", "qwen_image"]
    ),
}
_MARK = "README"
_MARK_TEXT = (
    b"Written by patchforge: one name for each model file, its SHA-256. The same bytes have other names in folders\n"
    b"of ComfyUI, Ollama or Hugging Face; removing a name here frees nothing until those are gone too.\n"
    b"patchforge models gc says what nothing else refers to.\n"
)
_BLOCK = 1 << 22
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


@dataclass(frozen=True, slots=True)
class Done:
    """One change: ``linked``, ``merged``, ``removed`` or ``written``, and how many bytes it freed.

    ``of``: what ``path`` is a name of, or belongs to: the store and Ollama call files by digests.
    """

    what: str
    path: str
    freed: int = 0
    of: str = ""


@dataclass(slots=True)
class StoreResult:
    """What was done, or would be, and what was left with the reason."""

    done: list[Done] = field(default_factory=list)
    left: list[ModelProblem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class ModelStore:
    """The folder of the store. ``step`` is called with a name before each change on disk; ``dry``: none is made."""

    def __init__(
        self, places: Places, *, dry: bool = False, step: Step = silent, digests: Digests | None = None
    ) -> None:
        """``digests``: which are to know that a file with a new name is as it was."""
        self.places, self.dry, self.step, self._digests = places, dry, step, digests
        self.result = StoreResult()
        self._folder = places.store / "sha256"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in the store, which is made if need be. PatchforgeError for a folder that is somebody else's."""
        top = self.places.store
        if self.dry and not top.exists():
            yield
            return
        strange = (
            [entry for entry in os.scandir(top) if not entry.name.startswith(UNFINISHED)] if top.is_dir() else [top]
        )
        if os.path.lexists(top) and not (top / _MARK).exists() and strange:
            raise PatchforgeError(
                f"{top} is not a store of patchforge's",
                expected="a new or empty folder, or one that patchforge models made",
                do="name another with --store",
            )
        if not self.dry:
            top.mkdir(parents=True, exist_ok=True)
            if not (top / _MARK).exists():
                self._write(top / _MARK, _MARK_TEXT, top)
            self._folder.mkdir(exist_ok=True)
        with Inside(top).locked():
            yield

    def _note(self, change: Done) -> None:
        self.result.done.append(change)
        if not self.dry:
            so_far = "each change that was made so far is whole, and the same command makes the rest"
            interrupted.leaves(self.places.store, so_far)

    def adopt(self, path: Path, digest: str, stamp: Stamp, *, of: str = "") -> Path:
        """The store's name for a file, made unless the store has one for these bytes; ``path`` where none is made.

        Damaged for a file that is none of a model, or is not whole.
        """
        entry = self._folder / digest
        if not entry.exists():
            kinds.need_model(path)
            self.link(path, entry, stamp, of=of)
        return path if self.dry and not entry.exists() else entry

    def link(self, source: Path, target: Path, stamp: Stamp | None = None, *, of: str = "") -> None:
        """A new name for the file ``source``, which is as ``stamp`` says. Nothing is done where it is there already.

        ``of``: how people know the file, if not as ``source``.

        PatchforgeError where another file has that name, SystemFault where the system gives no such link.
        """
        stamp = stamp or Stamp.of(source.lstat())
        if (there := _look(target)) is not None:
            if (there.st_dev, there.st_ino) == stamp.identity:
                return
            raise PatchforgeError(
                f"{target} is there already", expected="no file of this name", do="choose another name"
            )
        self._note(Done("linked", str(target), of=of or str(source)))
        if self.dry:
            _need_same_device(source, target, stamp)
            return
        self.step(f"mkdir {target.parent.name}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self._link(source, target, stamp)
        atomic.flush(target.parent)

    def symlink(self, source: Path, target: Path) -> None:
        """A link by name, which another file system can have. PatchforgeError where something else has that name."""
        if target.is_symlink() and target.readlink() == source:
            return
        if os.path.lexists(target):
            raise PatchforgeError(f"{target} is there already", expected="no file of this name", do="choose another")
        self._note(Done("linked", str(target), of=str(source)))
        if not self.dry:
            self.step(f"symlink {target.name}")
            target.symlink_to(source)
            atomic.flush(target.parent)

    def write(self, target: Path, data: bytes, within: Path, *, of: str) -> None:
        """A small file that is new, written in the folder ``within`` first. PatchforgeError where another is there.

        Not beside its place: Ollama takes every name there for a model's.
        """
        if target.exists():
            if bounded.file(target) == data:
                return
            raise PatchforgeError(
                f"{target} is there already, with other bytes", expected="no such file", do="choose another name"
            )
        self._note(Done("written", str(target), of=of))
        if not self.dry:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._write(target, data, within)

    def _write(self, target: Path, data: bytes, within: Path) -> None:
        fresh = within / f"{UNFINISHED}{secrets.token_hex(8)}"
        try:
            self.step("write")
            with fresh.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            self.step("rename")
            fresh.rename(target)
        finally:
            fresh.unlink(missing_ok=True)
        atomic.flush(target.parent)

    def merge(self, kept: ModelFile, other: ModelFile) -> None:
        """Every name of ``other`` becomes one of ``kept``, which has the same bytes; they are compared here.

        What speaks against it is noted, and the names stay.
        """
        source = kept.paths[0]
        if why := _against(kept, other):
            self.result.left.append(ModelProblem(str(other.paths[0] if other.paths else other.names[0].path), why))
            return
        for number, path in enumerate(other.paths, 1):
            last = number == len(other.paths) == other.links
            if not self.dry:
                try:
                    _need_equal(source, kept.stamp, path, other.stamp)
                    self._replace(path, other.stamp, source, kept.stamp)
                except (TryAgain, SystemFault, OSError) as error:
                    self.result.left.append(ModelProblem(str(path), faults.reason(error)))
                    return
            self._note(Done("merged", str(path), other.stamp.size if last else 0, known_as(kept)))
        if len(other.paths) < other.links:
            why = f"{other.links - len(other.paths)} more names, which are in none of these folders, keep its bytes"
            self.result.left.append(ModelProblem(str(other.paths[0]), why))

    def collect(self, survey: Survey, *, delete: bool) -> None:
        """What nothing but the store refers to, and links that killed runs left; removed with ``delete``."""
        linked = self._linked()
        for file in survey.sorted():
            if {name.place for name in file.names} == {Place.STORE} and file.links == 1:
                path = file.paths[0]
                if linked & {file.stamp.identity, *(Stamp.of(folder.stat()).identity for folder in path.parents)}:
                    continue
                self._remove(path, file.stamp.size, delete=delete, most=1)
        for path in survey.leftovers:
            status = _look(path)
            plain = status is not None and stat.S_ISREG(status.st_mode)
            if status is not None and plain and (status.st_nlink > 1 or path.name.startswith(UNFINISHED)):
                self._remove(path, 0, delete=delete, most=None)
            elif status is not None:
                why = "a killed run left it, and its bytes have no other name by now: rename or remove it"
                self.result.left.append(ModelProblem(str(path), why))

    def _linked(self) -> set[tuple[int, int]]:
        """Files and folders that symlinks lead to: any, whatever it is called, in the folders that are known."""
        places = self.places
        named = {*places.tops, *(path for _, path in places.comfyui), places.ollama, places.hub}
        return symlinks.targets(sorted(place for place in named if place is not None))

    def _remove(self, path: Path, size: int, *, delete: bool, most: int | None) -> None:
        opened = is_open(path) if most else False
        if opened is not False:
            why = "a program has it open" if opened else "this system does not say whether a program has it open"
            self.result.left.append(ModelProblem(str(path), why))
            return
        if delete and not self.dry:
            self.step(f"unlink {path.name}")
            status = _look(path)
            if status is None or (most is not None and status.st_nlink > most):
                self.result.left.append(ModelProblem(str(path), "something refers to it by now"))
                return
            path.unlink()
            atomic.flush(path.parent)
        self._note(Done("removed", str(path), size))

    def _replace(self, path: Path, was: Stamp, source: Path, stamp: Stamp) -> None:
        beside = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        self._link(source, beside, stamp)
        try:
            self.step(f"rename {path.name}")
            _need_unchanged(path, was)
            with self._followed(beside, path):
                beside.replace(path)
        finally:
            with suppress(OSError):
                beside.unlink()
        atomic.flush(path.parent)

    @contextmanager
    def _followed(self, source: Path, target: Path) -> Iterator[None]:
        """Around a change of names: what is known of ``source`` is known of ``target`` afterwards."""
        before = Stamp.of(source.lstat())
        yield
        if self._digests is not None:
            self._digests.follow(before, Stamp.of(target.lstat()))

    def _link(self, source: Path, target: Path, stamp: Stamp) -> None:
        self.step(f"link {target.name}")
        try:
            with self._followed(source, target):
                try:
                    os.link(source, target, follow_symlinks=False)
                except NotImplementedError:  # Windows does not follow them
                    os.link(source, target)
        except FileExistsError:
            raise PatchforgeError(f"{target} is there by now", do="run this again") from None
        except OSError as error:
            raise _no_link(source, target, error) from error
        status = target.lstat()
        if Stamp.of(status) != stamp:
            target.unlink()
            raise TryAgain(f"{source} changed in the meantime", do="run this again")


def into_comfyui(
    store: ModelStore, source: ModelSource, kind: str, called: str, digests: Digests, *, symlink: bool = False
) -> None:
    """Links the files of a model into a folder of ComfyUI: ``CALLED.gguf``, and ``CALLED-mmproj.gguf`` beside it.

    ``symlink``: by name, which is safe for blobs of Ollama's: a name that tells what is in it never gets other bytes.
    """
    folder = store.places.folder(kind)
    for part in source.parts:
        called = called.removesuffix(part.ending)
        name = f"{called}{'-mmproj' if part.media == ollama.PROJECTOR else ''}{part.ending}"
        if reason := unfit([name]).get(name):
            raise PatchforgeError(
                f"{name!r} cannot be the name of a file",
                expected="plain",
                found=reason,
                do="choose another name: TARGET/NAME",
            )
        if part.ending == ".gguf" and part.media != ollama.PROJECTOR:
            _need_read(part.path, folder_kind(store.places, folder))
        kinds.need_model(part.path)
        digest, stamp = _checked(part, digests)
        if symlink and not part.told:
            raise PatchforgeError(
                f"{part.path} may be replaced, and a symlink would lead to whatever is there then",
                expected="a model of Ollama's",
                do="leave --symlink out",
            )
        if symlink:
            store.symlink(part.path, folder / name)
        else:
            of = f"{source.called}, {part.path}" if part.told else str(part.path)
            store.link(store.adopt(part.path, digest, stamp, of=of), folder / name, of=of)


def known_as(file: ModelFile) -> str:
    """The name of a file that says most to people; its first one where only the store has it."""
    paths = [str(name.path) for name in file.names if name.place is Place.COMFYUI]
    names = [f"{name.place}'s {name.called}" for name in file.names if name.place not in (Place.COMFYUI, Place.STORE)]
    return (paths + names or [str(file.names[0].path)])[0]


def into_ollama(store: ModelStore, source: ModelSource, name: str, digests: Digests) -> None:
    """Gives Ollama a GGUF file as a model: a link among its blobs, a configuration and a manifest, in this order."""
    folder = store.places.ollama
    if folder is None:
        raise PatchforgeError(
            "Ollama has no folder of models here",
            expected="OLLAMA_MODELS, or .ollama/models in your home",
            found="; ".join(f"{path}: {why}" for path, why in store.places.absent),
            do="run ollama serve once, as the user that it runs as, which makes it; or name it with --ollama DIR",
        )
    parts = ollama.parts_of(name)
    (part,) = source.parts[:1]
    head = gguf.read(part.path)
    if not head.architecture or head.architecture == "clip":
        raise PatchforgeError(
            f"{part.path} is not a model that Ollama can run",
            found=f"the architecture {head.architecture!r}",
            do="name the model",
        )
    digest, stamp = _checked(part, digests)
    config = ollama.configuration(head)
    config_digest = hashlib.sha256(config).hexdigest()
    layer = ollama.Layer(ollama.MODEL, digest, stamp.size)
    place = folder.joinpath("manifests", *parts)
    manifest = ollama.manifest(layer, config_digest, len(config))
    if place.exists() and bounded.file(place) != manifest:
        raise PatchforgeError(
            f"Ollama has a model {ollama.shortest(parts)} already",
            expected="a name that is free",
            do=f"choose another name, or ollama rm {ollama.shortest(parts)}",
        )
    blob = ollama.blob(folder, digest)
    if not blob.exists():
        store.link(store.adopt(part.path, digest, stamp), blob, of=str(part.path))
    model = f"Ollama's {ollama.shortest(parts)}"
    store.write(ollama.blob(folder, config_digest), config, folder, of=model)
    store.write(place, manifest, folder, of=model)
    if not part.path.stat().st_mode & stat.S_IROTH:
        store.result.notes.append(
            f"{line(str(part.path))} is readable for its owner only, and so for Ollama's user not"
        )


@dataclass(frozen=True, slots=True)
class ModelPart:
    """One file of a model. ``told``: the digest that its name tells, or ""."""

    path: Path
    media: str
    told: str = ""

    @property
    def ending(self) -> str:
        return ".gguf" if gguf.is_gguf(self.path) else self.path.suffix


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model that is to get more names. ``called``: what its files are called where nobody says."""

    called: str
    parts: tuple[ModelPart, ...]


def source_of(places: Places, survey: Survey, named: str) -> ModelSource:
    """The model of a path, of a name of Ollama's or a digest. PatchforgeError where there is none."""
    path = Path(named).expanduser()
    if path.is_file():
        return ModelSource(path.stem, (ModelPart(Path(os.path.realpath(path)), ollama.MODEL),))
    digest = ollama.digest_of(named.lower()) or named.lower()
    for file in survey.sorted():
        if len(digest) >= 12 and file.told.startswith(digest) and file.paths:
            return ModelSource(file.names[0].path.stem, (ModelPart(file.paths[0], ollama.MODEL, file.told),))
    if places.ollama is not None and (source := _pulled(places.ollama, named)) is not None:
        return source
    known = [name.called for file in survey.sorted() for name in file.names if name.place is Place.OLLAMA]
    raise PatchforgeError(
        f"there is no model {named}",
        expected="a file, a model of Ollama's, or 12 digits or more of a digest",
        found=f"Ollama has {', '.join(sorted(set(known))[:8])}" if known else "Ollama has none here",
        do="patchforge models list shows all",
    )


def _pulled(folder: Path, named: str) -> ModelSource | None:
    """A model of Ollama's; None where it has none of this name. Damaged where its manifest is."""
    try:
        parts = ollama.parts_of(named)
        manifest = ollama.read(folder.joinpath("manifests", *parts), named)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Damaged:
        raise
    except PatchforgeError:  # no name of a model at all
        return None
    files = tuple(
        ModelPart(Path(os.path.realpath(ollama.blob(folder, layer.digest))), layer.media, layer.digest)
        for layer in manifest.layers
        if layer.media in (ollama.MODEL, ollama.PROJECTOR)
    )
    return ModelSource(_file_name(parts), files) if files else None


def _file_name(parts: tuple[str, str, str, str]) -> str:
    """qwen3:4b is called qwen3-4b, somebody/qwen3:4b somebody-qwen3-4b."""
    _, namespace, model, tag = parts
    before = "" if namespace == ollama.NAMESPACE else f"{namespace}-"
    return f"{before}{model}{'' if tag == ollama.TAG else f'-{tag}'}"


def folder_kind(places: Places, folder: Path) -> str:
    """The kind of a folder of ComfyUI's."""
    return next(kind for kind, path in places.comfyui if path == folder)


def is_open(path: Path, *, writing: bool = False) -> bool | None:
    """As :func:`open_elsewhere`, of a path."""
    if sys.platform != "linux":
        return None
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return open_elsewhere(handle, writing=writing)
    finally:
        os.close(handle)


def _checked(part: ModelPart, digests: Digests) -> tuple[str, Stamp]:
    digest, stamp = digests.of(part.path)
    if part.told and digest != part.told:
        raise Damaged(
            f"{part.path} is not what its name says",
            expected=f"SHA-256 {part.told}",
            found=digest,
            do="fetch it again: ollama pull replaces a blob that was removed",
        )
    return digest, stamp


def _need_read(path: Path, kind: str) -> None:
    """PatchforgeError for an architecture that ComfyUI-GGUF does not read in a folder of this kind."""
    wanted = READ_BY_COMFYUI.get(kind)
    architecture = gguf.read(path).architecture
    if wanted is not None and architecture not in wanted:
        raise PatchforgeError(
            f"ComfyUI-GGUF reads no {architecture or 'GGUF file without architecture'} in {kind}",
            expected=", ".join(sorted(wanted)),
            found=architecture or "none",
            do="name another model, or another folder",
        )


def mergeable(copies: Sequence[ModelFile]) -> int:
    """Bytes that ``import --merge`` frees of files that are all the same; it takes only whole files of models."""
    kept = next((file for file in copies if file.digest and file.paths and not file.misnamed), None)
    if kept is None:
        return 0
    others = [file for file in copies if file is not kept and not _against(kept, file)]
    return sum(file.stamp.size for file in others if len(file.paths) == file.links and _is_whole(file))


def _is_whole(file: ModelFile) -> bool:
    try:
        need_whole(file)
    except (Damaged, OSError):
        return False
    return True


def need_whole(file: ModelFile) -> None:
    """Damaged unless a file is one of a model, and what its names tell; OSError where it cannot be read."""
    for name in file.misnamed:
        raise Damaged(
            f"{name.path} is not what its name says",
            expected=f"SHA-256 {name.told}",
            found=f"SHA-256 {file.digest}",
            do="fetch it again",
        )
    kinds.need_model(file.paths[0] if file.paths else file.names[0].path)


def _against(kept: ModelFile, other: ModelFile) -> str:
    """What speaks against one file in place of two; "" for nothing."""
    if kept.stamp.device != other.stamp.device:
        return "it is on another file system than its copy"
    if not other.paths or not kept.paths:
        return "only symlinks lead to it"
    if kept.owner != other.owner:
        return "its copy belongs to another user or group"
    if not other.stamp.size:
        return "it is empty"
    if (other.mode ^ kept.mode) & 0o666:
        return f"its copy has other permissions (mode {kept.mode:o})"
    return ""


def _need_equal(kept: Path, kept_stamp: Stamp, other: Path, other_stamp: Stamp) -> None:
    """TryAgain unless both files are as they were, byte for byte the same, and nobody writes."""
    if is_open(other, writing=True):
        raise TryAgain(f"a program writes to {other}", do="run this again when it has ended")
    with bounded.opened(kept) as first, bounded.opened(other) as second:
        done = 0
        while True:
            block, beside = first.read(_BLOCK), second.read(_BLOCK)
            if block != beside:
                raise TryAgain(f"{other} changed since it was read", do="run this again")
            if not block:
                break
            done += len(block)
            progress.step(f"comparing {line(other.name)}", f"{done * 100 // max(other_stamp.size, 1)} %")
        progress.step("")
        same = Stamp.of(os.fstat(first.fileno())) == kept_stamp and Stamp.of(os.fstat(second.fileno())) == other_stamp
    if not same:
        raise TryAgain(f"{other} or its copy changed in the meantime", do="run this again")


def _need_unchanged(path: Path, was: Stamp) -> None:
    status = _look(path)
    if status is None or Stamp.of(status) != was:
        raise TryAgain(f"{path} changed in the meantime", do="run this again; nothing of it was replaced")


def _look(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _need_same_device(source: Path, target: Path, stamp: Stamp) -> None:
    above = next(folder for folder in target.parents if folder.is_dir())
    if above.stat().st_dev != stamp.device:
        raise _no_link(source, target, OSError(errno.EXDEV, os.strerror(errno.EXDEV)))


def _no_link(source: Path, target: Path, error: OSError) -> PatchforgeError:
    if error.errno == errno.EXDEV:
        return SystemFault(
            f"{target} would be on another file system than {source}",
            expected="one file system: a file has no second name on another",
            do="keep the folders of ComfyUI and Ollama, and the store (--store DIR), on one; or copy the file yourself",
        )
    if error.errno in _NO_LINKS:
        return SystemFault(
            f"{target} cannot be a second name of {source}",
            expected="a file of yours, or one that you may write to, in a folder that you may write to, "
            "on a file system with hard links",
            found=error.strerror or "",
            do="run this as the owner of the file, or as the user of the service",
        )
    error.filename, error.filename2 = str(source), str(target)
    return SystemFault(f"{target} cannot be linked to {source}", found=error.strerror or "", do="mend what it names")
