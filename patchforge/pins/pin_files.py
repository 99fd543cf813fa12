"""The pin files in ``upstream/pins``: what each holds, and how it is read and written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, overload

from patchforge.documents import OPTIONAL, Format
from patchforge.outputs import write_document

SINGLE = ("ollama", "mordragt-nixos")  #: kinds whose file is one pin; those of others have pins by name
LOCKS = "torch/"  #: kinds that are locks: ``torch/<version>-<abi>``


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePin:
    """A commit of a repository of GitHub, and Nix's hash of its files."""

    owner: str
    repo: str
    rev: str
    hash: str = field(default="", metadata=OPTIONAL)  #: SRI; "" where nothing gives it
    hash_source: str = field(default="", metadata=OPTIONAL)  #: computed or published
    published_by: str = field(default="", metadata=OPTIONAL)
    missing: dict[str, str] = field(default_factory=dict, metadata=OPTIONAL)  #: why it has no hash: path → blob id

    def confirmed(self, text: str) -> Self:
        """The same with a hash that was computed."""
        return replace(self, hash=text, hash_source="computed", published_by="", missing={})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasePin(SourcePin):
    """A release of ComfyUI, and the Python requirements that it names."""

    tag: str
    requirements: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryPin(SourcePin):
    """A repository that is followed by branch or by version: a node pack, a program, a flake."""

    date: str
    license: str
    submodules: bool
    group: str = field(default="", metadata=OPTIONAL)  #: of a node pack
    requirements: tuple[str, ...] = field(default=(), metadata=OPTIONAL)  #: of a node pack
    version: str = field(default="", metadata=OPTIONAL)
    tag: str = field(default="", metadata=OPTIONAL)
    vendor_hash: str = field(default="", metadata=OPTIONAL)  #: of a Go program's modules


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelPin:
    """A Python package at one version. ``url``: where it stays, if the index says so."""

    file: str
    hash: str
    hash_source: str
    python: str
    abi: str
    platform: str
    requires: tuple[str, ...]
    url: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedWheel:
    """A wheel of a lock. ``published_by``: who says its hash, where no index gave the wheel."""

    name: str
    version: str
    file: str
    hash: str
    hash_source: str
    requires: tuple[str, ...]
    published_by: str = field(default="", metadata=OPTIONAL)
    url: str = field(default="", metadata=OPTIONAL)

    def confirmed(self, text: str) -> Self:
        """The same with a hash that was computed."""
        return replace(self, hash=text, hash_source="computed", published_by="")


@dataclass(frozen=True, slots=True)
class TorchLock:
    """Every wheel of one torch on one Python."""

    torch: str
    abi: str
    complete: bool
    missing: tuple[str, ...]  #: requirements that nothing gives
    unread: tuple[str, ...]  #: wheels whose own requirements nobody read
    wheels: tuple[LockedWheel, ...]


@dataclass(frozen=True, slots=True)
class _Releases:
    pins: dict[str, ReleasePin]


@dataclass(frozen=True, slots=True)
class _Packs:
    pins: dict[str, RepositoryPin]


@dataclass(frozen=True, slots=True)
class _Python:
    pins: dict[str, dict[str, WheelPin]]


Versions = dict[str, WheelPin]
Pin = ReleasePin | RepositoryPin | Versions | TorchLock
_FORMATS: Mapping[str, Format[Any]] = {
    "comfyui": Format(_Releases, 1),
    "nodes": Format(_Packs, 1),
    "python": Format(_Python, 1),
    **dict.fromkeys(SINGLE, Format(RepositoryPin, 1)),
    LOCKS: Format(TorchLock, 1),
}


