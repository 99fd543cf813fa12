"""Confirms hashes that are published and not computed: the source is read from where Nix would fetch it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from patchforge import web
from patchforge.errors import CheckFailed, PatchforgeError
from patchforge.hashes import of_tarball
from patchforge.hashes.fetchfromgithub import HOST
from patchforge.hashes.pypi import downloaded_hash, open_url
from patchforge.pins import store
from patchforge.pins.repositories import archive_url


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What became of one claim."""

    pin: str
    outcome: str  #: "confirmed", "contradicted" or "unreachable"
    problem: str = ""


def confirm(folder: Path, host: str = "") -> Iterator[Confirmation]:
    """Every pin of ``folder`` that is not computed, one after another; what is confirmed is written at once."""
    for kind, pins, name, pin in _open_claims(folder):
        reads = _wheel_hash if kind.startswith("torch/") else lambda each: _archive_hash(each, host or HOST)
        result = _confirm(f"{kind}: {name}" if name else kind, pin, reads)
        if result.outcome == "confirmed":
            store.save(kind, pins, folder)
        yield result


def _open_claims(folder: Path) -> Iterator[tuple[str, store.Pins, str, dict[str, Any]]]:
    """Kind, the whole document, a pin's name, and the pin inside the document."""
    for kind in store.kinds(folder):
        pins = store.load(kind, folder)
        single = {"": pins} if "rev" in pins else pins
        named = {one["name"]: one for one in pins["wheels"]} if "wheels" in pins else single
        for name, pin in sorted(named.items()):
            if pin.get("hash_source") == "published" or (pin.get("rev") and "hash" not in pin):
                yield kind, pins, name, pin


def _confirm(name: str, pin: dict[str, Any], reads: Callable[[Mapping[str, Any]], str]) -> Confirmation:
    try:
        text = reads(pin)
    except CheckFailed as error:
        return Confirmation(name, "contradicted", str(error))
    except PatchforgeError as error:
        return Confirmation(name, "unreachable", str(error))
    if pin.get("hash", text) != text:
        by = pin.get("published_by", "someone")
        return Confirmation(name, "contradicted", f"{pin['hash']}, says {by}; {text}, says the source")
    pin.update(hash=text, hash_source="computed")
    pin.pop("missing", None)
    pin.pop("published_by", None)
    return Confirmation(name, "confirmed")


def _archive_hash(pin: Mapping[str, Any], host: str) -> str:
    if pin.get("submodules"):
        raise PatchforgeError(
            "GitHub's tarball has no submodules",
            expected="complete clones",
            do="patchforge pin nodes, with the network or --upstream",
        )
    url = archive_url(pin, host)
    with open_url(url, web.FILE) as answer:
        web.require(answer)
        return of_tarball(cast("IO[bytes]", answer), web.shown(url), pin["rev"]).hash


def _wheel_hash(pin: Mapping[str, Any]) -> str:
    return downloaded_hash(pin["url"])
