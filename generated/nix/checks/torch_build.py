"""Whether the torch in a folder is the locked XPU build. Importing it would need a driver's loader."""

# ruff: noqa: INP001 - a script
import re
import sys
from pathlib import Path

stated = re.search(
    r"^__version__\s*=\s*'([^']+)'", (Path(sys.argv[1]) / "torch" / "version.py").read_text(), re.MULTILINE
)
version_found = stated[1] if stated else "nothing"
if version_found != sys.argv[2] or "+xpu" not in version_found:
    print(
        f"torch is not the locked build\n  expected: {sys.argv[2]}, with +xpu\n  found: {version_found}",
        file=sys.stderr,
    )
    raise SystemExit(1)
