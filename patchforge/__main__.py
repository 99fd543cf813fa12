"""``python -m patchforge``. Python then looks for modules in the current folder first, which may be a stranger's.

Nothing may be imported here that is not loaded already when Python starts: it would come from there.
"""

# ruff: noqa: PTH120
import os
import sys


def leave_current_folder() -> None:
    """No module comes from the current folder, unless this patchforge does."""
    here = os.path.realpath(".")
    if here != os.path.dirname(os.path.dirname(os.path.realpath(__file__))):
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]


if __name__ == "__main__":
    leave_current_folder()
    from patchforge.cli import main

    raise SystemExit(main())
