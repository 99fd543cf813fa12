"""What a machine is, for those who read figures of it: no names of users, hosts or serial numbers."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from patchforge import bounded
from patchforge.bench.model import Machine


def machine(devices: Iterable[Mapping[str, Any]], proc: Path = Path("/proc")) -> Machine:
    """This machine, with the GPUs that a server's state lists."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        cpu=_cpu(proc),
        cores=os.cpu_count() or 0,
        memory=_memory(proc),
        gpus=tuple(
            " ".join(filter(None, (str(device.get("name", ""))[:200], str(device.get("driver", ""))[:100])))
            for device in devices
        ),
    )


def available(root: Path = Path("/")) -> int:
    """Bytes of memory that programs can have now, also in a container or a service; 0 where the system does not say."""
    line = re.search(r"^MemAvailable:\s+(\d+) kB$", bounded.head(root / "proc/meminfo", 1 << 16), re.MULTILINE)
    return max(1, min(int(line[1]) << 10, *_allowed(root), 1 << 62)) if line else 0


def _allowed(root: Path) -> Iterator[int]:
    """What the control groups of this process, and those around them, still allow; see cgroup-v1 and -v2 of Linux."""
    top = root / "sys/fs/cgroup"
    for line in bounded.head(root / "proc/self/cgroup", 1 << 16).splitlines():
        _, controllers, path = line.split(":", 2)
        place, most, used = (
            (top / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
            if "memory" in controllers.split(",")
            else (top, "memory.max", "memory.current")
        )
        for group in (Path(path), *Path(path).parents):
            folder = place / group.relative_to("/")
            limit, taken = (bounded.head(folder / name, 64).strip() for name in (most, used))
            if limit.isdecimal() and taken.isdecimal():
                kept = re.search(
                    r"^(?:total_)?inactive_file (\d+)$", bounded.head(folder / "memory.stat"), re.MULTILINE
                )
                yield int(limit) - int(taken) + (int(kept[1]) if kept else 0)


def size(number: int) -> str:
    """Bytes for people: what is there is never 0.0 GB."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if number >= unit:
            return f"{number / unit:.1f} {name}"
    return f"{number} B"


def advice(*ways: str) -> str:
    """What to do, of ways of which some are ""."""
    return ", or ".join(way for way in ways if way)


def _cpu(proc: Path) -> str:
    line = re.search(r"^model name\s*: (.+)$", bounded.head(proc / "cpuinfo", 1 << 16), re.MULTILINE)
    return line[1].strip() if line else platform.processor() or platform.machine()


def _memory(proc: Path) -> int:
    """Bytes; 0 where the system does not say."""
    if line := re.search(r"^MemTotal:\s+(\d+) kB$", bounded.head(proc / "meminfo", 1 << 16), re.MULTILINE):
        return int(line[1]) << 10
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0
