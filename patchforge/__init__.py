"""Turn ComfyUI releases into ones that work well on Intel GPUs."""

from pathlib import Path

__version__ = "0.1.0"

# In the repository the rules stand beside the package; where it is installed they are inside of it.
_rules = Path(__file__).parent / "transforms"
if not _rules.exists() and (_rules.parent.parent / "transforms" / "__init__.py").is_file():
    __path__.append(str(_rules.parent.parent))
