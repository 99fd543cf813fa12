# SPDX-License-Identifier: GPL-3.0-or-later
"""The compiled device of this process: loaded once, asked by whoever needs it."""

from __future__ import annotations

import ctypes
from pathlib import Path

from emulator import VARIABLE

_loaded: list[ctypes.CDLL] = []
_COUNTED = (
    "device_count",
    "physical",
    "get_device",
    "set_device",
    "get_stream",
    "start",
    "synchronize",
    "empty_cache",
    "operations",
    "operations_of",
)
_INDEXED = {"memory_info": ctypes.c_void_p, "memory_stats": ctypes.c_void_p, "other_process": ctypes.c_int64}


def is_loaded() -> bool:
    """Whether torch in this process has the emulated XPU."""
    return bool(_loaded)


def device_library() -> ctypes.CDLL:
    """The loaded library; RuntimeError where this process has none."""
    if not _loaded:
        raise RuntimeError(f"this process has no emulated XPU: set {VARIABLE} before torch is imported")
    return _loaded[0]


def loaded(path: Path) -> ctypes.CDLL:
    """Loads the library into this process."""
    library = ctypes.CDLL(str(path))
    _declare(library)
    _loaded.append(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    size, index = ctypes.c_int64, ctypes.c_int64
    for name in _COUNTED:
        getattr(library, f"emulated_{name}").restype = size
    for name in ("physical", "set_device", "get_stream", "operations_of"):
        getattr(library, f"emulated_{name}").argtypes = [index]
    for name, kind in _INDEXED.items():
        function = getattr(library, f"emulated_{name}")
        function.restype, function.argtypes = size, [index, kind]
    library.emulated_error.restype = ctypes.c_char_p
    library.emulated_add_device.argtypes = [size, ctypes.c_int]
    library.emulated_set_stream.argtypes = [index, size]
    for name in ("reset_stats", "memory_mode"):
        getattr(library, f"emulated_{name}").restype = size
        getattr(library, f"emulated_{name}").argtypes = [index, ctypes.c_int]
    library.emulated_set_fraction.restype = size
    library.emulated_set_fraction.argtypes = [index, ctypes.c_double]
    library.emulated_get_fraction.restype = ctypes.c_double
    library.emulated_get_fraction.argtypes = [index]
    library.emulated_fail.argtypes = [ctypes.c_int, size, size]
    library.emulated_fail_allocation.argtypes = [size]
    library.emulated_refuse.argtypes = [ctypes.c_char_p]
