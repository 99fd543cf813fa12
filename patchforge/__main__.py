"""``python -m patchforge``."""

from patchforge.cli import main

raise SystemExit(main())
