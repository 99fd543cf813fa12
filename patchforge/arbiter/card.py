"""The card's memory, as the kernel counts it, or else as ComfyUI sees it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from patchforge import bounded
from patchforge.arbiter.services import SharedComfyUI
from patchforge.errors import Damaged, NotChecked, PatchforgeError

CGROUP = "sys/fs/cgroup"
_MOST = 1 << 16
_REGION = re.compile(r"^(\S+) ([0-9]{1,18})$", re.MULTILINE)
_VRAM = re.compile(r"drm/[0-9a-f:.]+/(vram\d*|stolen|local\d*)")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes."""

    total: int
    free: int


MemoryLook = Callable[[], Memory | None]  #: None where the memory cannot be seen


def kernel(root: Path, region: str = "") -> MemoryLook | None:
    """The dmem controller's count (Linux 6.14; Documentation/admin-guide/cgroup-v2.rst); None where there is none.

    ``region``: such as ``drm/0000:03:00.0/vram0``; the largest, where none is named. What is in use is what the groups
    below the root use: each counts those below it.
    """
    top = root / CGROUP
    sizes = regions(root)
    if region and region not in sizes:
        known = ", ".join(sorted(sizes)) or "a kernel that counts cards' memory (dmem, Linux 6.14)"
        raise PatchforgeError(f"there is no memory {region}", expected=known, do="leave --memory out, or correct it")
    if not sizes:
        return None
    name = region or max(sizes, key=lambda known: (sizes[known], known))

    def look() -> Memory | None:
        try:
            used = sum(_values(group / "dmem.current").get(name, 0) for group in _groups(top))
        except OSError:
            return None
        return Memory(sizes[name], max(sizes[name] - used, 0))

    return look


def regions(root: Path) -> dict[str, int]:
    """Bytes of each card's memory that the kernel's dmem controller counts; none where the kernel has no such thing."""
    return {name: size for name, size in _values(root / CGROUP / "dmem.capacity").items() if _VRAM.fullmatch(name)}


def of_comfyui(service: SharedComfyUI) -> MemoryLook:
    """What ComfyUI tells of its first device: what is free for everybody, without what torch keeps for itself."""

    def look() -> Memory | None:
        seen = service.memory()
        return Memory(seen.total, max(seen.free - seen.kept, 0)) if seen else None

    return look


def set_limit(root: Path, unit: str, size: int, region: str = "", *, dry: bool = False) -> tuple[str, str]:
    """Limits a service to so many bytes of the card (``dmem.max``); the file and what is written to it.

    NotChecked where the kernel or the service's group has no such limit, PatchforgeError for what is not a name of one.
    """
    sizes = regions(root)
    if not sizes:
        raise NotChecked(
            "this kernel has no limit for a card's memory",
            expected="the dmem controller of Linux 6.14 or later, and a driver that uses it (xe, amdgpu)",
            found=f"no dmem.capacity in {root / CGROUP}",
            do="let patchforge arbiter share the card instead",
        )
    if not re.fullmatch(r"[A-Za-z0-9:_.@\\-]+\.(service|scope|slice)", unit):
        raise PatchforgeError(f"{unit!r} is not a unit", expected="such as ollama.service", do="see systemctl status")
    name = region or max(sizes, key=lambda known: (sizes[known], known))
    if name not in sizes:
        raise PatchforgeError(f"there is no memory {name}", expected=", ".join(sorted(sizes)), do="name one of these")
    groups = [group for group in _groups(root / CGROUP, 3) if group.name == unit]
    if not groups:
        raise PatchforgeError(f"{unit} does not run", expected="a unit that runs", do="start it first")
    file = groups[0] / "dmem.max"
    if not file.exists():
        raise NotChecked(
            f"{unit} has no limit for a card's memory",
            expected=f"the controller in {groups[0].parent}/cgroup.subtree_control",
            do=f"as root: echo +dmem > {groups[0].parent}/cgroup.subtree_control",
        )
    text = f"{name} {size}\n"
    if not dry:
        file.write_text(text)
    return str(file), text.strip()


def _groups(top: Path, depth: int = 1) -> Iterator[Path]:
    for entry in sorted(top.iterdir()) if top.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            yield entry
            if depth > 1:
                yield from _groups(entry, depth - 1)


def _values(file: Path) -> dict[str, int]:
    try:
        text = bounded.file(file, _MOST).decode("ascii", "replace")
    except (FileNotFoundError, NotADirectoryError, Damaged):
        return {}
    return {name: int(size) for name, size in _REGION.findall(text)}
