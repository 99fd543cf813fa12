"""Confirms hashes that are published and not computed: the source is read from where Nix would fetch it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from patchforge import web
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import of_tarball
from patchforge.hashes.fetchfromgithub import HOST
from patchforge.hashes.pypi import downloaded_hash, open_url
from patchforge.pins import pin_files
from patchforge.pins.pin_files import LockedWheel, RepositoryPin, SourcePin
from patchforge.pins.repositories import archive_url


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What became of one claim."""

    pin: str
    outcome: str  #: "confirmed", "contradicted" or "unreachable"
    problem: str = ""


def confirm(folder: Path, host: str = "") -> Iterator[Confirmation]:
    """Every pin of ``folder`` that is not computed, one after another; what is confirmed is written at once."""
    for kind, name, pin in list(pin_files.published(folder)):
        said, text = _confirm(f"{kind}: {name}" if name else kind, pin, host or HOST)
        if said.outcome == "confirmed":
            pin_files.put(kind, name, pin.confirmed(text), folder)
        yield said


def _confirm(name: str, pin: SourcePin | LockedWheel, host: str) -> tuple[Confirmation, str]:
    """What became of it, and the hash of what is there."""
    try:
        text = downloaded_hash(pin.url) if isinstance(pin, LockedWheel) else _archive_hash(pin, host)
    except CheckFailed as error:
        return Confirmation(name, "contradicted", str(error)), ""
    except PatchforgeError as error:
        return Confirmation(name, "unreachable", str(error)), ""
    if pin.hash not in ("", text):
        by = pin.published_by or "someone"
        return Confirmation(name, "contradicted", f"{pin.hash}, says {by}; {text}, says the source"), ""
    return Confirmation(name, "confirmed"), text


def _archive_hash(pin: SourcePin, host: str) -> str:
    if isinstance(pin, RepositoryPin) and pin.submodules:
        raise PatchforgeError(
            "GitHub's tarball has no submodules",
            expected="complete clones",
            do="patchforge pin nodes, with the network or --upstream",
        )
    url = archive_url(pin, host)
    with open_url(url, web.FILE) as answer:
        web.require(answer)
        return of_tarball(cast("IO[bytes]", answer), web.shown(url), pin.rev).hash
