"""The transforms of ComfyUI, found by looking at the files of this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from patchforge.transform import Transform


@cache
def transforms() -> tuple[Transform, ...]:
    """Every transform, ordered by id. A transform comes after those whose output it needs."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    ours = (kind for kind in Transform.__subclasses__() if kind.__module__.startswith(f"{__name__}."))
    return tuple(kind() for kind in sorted(ours, key=lambda kind: kind.id))
