"""Whether what ``--python`` names can be used: it is there, runs, is Python, and has torch where that is needed."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from patchforge import faults, processes
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.paths import kind, not_there, quoted

_EXPECTED = "a Python interpreter, such as venv/bin/python"
_DO = "name another with --python"
_SECONDS = 60
_ASK = (
    "import importlib.util, json, sys;"
    "print(json.dumps({'version': sys.version_info[:2], 'torch': importlib.util.find_spec('torch') is not None}))"
)


def need(
    named: str | Path,
    *,
    torch: bool = False,
    flags: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """PatchforgeError unless ``named``, a path or a name in PATH, is Python; NotChecked where ``torch`` is lacking."""
    python = _found(str(named))
    if python == sys.executable and not torch:
        return
    try:
        done = processes.run(
            [python, *flags, "-c", _ASK], capture_output=True, timeout=_SECONDS, cwd="/", env=environment
        )
    except processes.TimeoutExpired:
        raise _no_python(python, f"no answer within {_SECONDS} seconds") from None
    except OSError as error:
        raise PatchforgeError(f"{python} cannot be started", expected=_EXPECTED, found=_why(error), do=_DO) from None
    try:
        told = json.loads(done.stdout.splitlines()[-1])
        lacks = not told["torch"]
    except (ValueError, IndexError, KeyError, TypeError):
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        end = f"it {processes.how_ended(done.returncode)}"
        raise _no_python(python, f"{end}{f', and said: {said[-1][:200]}' if said else ', and said nothing'}") from None
    if torch and lacks:
        raise NotChecked(
            f"{python} has no torch",
            expected="the torch that is to be used",
            found=f"Python {'.'.join(map(str, told['version']))} without it",
            do=f"install torch there, or {_DO}",
        )


def _found(named: str) -> str:
    if os.path.dirname(named) or (os.altsep and os.altsep in named):  # noqa: PTH120 - not a path where it has none
        path = Path(named).expanduser()
    elif there := shutil.which(named):
        return there
    else:
        raise PatchforgeError(f"{named} is not in PATH", expected=_EXPECTED, found="no such program", do=_DO)
    if not path.exists():
        raise not_there(path, _EXPECTED, do=_DO)
    if path.is_dir():
        inner = next((path / name for name in ("bin/python", "Scripts/python.exe") if (path / name).exists()), None)
        do = f"name {quoted(inner)}" if inner else _DO
        raise PatchforgeError(f"{path} is {kind(path)}", expected=_EXPECTED, found=kind(path), do=do)
    return str(path.absolute())  # not resolved, since a virtual environment's is a link


def _no_python(python: str, found: str) -> PatchforgeError:
    return PatchforgeError(f"{python} does not run as Python", expected=_EXPECTED, found=found, do=_DO)


def _why(error: OSError) -> str:
    return faults.told(OSError(error.errno, error.strerror)).found
