"""What is known of torch's API and of packages on an XPU: the tables of ``known.toml``, which says what they mean."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass

from patchforge import resources


@dataclass(frozen=True, slots=True)
class Package:
    """A package by the name that is imported."""

    module: str
    advice: str = ""
    needed: bool = False
    kernels: bool = False
    loads: bool = False
    devices: str = ""
    source: str = ""

    @property
    def takes(self) -> str:
        """What is said of it as a library that is given a device."""
        return f"knows {self.devices}" if self.devices else "has kernels for CUDA alone"


((_, _data),) = resources.sources("nodes/known.toml")
_TABLES = tomllib.loads(_data.decode())
_TORCH = _TABLES["torch"]
NEEDLESS, RAISING = (frozenset(_TORCH[name]) for name in ("needless", "raising"))
#: Function or class of torch.xpu → its parameters, where torch.cuda has one of that name.
TWINS: dict[str, tuple[str, ...]] = {name: tuple(takes) for name, takes in _TORCH["twins"].items()}
#: ... → further parameters of torch.cuda's → the values that an XPU can do without.
DROPPED: dict[str, dict[str, list[object]]] = _TORCH["dropped"]
#: ... → fields that only CUDA's result has.
LACKING: dict[str, frozenset[str]] = {name: frozenset(fields) for name, fields in _TORCH["lacking"].items()}
#: ... → how the keys of its result begin.
KEYS: dict[str, tuple[str, ...]] = {name: tuple(keys) for name, keys in _TORCH["keys"].items()}
PACKAGES = tuple(Package(module, **about) for module, about in _TABLES["modules"].items())
#: Distribution → what to do about it in a requirements file.
REPLACES: dict[str, str] = _TABLES["distributions"]
