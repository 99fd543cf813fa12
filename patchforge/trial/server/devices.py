"""Which device a trial runs on, and the variables that a process needs to see it."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from patchforge import processes
from patchforge.errors import NotChecked, PatchforgeError
from patchforge.trial.model import Device

#: What people say for a device.
_MAKERS = {"intel": "xpu", "arc": "xpu", "nvidia": "cuda", "amd": "cuda", "rocm": "cuda", "apple": "mps"}
KINDS = ("cuda", "xpu", "mps", "cpu")
EMULATED = "emulated"
PRESET = "b580"
#: The emulated device draws the CPU's random numbers, so that results can be compared as bits.
OPTIONS = "rng=cpu;torchvision=schemas"
#: Sums are made in one order.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_ASK = """
import json, torch
found = [kind for kind in ("cuda", "xpu", "mps") if getattr(torch, kind, None) and getattr(torch, kind).is_available()]
print(json.dumps(found))
"""


def choose(text: str, python: Path) -> Device:
    """``auto`` (CUDA before XPU before Apple's, then the emulated XPU, then the CPU), a kind, or ``emulated:PRESET``.

    PatchforgeError for other texts, NotChecked where the torch of ``python`` does not see the device.
    """
    kind, _, preset = text.partition(":")
    if kind == EMULATED:
        return _emulated(preset or PRESET)
    if kind not in {"auto", *KINDS} or preset:
        names = f"auto, {', '.join(KINDS)}, {EMULATED} or {EMULATED}:PRESET"
        close = _MAKERS.get(kind.lower()) or next(iter(get_close_matches(kind, [*KINDS, EMULATED], n=1)), "")
        do = f"did you mean {close}?" if close else "name one of these"
        raise PatchforgeError(f"no device is called {text!r}", expected=names, do=do)
    present = available(python) if kind != "cpu" else []
    if kind == "auto":
        return Device(present[0]) if present else _emulated(PRESET) if _emulator() else Device("cpu")
    if kind != "cpu" and kind not in present:
        raise NotChecked(
            f"the torch of {python} sees no {kind} device",
            expected=kind,
            found=", ".join(present) or "only the CPU",
            do="patchforge doctor says what is missing; --device emulated needs no GPU",
        )
    return Device(kind)


def available(python: Path) -> list[str]:
    """The kinds of GPU that torch sees, CUDA first; none where it has no torch or does not answer."""
    try:
        ran = processes.run(
            [python, "-c", _ASK],
            env=variables(Device("cpu")),
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        kinds: list[str] = json.loads(ran.stdout.splitlines()[-1])
    except (OSError, processes.SubprocessError, ValueError, IndexError):
        return []
    return kinds


def variables(device: Device, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process on ``device``: of this process's what drivers and torch read.

    Where the CPU computes it has one thread, since results are compared as bits.
    """
    kept = processes.environment(allow=processes.HARDWARE, inherited=base)
    if device.kind == "cpu" or device.emulated:
        kept |= _ONE_THREAD
    if not device.emulated:
        return kept
    variables: dict[str, str] = _required().environment(device.emulated, device.options, kept)
    return variables


def _emulated(preset: str) -> Device:
    device = Device("xpu", preset, OPTIONS)
    try:
        variables(device)
    except ValueError as error:
        raise PatchforgeError(
            f"no emulated device is called {preset!r}", found=str(error), do="name one of these"
        ) from None
    return device


def _emulator() -> ModuleType | None:
    """The emulated XPU: part of the repository, never of what is installed."""
    try:
        return importlib.import_module("emulator")
    except ModuleNotFoundError:
        return None


def _required() -> ModuleType:
    emulator = _emulator()
    if emulator is None:
        raise NotChecked(
            "the emulated XPU is not part of the installed package",
            expected="a checkout of patchforge's repository",
            do="run the same in the repository, as python -m patchforge, or name another --device",
        )
    return emulator


def emulator_digest() -> str:
    """Of the emulated XPU's own sources."""
    folder = Path(str(_required().__file__)).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in {".py", ".cpp"})
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
