"""Commands that write, and a folder with what they read."""

from __future__ import annotations

import hashlib
import json
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from patchforge import cli
from patchforge.bot.model import Candidate
from patchforge.bot.preparation import list_in_index
from patchforge.outputs import PATCHES, mark, marked, write_document, write_folder
from patchforge.pins import pin_files
from patchforge.pins.pin_files import RepositoryPin, TorchLock
from patchforge.trial.reports import evidence, pack_page, report
from patchforge.vocabulary import Version
from tests.support import MINIATURES, ROOT
from tests.trial import examples

NODE = 'import torch\n\n\nclass Node:\n    def run(self, x):\n        return x.to("cuda")\n'


@dataclass(frozen=True)
class Sandbox:
    """A folder with a release, a pack and a generated/ folder to read, and ``place``, where the output goes."""

    top: Path

    @property
    def source(self) -> Path:
        return self.top / "ComfyUI"

    @property
    def pack(self) -> Path:
        return self.top / "packs" / "some-pack"

    @property
    def generated(self) -> Path:
        return self.top / "outputs" / "generated"

    @property
    def place(self) -> Path:
        return self.top / "outputs" / "out"


def sandbox(top: Path) -> Sandbox:
    made = Sandbox(top)
    shutil.copytree(MINIATURES / "v0.33.0", made.source)
    made.pack.mkdir(parents=True)
    (made.pack / "__init__.py").write_text(NODE)
    for name in ("comfyui", "nodes"):
        shutil.copytree(ROOT / "generated" / name, made.generated / name)
    return made


def state(top: Path) -> dict[str, tuple[int, bytes]]:
    """Everything below a folder: mode, and bytes or where a link leads."""
    entries = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        inside = bytes(path.readlink()) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(mode) else b""
        entries[path.relative_to(top).as_posix()] = (mode, inside)
    return entries


def patches(text: str = "+1\n") -> dict[str, bytes]:
    """What is written for a release, in small."""
    patch = text.encode()
    entry = {"file": "0001-device-support.patch", "sha256": hashlib.sha256(patch).hexdigest()}
    return {
        "0001-device-support.patch": patch,
        "series": b"0001-device-support.patch\n",
        "manifest.json": json.dumps({"format": 1, "rules": "r", "patches": [entry]}).encode(),
        "REPORT.md": b"# ComfyUI v0.33.0 for Intel GPUs\n\n" + patch,
    }


class Refused(Exception):
    """A command ended with the status of wrong usage."""


def command(*arguments: str) -> None:
    if (status := cli.main(arguments)) not in {0, 1}:
        assert status == 2
        raise Refused


@dataclass(frozen=True)
class Writer:
    """A command that writes a folder or a file, and where."""

    name: str
    run: Callable[[Sandbox], None]
    folder: bool
    at: Callable[[Sandbox], Path] = lambda box: box.place

    def __str__(self) -> str:
        return self.name


def _save(box: Sandbox) -> None:
    evidence.save(box.place, examples.evidence(), dict.fromkeys(examples.evidence().pictures, examples.PICTURE))


def _report(box: Sandbox) -> None:
    _save(box) if not box.place.exists() else None
    report.write(box.place, [examples.evidence()])


def _reports(box: Sandbox) -> None:
    report.write(box.place.parent, [examples.evidence(), examples.evidence(release="v0.32.0")])


def _index(box: Sandbox) -> None:
    if not box.place.exists():
        box.place.write_text("version\tcommit\tdate\n")
    list_in_index(box.place, Candidate(Version.parse("v0.34.0"), "v0.34.0", "c" * 40), "2026-11-21")


def _page(box: Sandbox) -> None:
    text = box.place.read_bytes() if box.place.is_file() else b"# Mine\n<!-- begin: cpu -->\n<!-- end: cpu -->\n"
    pack_page.check(box.place)
    write_document(box.place, text.replace(b"-->\n", b"-->\nnew\n", 1), lambda data: b"<!-- begin: " in data)


def _apply(box: Sandbox) -> None:
    command("apply", "--from", str(box.source), "--out", str(box.place))


def _convert(box: Sandbox) -> None:
    command("packs", "apply", str(box.pack), "--out", str(box.place))


def _bot(box: Sandbox) -> None:
    write_folder(box.place, patches("+2\n"), PATCHES)


def _nix(box: Sandbox) -> None:
    command("nix", "--generated", str(box.generated))


def _sarif(box: Sandbox) -> None:
    command("packs", "check", str(box.pack), "--sarif", str(box.place))


def _pins(box: Sandbox) -> None:
    pin = RepositoryPin(owner="o", repo="r", rev="2", date="", license="MIT", submodules=False)
    pin_files.save("nodes", {"a": pin}, box.place.parent)


def _lock(box: Sandbox) -> None:
    lock = TorchLock("2", "cp312", complete=True, missing=("1",), unread=(), wheels=())
    pin_files.save("torch/out", {"": lock}, box.place.parent)


def _against(box: Sandbox) -> None:
    write_document(box.place, marked(f"# {mark()}\nnew\n"))


WRITERS = (
    Writer("apply", _apply, folder=True),
    Writer("nodes apply", _convert, folder=True),
    Writer("nix", _nix, folder=True, at=lambda box: box.generated / "nix"),
    Writer("bot", _bot, folder=True),
    Writer("evidence", _save, folder=True),
    Writer("report", _report, folder=True),
    Writer("sarif", _sarif, folder=False),
    Writer("flake", _nix, folder=False, at=lambda box: box.place.parent / "flake.nix"),
    Writer("pins", _pins, folder=False, at=lambda box: box.place.parent / "nodes.json"),
    Writer("lock", _lock, folder=False, at=lambda box: box.place.parent / "torch" / "out.json"),
    Writer("reports", _reports, folder=False, at=lambda box: box.place.parent / "report.html"),
    Writer("index", _index, folder=False),
    Writer("page", _page, folder=False),
    Writer("against", _against, folder=False),
)
