# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong on a device, on demand; for the process that has the emulated XPU."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from emulator import coverage
from emulator.library import device_library

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from emulator.presets import EmulatorOptions

#: Error codes of Unified Runtime by the names that options use.
CODES = {"device-lost": 20, "out-of-host-memory": 38, "out-of-device-memory": 39, "out-of-resources": 40}
MEMORY_INFO = ("honest", "raises", "stale", "nonsense")


def _ask(name: str, *args: Any) -> None:
    library = device_library()
    answer = getattr(library, f"emulated_{name}")(*args)
    if isinstance(answer, int) and answer < 0:
        raise RuntimeError(library.emulated_error().decode())


def _code(error: str) -> int:
    if error not in CODES:
        raise ValueError(f"expected one of {', '.join(CODES)}, and found {error!r}")
    return CODES[error]


def operations(device: int | None = None) -> int:
    """How many operations all devices were asked for, or one device has run: kernels and copies, not views.

    Counts are of this process and only grow; :func:`clear` leaves them. Without ``device`` those are in that a fault or
    a refusal ended. A copy between devices counts for the one it goes to, a copy to the CPU for the one it comes from.
    RuntimeError for a device that is not there.
    """
    library = device_library()
    if device is None:
        return int(library.emulated_operations())
    count = int(library.emulated_operations_of(device))
    if count < 0:
        raise RuntimeError(library.emulated_error().decode())
    return count


def fail(error: str, after: int = 1, times: int = 1) -> None:
    """Raise a Unified Runtime error (RuntimeError) at the ``after``-th operation from now, ``times`` times.

    ``device-lost`` lasts: everything after it fails, too, until :func:`clear`.
    """
    device_library().emulated_fail(_code(error), after, times)


def fail_synchronize(error: str) -> None:
    """Raise a Unified Runtime error at the next synchronisation."""
    device_library().emulated_fail_synchronize(_code(error))


def fail_empty_cache(error: str) -> None:
    """Raise a Unified Runtime error when the cache is emptied next. Whether a real device does is not known."""
    device_library().emulated_fail_empty_cache(_code(error))


def fail_allocation(after: int = 1) -> None:
    """Raise torch.OutOfMemoryError at the ``after``-th allocation from now, whatever is free."""
    device_library().emulated_fail_allocation(after)


def memory_info(mode: str, device: int = 0) -> None:
    """What mem_get_info does: honest, raises, stale (says what it says now), nonsense (more free than there is)."""
    if mode not in MEMORY_INFO:
        raise ValueError(f"expected one of {', '.join(MEMORY_INFO)}, and found {mode!r}")
    _ask("memory_mode", device, MEMORY_INFO.index(mode))


def other_process(size: int, device: int = 0) -> None:
    """Let another process hold ``size`` bytes of a device."""
    _ask("other_process", device, size)


def same_random_numbers(*, wanted: bool = True) -> None:
    """Draw the CPU's random numbers for the same seed. Real devices do not; for comparisons of everything else."""
    device_library().emulated_same_random_numbers(wanted)


def refuse_fallbacks() -> None:
    """Refuse the operators that torch-xpu-ops runs on the CPU (:mod:`emulator.coverage`)."""
    for name in sorted({listed.split(".")[0] for listed in coverage.FALLBACKS}):
        device_library().emulated_refuse(f"aten::{name}".encode())


def lack(names: Sequence[str]) -> None:
    """Lack operators, such as ``_upsample_bicubic2d_aa``, as torch-xpu-ops does: NotImplementedError.

    With PYTORCH_ENABLE_XPU_FALLBACK the CPU computes them. It is read when torch is loaded, and only then
    (``TORCH_LIBRARY_IMPL(_, XPU, m)`` in torch-xpu-ops' XPUFallback.template).
    """
    if int(os.environ.get("PYTORCH_ENABLE_XPU_FALLBACK") or 0) == 0:
        for name in names:
            device_library().emulated_refuse(f"aten::{name}".encode())


def clear() -> None:
    """End every fault, give the device back if it was lost, refuse nothing."""
    library = device_library()
    library.emulated_clear_faults()
    library.emulated_refuse_nothing()
    for index in range(library.emulated_device_count()):
        other_process(0, index)
        memory_info("honest", index)


@contextmanager
def cleared() -> Iterator[None]:
    """A block after which no fault is left."""
    try:
        yield
    finally:
        clear()


def apply(options: EmulatorOptions) -> None:
    """Set what the options of a run ask for, when the device is loaded."""
    same_random_numbers(wanted=options.same_random_numbers)
    if options.refuse_fallbacks:
        refuse_fallbacks()
    lack(options.missing)
    if options.fault is not None:
        fail(*options.fault)
    if options.other_process or options.memory_info != "honest":
        for index in range(device_library().emulated_device_count()):
            other_process(options.other_process, index)
            memory_info(options.memory_info, index)
