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
from typing import Any

from patchforge import manifest, outputs, resources, templating
from patchforge.errors import PatchforgeError
from patchforge.hashes import trusted
from patchforge.manifest import Manifest
from patchforge.nix import emit
from patchforge.nodes.manifest import PackManifest
from patchforge.nodes.manifest import load as load_pack
from patchforge.outputs import Kind, Known
from patchforge.pins import store
from patchforge.pins.torch import abi_of
from patchforge.pins.tracked import load_nodes, load_torch
from patchforge.vocabulary import Version

_PYPI = "https://files.pythonhosted.org/packages"
#: What folders had beside Nix files before they had a list.
_BEFORE = re.compile(
    r"data/(comfyui|names|nodes|ollama|python|torch)\.json|checks/(requirements|torch_build|torch_kind|xpu_host)\.py"
    r"|packages/launch\.sh|modules/prune-cache\.sh|(checks|data|modules|packages|template)/"
)
_SOURCE = ("owner", "repo", "rev", "hash")
Data = dict[str, Any]


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
    nodes, left_out = _nodes(upstream, generated / "nodes")
    data: dict[str, Data] = {
        "comfyui": _comfyui(_required("comfyui", upstream), generated / "comfyui"),
        "nodes": nodes,
        "ollama": {**_repository(pin := _required("ollama", upstream)), "version": pin["version"]},
        "python": _python(_required("python", upstream)),
        "torch": _torch(upstream),
    }
    files = dict(_templates())
    files |= {f"data/{name}.json": store.render(each) for name, each in data.items()}
    return Generated(dict(sorted(files.items())), _flake(_required("mordragt-nixos", upstream)), left_out)


def _required(kind: str, upstream: Path) -> Data:
    found = store.load(kind, upstream / "pins")
    if not found:
        path = upstream / "pins" / f"{kind}.json"
        raise PatchforgeError(f"{path} is not there", expected="pins", found="nothing", do=f"patchforge pin {kind}")
    return found


def _repository(pin: Mapping[str, Any]) -> Data:
    return {**{key: pin[key] for key in _SOURCE}, "hash": trusted(pin["hash"])}


def _comfyui(pins: Data, releases: Path) -> Data:
    newest = max(pins, key=Version.parse)
    return {"default": newest, "releases": {name: _release(name, pin, releases) for name, pin in pins.items()}}


def _release(name: str, pin: Mapping[str, Any], releases: Path) -> Data:
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
        "tag": pin["tag"],
        "patches": patches,
        "requirements": pin["requirements"],
    }


def _patches(name: str, pin: Mapping[str, Any], made: Manifest | PackManifest, command: str) -> list[str]:
    """The files that the manifest names; PatchforgeError when they are not for the pinned commit."""
    if made.commit != pin["rev"]:
        raise PatchforgeError(
            f"the patches of {name} are not for the pinned commit",
            expected=pin["rev"],
            found=made.commit,
            do=command,
        )
    return [one.file for one in made.patches]


def _python(pins: Data) -> Data:
    return {
        name: {version: _wheel(pin) | {"platform": pin["platform"]} for version, pin in versions.items()}
        for name, versions in pins.items()
    }


def _wheel(pin: Mapping[str, Any]) -> Data:
    """Without an address in the pin, PyPI's own short one, which it derives from the file's name."""
    file: str = pin["file"]
    if not file.endswith(".whl"):
        raise PatchforgeError(
            f"{file} is not a wheel", expected="a pinned wheel", do="pin a wheel, or leave it to nixpkgs"
        )
    parts = file.split("-")
    project, interpreter = parts[0], parts[-3]
    url = f"{_PYPI}/{interpreter}/{project[0]}/{project}/{file}"
    return {"file": file, "hash": trusted(pin["hash"]), "requires": pin["requires"], "url": pin.get("url", url)}


def _torch(upstream: Path) -> Data:
    """Every lock there is; none, or an incomplete one, is an error when Nix evaluates python-xpu."""
    tracked = load_torch(upstream)
    names = sorted(path.stem for path in (upstream / "pins" / "torch").glob("*.json"))
    locks = {name: store.load(f"torch/{name}", upstream / "pins") for name in names}
    complete = {name for name, lock in locks.items() if lock["complete"]}
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


def _lock(lock: Data, elsewhere: Sequence[str]) -> Data:
    """A wheel whose metadata nobody read needs what PyTorch's wheels are known to need."""
    unread = set(lock.get("unread", ()))
    torch = [*elsewhere, *(one["name"] for one in lock["wheels"] if _is_of_torch(one))]
    wheels = []
    for one in lock["wheels"]:
        guessed = {"torch": torch, "triton-xpu": []}.get(one["name"], ["torch", "numpy", "pillow"])
        requires = guessed if one["name"] in unread else one["requires"]
        wheels.append({"name": one["name"], "version": one["version"], **_wheel({**one, "requires": requires})})
    return {"complete": lock["complete"], "missing": lock["missing"], "wheels": wheels}


def _is_of_torch(wheel: Mapping[str, Any]) -> bool:
    """Whether torch imports it, other than Intel's libraries, which it links."""
    return bool(wheel["name"] == "triton-xpu" or wheel["file"].endswith("-none-any.whl"))


def _nodes(upstream: Path, generated: Path) -> tuple[Data, tuple[str, ...]]:
    """A pack without patches is packaged as it is."""
    pins = _required("nodes", upstream)
    found: Data = {}
    left_out: list[str] = []
    for one in load_nodes(upstream):
        pin = pins.get(one.name)
        if pin is None:
            raise PatchforgeError(f"node pack {one.name} is not pinned", found="no pin", do="patchforge pin nodes")
        if "hash" not in pin:
            left_out.append(one.name)
            continue
        patches: list[str] = []
        with suppress(FileNotFoundError):
            folder = generated / one.name
            patches = _patches(one.name, pin, load_pack(folder), f"patchforge packs apply CLONE --out {folder}")
        found[one.name] = {
            **_repository(pin),
            **{key: pin[key] for key in ("date", "license", "submodules")},
            "group": one.group,
            "patches": patches,
            "requirements": pin.get("requirements", []),
            "title": one.title,
        }
    return found, tuple(left_out)


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


def _flake(mordragt: Mapping[str, Any]) -> bytes:
    environment = templating.environment("nix")
    environment.filters["nix"] = emit.expression
    url = f"github:{mordragt['owner']}/{mordragt['repo']}/{mordragt['rev']}"
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


NIX = Kind("Nix expressions", re.compile(r"(\w[\w.-]*/)*\w[\w.-]*\.(nix|sh|py|json)"), _earlier)
