"""``patchforge lock-torch``: locks the wheels of one torch version for XPU on one Python."""

from __future__ import annotations

import argparse

from patchforge import resources
from patchforge.arguments.shared import PINS
from patchforge.commands.common import in_repository, show_json
from patchforge.errors import Exit
from patchforge.hashes.pypi import configured_indexes
from patchforge.pins import store
from patchforge.pins.claims import wheel_claims
from patchforge.pins.torch import abi_of, lock
from patchforge.pins.tracked import load_torch
from patchforge.pins.wheels import Wheels


def run(options: argparse.Namespace) -> int:
    """Exit status 0; 1 when the lock lacks a wheel: it is written all the same, and says what it lacks.

    Without --online a complete lock stays as it is: what is at hand offline cannot better it.
    """
    python = options.python or load_torch(resources.path("upstream")).pythons[0]
    folder, name = in_repository(options.pins, PINS), f"torch/{options.version}-{abi_of(python)}"
    found = store.load(name, folder)
    if options.online or not found.get("complete"):
        found = make_lock(options.version, python, online=options.online)
        store.save(name, found, folder)
    if options.json:
        show_json(found)
    else:
        _show(found)
    return Exit.OK if found["complete"] else Exit.FAILED


def make_lock(version: str, python: str, *, online: bool) -> store.Pins:
    """``online``: PyTorch's own indexes are asked first."""
    upstream = resources.path("upstream")
    torch = load_torch(upstream)
    indexes = [*(torch.indexes if online else ()), *configured_indexes()]
    return lock(version, python, torch, Wheels(indexes, python), claims=wheel_claims(upstream))


def _show(found: store.Pins) -> None:
    for one in found["wheels"]:
        print(f"{one['hash']}  {one['file']}  ({one['hash_source']})")
    for name in found["unread"]:
        print(f"unread   {name}: its hash is published, what it requires is not known; --online reads it")
    for name in found["missing"]:
        print(f"missing  {name}; --online asks PyTorch's index")
