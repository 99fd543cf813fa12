"""patchforge-watch: tells patchforge's exporter and health check what ComfyUI's own API does not.

Which nodes took how long, when the job that runs last moved, whether the thread that works on jobs lives, and which
nodes left the GPU idle. It keeps numbers only, in this process, and writes nothing. Two nodes sample a tiny model with
random weights for ``patchforge health --deep``. Runs in ComfyUI v0.3.10 and later, on any device, and uses nothing of
patchforge.
"""

from . import watch
from .probe import NODE_CLASS_MAPPINGS

watch.install()

__all__ = ["NODE_CLASS_MAPPINGS"]
