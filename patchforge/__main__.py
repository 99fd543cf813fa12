"""``python -m patchforge``."""

from patchforge.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
