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
    return tuple(kind() for kind in sorted(Transform.__subclasses__(), key=lambda kind: kind.id))
