"""What model files there are: every file once, with all names that it has."""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from patchforge import faults
from patchforge.errors import Damaged, PatchforgeError
from patchforge.models import ollama
from patchforge.models.hashing import Digests, Stamp
from patchforge.models.places import Places

ENDINGS = frozenset(
    [".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl", ".onnx", ".torchscript"]
)
TEMPORARY = ".patchforge-link-"  #: begins the name of a link that is about to take its place
UNFINISHED = ".patchforge-new-"  #: the same of a small file that is being written
_HEX = re.compile("[0-9a-f]{64}")
_REPOSITORY = "models--"  #: begins the name of a folder of the hub's cache
TO = " -> "  #: in the name of what a link leads to, after the link's
_DEEPEST = 32  #: folders within each other
_MOST = 200_000  #: files in one place


class Place(StrEnum):
    """Whose name it is."""

    STORE = "store"
    OLLAMA = "ollama"
    HUB = "huggingface"
    COMFYUI = "comfyui"


@dataclass(frozen=True, slots=True)
class Name:
    """One name of a file. ``told``: the digest that the name tells, or "". ``link``: whether ``path`` is a symlink."""

    place: Place
    called: str
    path: Path
    told: str = ""
    link: bool = False


@dataclass(slots=True)
class ModelFile:
    """A file, which several names may lead to."""

    stamp: Stamp
    links: int
    owner: tuple[int, int]
    mode: int
    names: list[Name] = field(default_factory=list)
    digest: str = ""  #: worked out, or ""

    @property
    def told(self) -> str:
        """The digest that is known, or that a name tells."""
        return self.digest or next((name.told for name in self.names if name.told), "")

    @property
    def misnamed(self) -> list[Name]:
        """Names that tell another digest than what was worked out: its bytes are damaged."""
        return [name for name in self.names if self.digest and name.told not in ("", self.digest)]

    @property
    def paths(self) -> list[Path]:
        """Where it is, without symlinks."""
        return list(dict.fromkeys(name.path for name in self.names if not name.link))


@dataclass(frozen=True, slots=True)
class ModelProblem:
    """What was passed over, and why. ``path`` may be "" where the reason names it."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}" if self.path else self.why


@dataclass(slots=True)
class Survey:
    """All that was found. ``leftovers``: links that a killed run left."""

    files: dict[tuple[int, int], ModelFile] = field(default_factory=dict)
    problems: list[ModelProblem] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)

    def sorted(self) -> list[ModelFile]:
        return sorted(self.files.values(), key=lambda file: min((name.place, name.called) for name in file.names))

    def by_digest(self) -> dict[str, list[ModelFile]]:
        """Files by what is in them, as far as that is known; several for one digest are copies."""
        files: dict[str, list[ModelFile]] = defaultdict(list)
        for file in self.sorted():
            if file.told:
                files[file.told].append(file)
        return dict(files)

    def add(self, name: Name) -> None:
        """Notes a name, unless what it leads to is not a file that can be looked at."""
        try:
            status = name.path.stat()
        except OSError as error:
            self.problems.append(ModelProblem(str(name.path), (error.strerror or "not there").lower()))
            return
        if not stat.S_ISREG(status.st_mode):
            self.problems.append(ModelProblem(str(name.path), "neither a file nor a link to one"))
            return
        stamp = Stamp.of(status)
        file = self.files.setdefault(
            stamp.identity,
            ModelFile(stamp, status.st_nlink, (status.st_uid, status.st_gid), stat.S_IMODE(status.st_mode)),
        )
        file.names.append(name)


def taken(places: Places) -> Survey:
    """Every model file in these places. Nothing is read but manifests; no byte of a model is."""
    survey = Survey()
    _leftovers(survey, places.store)
    for digest, path in stored(places.store):
        survey.add(Name(Place.STORE, f"sha256:{digest[:12]}", path, digest))
    if places.ollama is not None:
        _ollama(survey, places.ollama)
    if places.hub is not None:
        _hub(survey, places.hub)
    for kind, folder in places.comfyui:
        _comfyui(survey, kind, folder)
    survey.problems += [ModelProblem(str(folder), why) for folder, why in places.absent]
    return survey


def misnamed(file: ModelFile) -> list[ModelProblem]:
    """What is to be said of a file whose bytes are not what its names tell."""
    return [ModelProblem(str(name.path), f"it is damaged: SHA-256 {file.digest}") for name in file.misnamed]


def stored(store: Path) -> Iterator[tuple[str, Path]]:
    """What the store has, by digest."""
    folder = store / "sha256"
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if _HEX.fullmatch(path.name):
            yield path.name, path


def add_blobs(survey: Survey, places: Places) -> None:
    """Adds all other files whose names tell their digest: Ollama's blobs of any kind, and those of the hub's cache."""
    listed = {(name.path, name.told) for file in survey.files.values() for name in file.names}
    blobs = [
        (Place.OLLAMA, path, ollama.digest_of(path.name))
        for path in (_names(survey, places.ollama / "blobs") if places.ollama else ())
    ] + [
        (Place.HUB, path, path.name if _HEX.fullmatch(path.name) else "")
        for repository in (_names(survey, places.hub) if places.hub else ())
        for path in (_names(survey, repository / "blobs") if repository.name.startswith(_REPOSITORY) else ())
    ]
    for place, path, told in blobs:
        if told and (path, told) not in listed:
            survey.add(Name(place, f"blob {told[:12]}", path, told))


def compare(survey: Survey, digests: Digests) -> None:
    """Works out the digests of files that may be copies: of one size, and not the same file."""
    sizes: dict[int, list[ModelFile]] = defaultdict(list)
    for file in survey.files.values():
        if file.stamp.size:
            sizes[file.stamp.size].append(file)
    for alike in sizes.values():
        for file in alike if len(alike) > 1 else ():
            work_out(survey, file, digests)


def work_out(survey: Survey, file: ModelFile, digests: Digests, *, anew: bool = False) -> bool:
    """Works out a file's digest; False, and a problem noted, where that cannot be."""
    path = file.paths[0] if file.paths else file.names[0].path
    try:
        digest, stamp = digests.of(path, anew=anew)
    except (OSError, PatchforgeError) as error:
        survey.problems.append(ModelProblem(str(path), faults.reason(error)))
        return False
    if stamp != file.stamp:
        survey.problems.append(ModelProblem(str(path), "it was replaced while this looked"))
        return False
    file.digest = digest
    return True