@overload
def load(kind: Literal["comfyui"], folder: Path) -> dict[str, ReleasePin]: ...
@overload
def load(kind: Literal["nodes"], folder: Path) -> dict[str, RepositoryPin]: ...
@overload
def load(kind: Literal["python"], folder: Path) -> dict[str, Versions]: ...
@overload
def load(kind: str, folder: Path) -> dict[str, Any]: ...
def load(kind: str, folder: Path) -> dict[str, Any]:
    """The pins of a kind by name; empty when there are none yet. A file that is one pin has the name "".

    Damaged for a broken file, or one of another format.
    """
    path = folder / f"{kind}.json"
    if not path.exists():
        return {}
    document = format_of(kind).read(path, do=f"restore {path} as with git checkout, or remove it and pin anew")
    return {"": document} if _is_one(kind) else document.pins


def load_one(name: str, folder: Path) -> RepositoryPin | None:
    """The pin of a kind that is one pin, such as ``ollama``."""
    pin: RepositoryPin | None = load(name, folder).get("")
    return pin


def load_lock(name: str, folder: Path) -> TorchLock | None:
    """A lock by its name, such as ``2.14.0-cp312``."""
    lock: TorchLock | None = load(f"{LOCKS}{name}", folder).get("")
    return lock


def render(kind: str, pins: Mapping[str, Pin]) -> bytes:
    """The file of a kind."""
    layout = format_of(kind)
    return layout.dump(pins[""] if _is_one(kind) else layout.kind(dict(pins)))


def save(kind: str, pins: Mapping[str, Pin], folder: Path, inputs: Iterable[Path] = ()) -> bool:
    """Whether the file changed. PatchforgeError where another file than pins stands there, or one of ``inputs``."""
    return write_document(folder / f"{kind}.json", render(kind, pins), partial(are_pins, kind), inputs=inputs)


def are_pins(kind: str, data: bytes) -> bool:
    """Whether a file holds pins of that kind, such as ``nodes``: people may have edited their values."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    if kind.startswith(LOCKS):
        return isinstance(document.get("wheels"), list)
    if "format" in document and isinstance(document.get("pins"), dict):
        document = document["pins"]
    entries = [document] if "rev" in document else list(document.values())
    return all(isinstance(entry, dict) and _is_pin(entry) for entry in entries)


def _is_pin(entry: Mapping[str, Any]) -> bool:
    """One of a repository, or wheels by version."""
    return bool({"rev", "hash"} & entry.keys()) or all(
        isinstance(wheel, dict) and "file" in wheel for wheel in entry.values()
    )


def kinds(folder: Path) -> list[str]:
    """Every document there is; a lock of torch is one called ``torch/<version>-<abi>``."""
    return sorted(path.relative_to(folder).as_posix().removesuffix(".json") for path in folder.rglob("*.json"))


def published(folder: Path) -> Iterator[tuple[str, str, ReleasePin | RepositoryPin | LockedWheel]]:
    """Kind, name and pin of everything whose hash was not computed."""
    for kind in kinds(folder):
        pins = load(kind, folder)
        entries: Iterable[tuple[str, Any]] = pins.items()
        if kind.startswith(LOCKS):
            entries = ((wheel.name, wheel) for wheel in pins[""].wheels)
        for name, pin in sorted(entries, key=lambda entry: entry[0]):
            unknown = isinstance(pin, SourcePin) and not pin.hash
            if isinstance(pin, ReleasePin | RepositoryPin | LockedWheel) and (
                pin.hash_source == "published" or unknown
            ):
                yield kind, name, pin


def put(kind: str, name: str, pin: ReleasePin | RepositoryPin | LockedWheel, folder: Path) -> None:
    """Writes one pin into its file, in the place of the one of that name."""
    pins = load(kind, folder)
    if isinstance(pin, LockedWheel):
        lock: TorchLock = pins[""]
        wheels = tuple(pin if wheel.name == name else wheel for wheel in lock.wheels)
        save(kind, {"": replace(lock, wheels=wheels)}, folder)
    else:
        save(kind, {**pins, name: pin}, folder)


def format_of(kind: str) -> Format[Any]:
    """How the file of a kind is written."""
    return _FORMATS[LOCKS if kind.startswith(LOCKS) else kind]


def _is_one(kind: str) -> bool:
    return kind in SINGLE or kind.startswith(LOCKS)
