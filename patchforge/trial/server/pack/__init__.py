"""The trial pack: nodes that tests need, and an observer. Copied into a release's custom_nodes by patchforge test.

Runs inside ComfyUI, v0.3.10 and later, on any device; uses nothing of patchforge.
"""

from . import observer

try:
    from .nodes import NODE_CLASS_MAPPINGS
except ModuleNotFoundError as error:
    if error.name != f"{__name__}.nodes":
        raise
    NODE_CLASS_MAPPINGS = {}

observer.install()

__all__ = ["NODE_CLASS_MAPPINGS"]
