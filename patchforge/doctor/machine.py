"""Gathers what the files of a machine say. ``root`` is ``/``, or a file tree of its shape whose links are relative."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from getpass import getuser
from pathlib import Path

from patchforge import bounded, processes
from patchforge.doctor import windows
from patchforge.doctor.facts import AMD, NVIDIA, Gpu, MachineFacts, Node

_DISPLAY = "0x03"  #: PCI base class of display controllers
_LIBRARIES = ("libze_loader.so.1", "libze_intel_gpu.so.1", "libigc.so.2", "libigc.so.1")
_FOLDERS = (
    "run/opengl-driver/lib",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib",
    "usr/local/lib64",
)
_PACKAGE = re.compile(
    r"(lib)?(ze1|ze-intel-gpu1|level-zero|oneapi-level-zero|intel-level-zero-gpu|intel-level-zero"
    r"|intel-compute-runtime|intel-opencl-icd|intel-opencl|igc\d?|intel-igc-core(-2)?)"
)
_SECONDS = 20


def examine(root: Path, environment: Mapping[str, str]) -> MachineFacts:
    """Never fails: what cannot be read is left at its default."""
    if sys.platform == "win32":
        return windows.examine(environment, _user())
    bus = root / "sys/bus/pci/devices"
    memory = _memory(root)
    return MachineFacts(
        system=sys.platform,
        kernel=_text(root / "proc/sys/kernel/osrelease"),
        pci=bus.is_dir(),
        container=_container(root, environment),
        nixos=(root / "etc/NIXOS").exists(),
        dxg=(root / "dev/dxg").exists(),
        user=_user(),
        gpus=tuple(_gpus(root, bus)),
        render=tuple(_node(path) for path in sorted((root / "dev/dri").glob("renderD*"))),
        libraries=dict(_libraries(root, environment)),
        opencl=any("intel" in path.name for path in (root / "etc/OpenCL/vendors").glob("*.icd")),
        packages=dict(sorted({**_dpkg(root), **_rpm(root)}.items())),
        ram=memory.get("MemTotal", 0),
        available=memory.get("MemAvailable", 0),
        swap=memory.get("SwapTotal", 0),
    )


def _gpus(root: Path, bus: Path) -> Iterator[Gpu]:
    for folder in sorted(bus.iterdir()) if bus.is_dir() else ():
        if _text(folder / "class").startswith(_DISPLAY):
            vendor, device = _number(folder / "vendor"), _number(folder / "device")
            yield Gpu(
                address=folder.name,
                vendor=vendor,
                device=device,
                driver=(folder / "driver").resolve().name if (folder / "driver").exists() else "",
                nodes=tuple(sorted(path.name for path in (folder / "drm").glob("*") if path.name[-1].isdigit())),
                model=_model(root, folder, vendor, device),
                bar=_bar_2(_text(folder / "resource")),
            )


def _model(root: Path, folder: Path, vendor: int, device: int) -> str:
    """The marketing name: as NVIDIA's or AMD's driver says it, else from the list of PCI ids; "" without either."""
    if vendor == AMD and (name := _text(folder / "product_name")):
        return name
    if vendor == NVIDIA:
        information = _text(root / f"proc/driver/nvidia/gpus/{folder.name}/information")
        told = re.search(r"^Model:\s*(.+)$", information, re.MULTILINE)
        if told:
            return told[1].strip()
    for place in ("usr/share/hwdata/pci.ids", "usr/share/misc/pci.ids"):
        listed = re.search(
            rf"^{vendor:04x}  .*\n(?:[\t#].*\n)*?\t{device:04x}  (.+)$", _text(root / place), re.MULTILINE
        )
        if listed:
            return listed[1].strip()
    return ""


def _bar_2(resource: str) -> int:
    """The size of BAR 2 from sysfs' ``resource`` (a line each: first and last address, flags); 0 when it is not there.

    On Intel's discrete GPUs it is the window to local memory (LMEM_BAR in Linux' drivers/gpu/drm/xe/regs/xe_bars.h).
    """
    with suppress(IndexError, ValueError):
        first, last = (int(text, 16) for text in resource.splitlines()[2].split()[:2])
        return last - first + 1 if last > first else 0
    return 0


def _node(path: Path) -> Node:
    """Asks the kernel for access rather than reading the mode, so that access control lists count."""
    try:
        group = path.group()
    except (KeyError, OSError, ImportError, NotImplementedError):  # the last two without groups, as on Windows
        group = ""
    return Node(path.name, os.access(path, os.R_OK | os.W_OK), group)


def _libraries(root: Path, environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Each library at its first place. LD_LIBRARY_PATH is of this machine, so it counts for ``/`` alone."""
    own = environment.get("LD_LIBRARY_PATH", "").split(":") if root == Path("/") else []
    places = [*(Path(folder) for folder in own if folder), *(root / folder for folder in _FOLDERS)]
    for name in _LIBRARIES:
        library = next((folder / name for folder in places if (folder / name).exists()), None)
        if library:
            yield name, str(library.resolve())


def _container(root: Path, environment: Mapping[str, str]) -> bool:
    marks = (".dockerenv", "run/.containerenv")
    return any((root / mark).exists() for mark in marks) or (root == Path("/") and "container" in environment)


def _dpkg(root: Path) -> dict[str, str]:
    versions = {}
    for entry in _text(root / "var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in entry.splitlines() if not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed") and _PACKAGE.fullmatch(fields.get("Package", "")):
            versions[fields["Package"]] = fields.get("Version", "")
    return versions


def _rpm(root: Path) -> dict[str, str]:
    places = ("usr/lib/sysimage/rpm", "var/lib/rpm")
    if not shutil.which("rpm") or not any((root / place).is_dir() for place in places):
        return {}
    command = ["rpm", "--root", str(root.resolve()), "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n"]
    try:
        listed: str = processes.run(command, capture_output=True, text=True, timeout=_SECONDS).stdout
    except (OSError, processes.TimeoutExpired):
        return {}
    pairs = (line.partition(" ")[::2] for line in listed.splitlines())
    return {name: version for name, version in pairs if _PACKAGE.fullmatch(name)}


def _memory(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", _text(root / "proc/meminfo"), re.MULTILINE)
    return {name: int(kib) << 10 for name, kib in lines}


def _user() -> str:
    try:
        return getuser()
    except (KeyError, OSError, ImportError):
        return ""


def _number(path: Path) -> int:
    with suppress(ValueError):
        return int(_text(path), 16)
    return 0


def _text(path: Path) -> str:
    return bounded.head(path).strip()
