"""``patchforge pin``: brings the pins in ``upstream/pins`` up to date."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from patchforge import resources
from patchforge.arguments.shared import PINS
from patchforge.commands.common import coloured, generated_folder, generated_versions, in_repository, show_json
from patchforge.commands.lock_torch import make_lock
from patchforge.errors import Exit, PatchforgeError, worst
from patchforge.git.clone import is_url
from patchforge.hashes.pypi import configured_indexes
from patchforge.pins import comfyui, pin_files, python, repositories
from patchforge.pins.claims import source_claims
from patchforge.pins.pin_files import LOCKS, SINGLE, Pin, SourcePin
from patchforge.pins.torch import abi_of
from patchforge.pins.tracked import load_companions, load_nodes, load_repository, load_torch
from patchforge.pins.wheels import Wheels
from patchforge.project import load_project
from patchforge.vocabulary import Version

_Work = Iterator[tuple[str, Callable[[], Pin]]]
_Source = TypeVar("_Source", bound=SourcePin)


@dataclass(frozen=True, slots=True)
class PinChange:
    """What became of one pin."""

    kind: str
    pin: str
    outcome: str  #: "same", "new", "changed", "removed" or "failed"
    problem: str = ""
    status: int = Exit.OK  #: of the command, were this all that it did


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when a hash is contradicted, 69 and others when a source cannot be had. Such a pin stays."""
    changes = [change for kind in _chosen(options.kind) for change in _update(kind, options)]
    if options.json:
        show_json("pin", [asdict(change) for change in changes])
    else:
        _show(changes, dry=options.dry_run)
    return worst(change.status for change in changes)


def _chosen(named: Sequence[str]) -> list[str]:
    """In the order in which one needs another: ``python`` reads the requirements in ``comfyui``."""
    if unknown := sorted(set(named) - _KINDS.keys()):
        names = ", ".join(_KINDS)
        raise PatchforgeError(f"nothing is called {', '.join(unknown)}", expected=names, do="name one of these")
    return [kind for kind in _KINDS if kind in named or not named]


def _update(kind: str, options: argparse.Namespace) -> list[PinChange]:
    folder = in_repository(options.pins, PINS)
    before, after, changes = _load(kind, folder), {}, []
    try:
        for name, work in _KINDS[kind](options, folder):
            try:
                after[name] = work()
                same = "same" if before.get(name) == after[name] else "changed"
                changes.append(PinChange(kind, name, same if name in before else "new"))
            except PatchforgeError as error:
                changes.append(PinChange(kind, name, "failed", str(error), _status(error)))
                after.update({name: before[name]} if name in before else {})
    except PatchforgeError as error:
        return [PinChange(kind, "", "failed", str(error), _status(error))]
    changes += [PinChange(kind, name, "removed") for name in before.keys() - after.keys()]
    if after != before and not options.dry_run:
        _save(kind, after, folder, [Path(where) for where in _clones(options).named.values() if not is_url(where)])
    return changes


def _status(error: PatchforgeError) -> int:
    """A source that cannot be had contradicts nothing."""
    return int(Exit.UNCHECKED if error.status is Exit.USAGE else error.status)


def _load(kind: str, folder: Path) -> dict[str, Any]:
    """The pins of a kind by name; every lock of torch by its own."""
    if kind != "torch":
        return pin_files.load(kind, folder)
    names = [name for name in pin_files.kinds(folder) if name.startswith(LOCKS)]
    return {name: pin_files.load(name, folder)[""] for name in names}


def _save(kind: str, pins: Mapping[str, Pin], folder: Path, inputs: Sequence[Path]) -> None:
    if kind != "torch":
        pin_files.save(kind, pins, folder, inputs)
        return
    for name, lock in pins.items():
        pin_files.save(name, {"": lock}, folder, inputs)


def _comfyui(options: argparse.Namespace, folder: Path) -> _Work:
    """The releases that are pinned or generated."""
    project = load_project()
    where = _clones(options).named.get("comfyui") or os.environ.get("PATCHFORGE_UPSTREAM") or project.url
    before, claims = pin_files.load("comfyui", folder), source_claims(_upstream())
    for version in sorted({*before, *generated_versions(generated_folder(options.generated))}, key=Version.parse):
        yield version, partial(_settled, before.get(version), comfyui.pin, project, version, where, claims)


def _python(_: argparse.Namespace, folder: Path) -> _Work:
    companions = load_companions(_upstream())
    releases = {version: pin.requirements for version, pin in pin_files.load("comfyui", folder).items()}
    pins = python.pins(releases, companions, Wheels(configured_indexes(), companions.python))
    for name, versions in pins.items():
        yield name, partial(_same, versions)


def _torch(_: argparse.Namespace, folder: Path) -> _Work:
    """All locks, one of the default torch at least. A complete one stays: ``lock-torch --online`` makes it anew."""
    torch, locks = load_torch(_upstream()), _load("torch", folder)
    if not any(name.startswith(f"torch/{torch.default}-") for name in locks):
        locks[f"torch/{torch.default}-{abi_of(torch.pythons[0])}"] = None
    for name in sorted(locks):
        version, abi = name.removeprefix("torch/").rsplit("-", 1)
        lock = locks.get(name)
        again = partial(make_lock, version, f"{abi[2]}.{abi[3:]}", online=False)
        yield name, partial(_same, lock) if lock and lock.complete else again


def _nodes(options: argparse.Namespace, folder: Path) -> _Work:
    before, clones, claims = pin_files.load("nodes", folder), _clones(options), source_claims(_upstream())
    packs = {node.name: node for node in load_nodes(_upstream())}
    chosen = options.only or packs
    if unknown := sorted(set(chosen) - packs.keys()):
        raise PatchforgeError(
            f"no pack is called {', '.join(unknown)}", expected="of: " + ", ".join(packs), do="name one of these"
        )
    for name, pack in packs.items():
        pinned = before.get(name)
        if name in chosen:
            yield name, partial(_settled, pinned, repositories.pin, pack, clones, claims)
        elif pinned:
            yield name, partial(_same, pinned)


def _single(name: str, options: argparse.Namespace, folder: Path) -> _Work:
    repository, before = load_repository(_upstream() / f"{name}.toml"), pin_files.load_one(name, folder)
    yield "", partial(_settled, before, repositories.pin, repository, _clones(options), source_claims(_upstream()))


def _settled(before: SourcePin | None, work: Callable[..., _Source], *given: Any) -> _Source:
    return repositories.with_known_hash(work(*given), before)


def _same(pin: Pin) -> Pin:
    return pin


_KINDS: Mapping[str, Callable[[argparse.Namespace, Path], _Work]] = {
    "comfyui": _comfyui,
    "python": _python,
    "torch": _torch,
    "nodes": _nodes,
    **{name: partial(_single, name) for name in SINGLE},
}


def _upstream() -> Path:
    return resources.path("upstream")


def _clones(options: argparse.Namespace) -> repositories.Clones:
    named = {}
    for text in options.upstream or ():
        name, equals, where = text.partition("=")
        named[name if equals else "comfyui"] = where if equals else text
    return repositories.Clones(named)


def _show(changes: Sequence[PinChange], *, dry: bool) -> None:
    for change in changes:
        print(coloured(f"{change.outcome:8}", change.outcome), change.kind, change.pin)
        for line in change.problem.splitlines():
            print(f"         {line}")
    if dry:
        print("nothing was written (--dry-run)")
