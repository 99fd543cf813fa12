"""The rules of custom-node packs, found by looking at the files of this folder."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from patchforge.nodes.words import Rule


@cache
def rules() -> tuple[Rule, ...]:
    """Every rule, in the order in which they see a site."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(kind() for kind in sorted(Rule.__subclasses__(), key=lambda kind: (kind.order, kind.id)))
