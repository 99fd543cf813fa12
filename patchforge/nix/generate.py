"""What ``patchforge nix`` writes: the templates as they are, the pins as JSON beside them, and flake.nix.

No version, hash or address is written into Nix code; only the address of one input of flake.nix is, as a Nix string.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from patchforge import manifest, outputs, resources, templating
from patchforge.documents import rendered
from patchforge.door.roles import load_table
from patchforge.errors import PatchforgeError
from patchforge.hashes import trusted
from patchforge.manifest import Manifest
from patchforge.nix import emit
from patchforge.nodes.manifest import PackManifest
from patchforge.nodes.manifest import load as load_pack
from patchforge.outputs import Known, OutputKind
from patchforge.paths import quoted
from patchforge.pins import pin_files
from patchforge.pins.pin_files import (
    LockedWheel,
    ReleasePin,
    RepositoryPin,
    SourcePin,
    TorchLock,
    Versions,
    WheelPin,
)
from patchforge.pins.torch import abi_of
from patchforge.pins.tracked import load_nodes, load_torch
from patchforge.vocabulary import Version

_PYPI = "https://files.pythonhosted.org/packages"
#: What folders had beside Nix files before they had a list.
_BEFORE = re.compile(
    r"data/(comfyui|names|nodes|ollama|python|torch)\.json|checks/(requirements|torch_build|torch_kind|xpu_host)\.py"
    r"|packages/launch\.sh|modules/prune-cache\.sh|(checks|data|modules|packages|template)/"
)
Data = dict[str, Any]
_Pins = TypeVar("_Pins", bound=Mapping[str, Any])


@dataclass(frozen=True, slots=True)
class Generated:
    """What is written. ``left_out``: node packs without a hash, which no expression can fetch."""

    files: Mapping[str, bytes]  #: by path in generated/nix
    flake: bytes
    left_out: tuple[str, ...]


def generate(upstream: Path, generated: Path) -> Generated:
    """``upstream`` holds the tracked things and pins/, ``generated`` the patches: comfyui/VERSION/, nodes/PACK/.

    PatchforgeError when a pin is missing or the patches are not of the pinned commit.
    """
    pins = upstream / "pins"
    nodes, left_out = _nodes(upstream, generated / "nodes")
    data: dict[str, Data] = {
        "comfyui": _comfyui(_there("comfyui", upstream, pin_files.load("comfyui", pins)), generated / "comfyui"),
        "door": {"packs": sorted(load_table(upstream / "routes.toml").pack)},
        "nodes": nodes,
        "ollama": {**_repository(ollama := _one("ollama", upstream)), "version": ollama.version},
        "python": _python(_there("python", upstream, pin_files.load("python", pins))),
        "torch": _torch(upstream),
    }
    files = dict(_templates())
    files |= {f"data/{name}.json": rendered(each) for name, each in data.items()}
    return Generated(dict(sorted(files.items())), _flake(_one("mordragt-nixos", upstream)), left_out)


def _there(kind: str, upstream: Path, pins: _Pins) -> _Pins:
    """The pins; PatchforgeError where there are none."""
    if not pins:
        path = upstream / "pins" / f"{kind}.json"
        raise PatchforgeError(f"{path} is not there", expected="pins", found="nothing", do=f"patchforge pin {kind}")
    return pins


def _one(kind: str, upstream: Path) -> RepositoryPin:
    pin: RepositoryPin = _there(kind, upstream, pin_files.load(kind, upstream / "pins"))[""]
    return pin


def _repository(pin: SourcePin) -> Data:
    return {"owner": pin.owner, "repo": pin.repo, "rev": pin.rev, "hash": trusted(pin.hash)}


def _comfyui(pins: Mapping[str, ReleasePin], releases: Path) -> Data:
    newest = max(pins, key=Version.parse)
    return {"default": newest, "releases": {name: _release(name, pin, releases) for name, pin in pins.items()}}


def _release(name: str, pin: ReleasePin, releases: Path) -> Data:
    try:
        patches = _patches(name, pin, manifest.load(releases / name), f"patchforge apply {name}")
    except FileNotFoundError as error:
        raise PatchforgeError(
            f"{name} is pinned and has no patches",
            expected=error.filename,
            found="nothing",
            do=f"patchforge apply {name}",
        ) from None
    return {
        **_repository(pin),
        "version": name,
        "tag": pin.tag,
        "patches": patches,
        "requirements": pin.requirements,
    }


def _patches(name: str, pin: SourcePin, made: Manifest | PackManifest, command: str) -> list[str]:
    """The files that the manifest names; PatchforgeError when they are not for the pinned commit."""
    if made.commit != pin.rev:
        raise PatchforgeError(
            f"the patches of {name} are not for the pinned commit",
            expected=pin.rev,
            found=made.commit,
            do=command,
        )
    return [patch.file for patch in made.patches]


def _python(pins: Mapping[str, Versions]) -> Data:
    return {
        name: {version: _wheel(pin, pin.requires) | {"platform": pin.platform} for version, pin in versions.items()}
        for name, versions in pins.items()
    }


def _wheel(pin: WheelPin | LockedWheel, requires: Sequence[str]) -> Data:
    """Without an address in the pin, PyPI's own short one, which it derives from the file's name."""
    if not pin.file.endswith(".whl"):
        raise PatchforgeError(
            f"{pin.file} is not a wheel", expected="a pinned wheel", do="pin a wheel, or leave it to nixpkgs"
        )
    parts = pin.file.split("-")
    project, interpreter = parts[0], parts[-3]
    url = f"{_PYPI}/{interpreter}/{project[0]}/{project}/{pin.file}"
    return {"file": pin.file, "hash": trusted(pin.hash), "requires": list(requires), "url": pin.url or url}


def _torch(upstream: Path) -> Data:
    """Every lock there is; none, or an incomplete one, is an error when Nix evaluates python-xpu."""
    tracked = load_torch(upstream)
    names = sorted(path.stem for path in (upstream / "pins" / "torch").glob("*.json"))
    locks = {name: lock for name in names if (lock := pin_files.load_lock(name, upstream / "pins"))}
    complete = {name for name, lock in locks.items() if lock.complete}
    return {
        "default": tracked.default,
        "pythons": list(tracked.pythons),
        "versions": {version: _python_for(version, tracked.pythons, complete) for version in sorted(tracked.versions)},
        "locks": {name: _lock(lock, tracked.elsewhere) for name, lock in locks.items()},
    }


def _python_for(torch: str, pythons: Sequence[str], complete: AbstractSet[str]) -> str:
    """The first Python with a complete lock, else the preferred one, whose lock is then asked for."""
    usable = [python for python in pythons if f"{torch}-{abi_of(python)}" in complete]
    return [*usable, *pythons][0]


def _lock(lock: TorchLock, elsewhere: Sequence[str]) -> Data:
    """A wheel whose metadata nobody read needs what PyTorch's wheels are known to need."""
    torch = [*elsewhere, *(wheel.name for wheel in lock.wheels if _is_of_torch(wheel))]
    wheels = []
    for wheel in lock.wheels:
        guessed = {"torch": torch, "triton-xpu": []}.get(wheel.name, ["torch", "numpy", "pillow"])
        requires = guessed if wheel.name in lock.unread else wheel.requires
        wheels.append({"name": wheel.name, "version": wheel.version, **_wheel(wheel, requires)})
    return {"complete": lock.complete, "missing": lock.missing, "wheels": wheels}


