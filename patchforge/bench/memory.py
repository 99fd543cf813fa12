"""Memory that a process holds, as the kernel and drivers tell it: RAM, and VRAM by process.

Linux tells a process's GPU memory in /proc/PID/fdinfo, per open file of the device; files of one client are one
(Documentation/gpu/drm-usage-stats). NVIDIA's driver tells it by NVML. What is not told is None.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from patchforge import bounded

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_REGION = re.compile(r"drm-total-(?:vram\d*|local\d*)$")  # xe says vram, i915 local
_SIZE = re.compile(r"(\d{1,19}) ?([KMG]iB)?$")

RAM, VRAM = "RAM of the process", "VRAM of the process"


def gauges(pid: int, kind: str, proc: Path = Path("/proc")) -> Mapping[str, Callable[[], int | None]]:
    """What can be told of a process on a device of a kind, by name: functions that give bytes, or None."""
    told: dict[str, Callable[[], int | None]] = {RAM: lambda: resident(pid, proc)}
    if kind == "xpu":
        told[VRAM] = lambda: vram(pid, proc)
    elif kind == "cuda":
        told[VRAM] = lambda: _nvml(pid)
    return told


def resident(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes of RAM that a process holds now; None where the system does not say."""
    line = re.search(r"^VmRSS:\s+(\d+) kB$", bounded.head(proc / str(pid) / "status", 1 << 16), re.MULTILINE)
    return int(line[1]) << 10 if line else None


def vram(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes of memory of its own that GPUs hold for a process; None where no driver says it."""
    sizes: dict[tuple[str, str], int] = {}
    for address, client, lines in clients(pid, proc):
        if (size := vram_of(lines)) is not None:
            sizes[address, client] = size
    return sum(sizes.values()) if sizes else None


def vram_of(lines: Mapping[str, str]) -> int | None:
    """Bytes of a GPU's own memory that one client holds; None where the driver does not say it."""
    sizes = [_bytes(text) for name, text in lines.items() if _REGION.fullmatch(name)]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def addresses(pid: int, proc: Path = Path("/proc")) -> frozenset[str]:
    """The PCI addresses of the GPUs that a process has open."""
    return frozenset(address for address, _, _ in clients(pid, proc) if address)


def clients(pid: int, proc: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """PCI address, client and what is told, of each open file of a GPU."""
    folder = proc / str(pid) / "fdinfo"
    try:
        files = sorted(folder.iterdir())
    except OSError:  # it has ended, or is another user's
        return
    for file in files:
        if not _may_be_gpu(folder.parent / "fd" / file.name):
            continue
        lines = {
            name.strip(): text.strip()
            for name, _, text in (line.partition(":") for line in bounded.head(file, 1 << 16).splitlines())
            if name.startswith("drm-")
        }
        if lines:
            yield lines.get("drm-pdev", ""), lines.get("drm-client-id", file.name), lines


def _may_be_gpu(link: Path) -> bool:
    """Whether an open file leads to a GPU, as far as that can be told; to ask costs less than to read about it."""
    try:
        return os.readlink(link).startswith("/dev/dri/")  # noqa: PTH115 - thousands of them
    except OSError:
        return True


def _bytes(text: str) -> int | None:
    size = _SIZE.match(text)
    return int(size[1]) * _UNITS[size[2] or ""] if size else None


def _nvml(pid: int) -> int | None:
    try:
        import pynvml  # noqa: PLC0415 - the extra ``benchmark``

        pynvml.nvmlInit()
        sizes = [
            process.usedGpuMemory
            for index in range(pynvml.nvmlDeviceGetCount())
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(pynvml.nvmlDeviceGetHandleByIndex(index))
            if process.pid == pid
        ]
    except Exception:  # noqa: BLE001 - no package, no driver, no GPU
        return None
    known = [int(size) for size in sizes if size is not None]
    return sum(known) if known else None
