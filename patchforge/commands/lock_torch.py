"""``patchforge lock-torch``: locks the wheels of one torch version for XPU on one Python."""

from __future__ import annotations

import argparse

from patchforge import resources
from patchforge.arguments.shared import PINS
from patchforge.commands.common import in_repository, show_json
from patchforge.documents import plain
from patchforge.errors import Exit
from patchforge.hashes.pypi import configured_indexes
from patchforge.pins import pin_files
from patchforge.pins.claims import wheel_claims
from patchforge.pins.pin_files import LOCKS, TorchLock
from patchforge.pins.torch import abi_of, lock
from patchforge.pins.tracked import load_torch
from patchforge.pins.wheels import Wheels


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when the lock lacks a wheel: it is written all the same, and says what it lacks.

    Without --online a complete lock stays as it is: what is at hand offline cannot better it.
    """
    python = options.python or load_torch(resources.path("upstream")).pythons[0]
    folder, name = in_repository(options.pins, PINS), f"{options.version}-{abi_of(python)}"
    known = pin_files.load_lock(name, folder)
    if options.online or not (known and known.complete):
        known = make_lock(options.version, python, online=options.online)
        pin_files.save(f"{LOCKS}{name}", {"": known}, folder)
    if options.json:
        show_json("lock-torch", plain(known))
    else:
        _show(known)
    return Exit.OK if known.complete else Exit.FAILED


def make_lock(version: str, python: str, *, online: bool) -> TorchLock:
    """``online``: PyTorch's own indexes are asked first."""
    upstream = resources.path("upstream")
    torch = load_torch(upstream)
    indexes = [*(torch.indexes if online else ()), *configured_indexes()]
    return lock(version, python, torch, Wheels(indexes, python), claims=wheel_claims(upstream))


def _show(lock: TorchLock) -> None:
    for wheel in lock.wheels:
        print(f"{wheel.hash}  {wheel.file}  ({wheel.hash_source})")
    for name in lock.unread:
        print(f"unread   {name}: its hash is published, what it requires is not known; --online reads it")
    for name in lock.missing:
        print(f"missing  {name}; --online asks PyTorch's index")
