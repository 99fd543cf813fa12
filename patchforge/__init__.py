"""Turn ComfyUI releases into ones that work well on Intel GPUs."""

import os as _os  # pathlib may not be imported before __main__ has left the current folder

__version__ = "0.1.0"

# In the repository the rules stand beside the package; where it is installed they are inside of it.
_here = _os.path.dirname(__file__)  # noqa: PTH120
_above = _os.path.dirname(_here)  # noqa: PTH120
if not _os.path.exists(f"{_here}/transforms") and _os.path.isfile(f"{_above}/transforms/__init__.py"):  # noqa: PTH110, PTH113
    __path__.append(_above)
