"""Whether the torch that is imported is of the expected kind (``xpu``; nothing is expected of a torch of one's own)."""

# ruff: noqa: INP001 - a script
import sys

import torch

if sys.argv[1] and f"+{sys.argv[1]}" not in torch.__version__:
    print(
        f"the environment has another torch\n  expected: a version with +{sys.argv[1]}\n  found: {torch.__version__}\n"
        "  to do: look for a package that brings its own torch",
        file=sys.stderr,
    )
    raise SystemExit(1)
print(f"torch {torch.__version__}")