def _ollama(survey: Survey, folder: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for manifest in ollama.manifests(folder):
        if isinstance(manifest, Damaged):
            survey.problems.append(
                ModelProblem("", manifest.problem + (f": {manifest.found}" if manifest.found else ""))
            )
            continue
        for layer in manifest.layers:
            path = ollama.blob(folder, layer.digest)
            if (manifest.name, layer.digest) in seen:
                continue
            seen.add((manifest.name, layer.digest))
            if layer.media in ollama.WEIGHTS:
                part = "" if layer.media == ollama.MODEL else f" ({layer.media.rpartition('.')[2]})"
                _note(survey, Name(Place.OLLAMA, manifest.name + part, path, layer.digest))
            elif why := _missing(path):
                survey.problems.append(ModelProblem(str(path), why))
    _leftovers(survey, folder)
    _leftovers(survey, folder / "blobs")


def _missing(path: Path) -> str:
    try:
        path.stat()
    except OSError as error:
        return (error.strerror or "cannot be looked at").lower()
    return ""


def _note(survey: Survey, name: Name) -> None:
    path = name.path
    if os.path.islink(path):  # noqa: PTH114 - False where it may not be looked at
        name = Name(name.place, name.called, path, name.told, link=True)
        survey.add(name)
        if os.path.isfile(there := Path(os.path.realpath(path))):  # noqa: PTH113
            survey.add(Name(name.place, f"{name.called}{TO}{there.name}", there))
    else:
        survey.add(name)


def _hub(survey: Survey, hub: Path) -> None:
    """Models of Hugging Face's cache: ``models--OWNER--NAME/snapshots/COMMIT/…``, links to ``blobs`` where there are.

    As huggingface_hub/file_download.py lays them out: a blob of LFS is called by its SHA-256.
    """
    for repository in _names(survey, hub):
        if not repository.name.startswith(_REPOSITORY):
            continue
        title = repository.name.removeprefix(_REPOSITORY).replace("--", "/")
        for path in _walk(survey, repository / "snapshots"):
            if path.suffix.lower() not in ENDINGS:
                continue
            called = f"{title}/{'/'.join(path.relative_to(repository / 'snapshots').parts[1:])}"
            there = Path(os.path.realpath(path))
            inside = there.parent == Path(os.path.realpath(repository / "blobs"))
            if path.is_symlink() and inside and os.path.isfile(there):  # noqa: PTH113
                survey.add(Name(Place.HUB, called, there, there.name if _HEX.fullmatch(there.name) else ""))
            else:
                _note(survey, Name(Place.HUB, called, path))
        _leftovers(survey, repository / "blobs")


def _comfyui(survey: Survey, kind: str, folder: Path) -> None:
    for path in _walk(survey, folder):
        there = Path(os.path.realpath(path.parent), path.name)
        if path.name.startswith(TEMPORARY):
            survey.leftovers.append(there)
        elif path.suffix.lower() in ENDINGS and not path.name.startswith("."):
            _note(survey, Name(Place.COMFYUI, f"{kind}/{path.relative_to(folder).as_posix()}", there))


def _names(survey: Survey, folder: Path) -> list[Path]:
    """What is in a folder, which need not be there; a problem is noted where that cannot be told."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        survey.problems.append(ModelProblem(str(folder), (error.strerror or "cannot be read").lower()))
        return []


def _leftovers(survey: Survey, folder: Path) -> None:
    with suppress(OSError):  # no folder, or one where nothing can be removed
        survey.leftovers += sorted(path for path in folder.iterdir() if path.name.startswith((TEMPORARY, UNFINISHED)))


def _walk(survey: Survey, top: Path) -> Iterator[Path]:
    """The files below a folder, through links to folders too, each folder once: ComfyUI follows them as well."""
    seen: set[tuple[int, int]] = set()
    waiting, count = [(top, 0)], 0
    while waiting:
        folder, depth = waiting.pop()
        try:
            status = folder.stat()
            inside = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            survey.problems.append(ModelProblem(str(folder), (error.strerror or "cannot be read").lower()))
            continue
        if (status.st_dev, status.st_ino) in seen or depth > _DEEPEST:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in inside:
            count += 1
            if count > _MOST:
                survey.problems.append(ModelProblem(str(top), f"more than {_MOST} files; the rest is passed over"))
                return
            try:
                is_folder = entry.is_dir()
            except OSError as error:  # links in a circle
                survey.problems.append(ModelProblem(entry.path, (error.strerror or "cannot be read").lower()))
                continue
            if is_folder:
                waiting.append((Path(entry.path), depth + 1))
            else:
                yield Path(entry.path)
