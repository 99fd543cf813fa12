# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator's own tests with another torch than the one it is written for. This check is allowed to fail.

``python -m emulator.second_torch PYTHON``, where PYTHON is an interpreter with that torch and with pytest. A CUDA build
on a machine without CUDA serves, too; what it cannot do is in docs/emulated-xpu.md.

Exit status: 0 when all tests pass, 1 when some do not, 2 when they could not be run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from emulator.build import TORCH, TORCH_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
TESTS = "tests/emulator/test_emulated_device.py"
_VERSIONS = "import pytest, torch; print(torch.__version__)"


def check(python: str) -> tuple[int, str]:
    """The exit status, and what to tell."""
    env = {**os.environ, TORCH_VARIABLE: "any"}
    try:
        asked = subprocess.run([python, "-c", _VERSIONS], env=env, capture_output=True, text=True, check=False)
    except OSError as error:
        return 2, f"{python} cannot be run: {error.strerror}"
    if asked.returncode:
        last = asked.stderr.strip().splitlines()[-1:]
        return 2, f"{python} needs torch and pytest: {''.join(last)}"
    version = asked.stdout.strip()
    if version.startswith(f"{TORCH}."):
        return 2, f"{python} has torch {version}: expected another than {TORCH}, which the ordinary tests cover"
    command = [python, "-m", "pytest", "-q", "-rfEs", "--tb=line", "-p", "no:cacheprovider", TESTS]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    told = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    summary = lines[-1] if lines else done.stderr.strip()
    status = {0: 0, 1: 1}.get(done.returncode, 2)
    if status == 0 and "passed" not in summary:
        status = 2  # all were skipped
    return status, "\n".join([*told, f"emulated XPU with torch {version} (it is written for {TORCH}): {summary}"])


def main() -> None:
    """Check, and exit with the status."""
    if len(sys.argv) != 2:
        print("usage: python -m emulator.second_torch PYTHON", file=sys.stderr)
        raise SystemExit(2)
    status, told = check(sys.argv[1])
    print(told)
    raise SystemExit(status)


if __name__ == "__main__":
    main()
