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
    devices: str = ""
    source: str = ""

    @property
    def takes(self) -> str:
        """What is said of it as a library that is given a device."""
        return f"knows {self.devices}" if self.devices else "has kernels for CUDA alone"


((_, _data),) = resources.sources("nodes/known.toml")
_TABLES = tomllib.loads(_data.decode())
TWINS, NEEDLESS, LACKING, RAISING = (
    frozenset(_TABLES["torch"][name]) for name in ("twins", "needless", "lacking", "raising")
)
PACKAGES = tuple(Package(module, **about) for module, about in _TABLES["modules"].items())
#: Distribution → what to do about it in a requirements file.
REPLACES: dict[str, str] = _TABLES["distributions"]