def _is_of_torch(wheel: LockedWheel) -> bool:
    """Whether torch imports it, other than Intel's libraries, which it links."""
    return wheel.name == "triton-xpu" or wheel.file.endswith("-none-any.whl")


def _nodes(upstream: Path, generated: Path) -> tuple[Data, tuple[str, ...]]:
    """A pack without patches is packaged as it is."""
    pins = _there("nodes", upstream, pin_files.load("nodes", upstream / "pins"))
    packs: Data = {}
    left_out: list[str] = []
    for node in load_nodes(upstream):
        pin = pins.get(node.name)
        if pin is None:
            raise PatchforgeError(f"node pack {node.name} is not pinned", found="no pin", do="patchforge pin nodes")
        if not pin.hash:
            left_out.append(node.name)
            continue
        patches: list[str] = []
        with suppress(FileNotFoundError):
            folder = generated / node.name
            patches = _patches(
                node.name, pin, load_pack(folder), f"patchforge packs apply CLONE --out {quoted(folder)}"
            )
        packs[node.name] = {
            **_repository(pin),
            "date": pin.date,
            "license": pin.license,
            "submodules": pin.submodules,
            "group": node.group,
            "patches": patches,
            "requirements": pin.requirements,
            "title": node.title,
        }
    return packs, tuple(left_out)


def _templates() -> Iterator[tuple[str, bytes]]:
    """The static files, the Nix ones with a line that says where to edit them."""
    folder = resources.path("templates/nix")
    for path in sorted(folder.rglob("*")):
        if path.suffix not in {".nix", ".sh", ".py", ".json"}:
            continue
        name = path.relative_to(folder).as_posix()
        yield name, (_note(name) if path.suffix == ".nix" else b"") + path.read_bytes()


def _note(name: str) -> bytes:
    return f"# Generated by `patchforge nix` from templates/nix/{name}; edit that.\n".encode()


def _flake(mordragt: RepositoryPin) -> bytes:
    environment = templating.environment("nix")
    environment.filters["nix"] = emit.expression
    url = f"github:{mordragt.owner}/{mordragt.repo}/{mordragt.rev}"
    return outputs.marked(f"# {outputs.mark()}\n" + environment.get_template("flake.nix.j2").render(mordragt_url=url))


def is_our_flake(data: bytes) -> bool:
    """Whether flake.nix is as it was written; those of earlier versions have no mark."""
    return outputs.is_marked(data) if outputs.has_mark(data) else data.startswith(_note("flake.nix.j2")[:-1])


def _earlier(folder: Path) -> Known | None:
    """Folders of earlier versions have no list: their Nix files say which they are, and no others have their names."""
    default = outputs.read_plain(folder / "default.nix")
    return _known_before if default and default.startswith(_note("default.nix")) else None


def _known_before(name: str) -> outputs.Check | None:
    if name.endswith(".nix"):
        return lambda data: data.replace(b"\r\n", b"\n").startswith(_note(name))
    return (lambda _: True) if _BEFORE.fullmatch(name) else None


NIX = OutputKind("Nix expressions", re.compile(r"(\w[\w.-]*/)*\w[\w.-]*\.(nix|sh|py|json)"), _earlier)
