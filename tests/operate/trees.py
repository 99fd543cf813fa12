"""A /sys and a /proc with Intel GPUs, as the kernel lays them out, in which time passes as it is told to.

Sources: Documentation/ABI/testing/sysfs-driver-intel-xe-hwmon, sysfs-driver-intel-i915-hwmon, xe_gt_freq.c,
xe_gt_throttle.c, intel_gt_sysfs_pm.c, Documentation/gpu/drm-usage-stats.rst, Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
from pathlib import Path

A770, B580, LUNAR_LAKE = "0000:03:00.0", "0000:0b:00.0", "0000:00:02.0"
MICRO = 1_000_000
GIB = 1 << 30
REASONS = ("pl1", "pl2", "pl4", "thermal", "prochot", "ratl", "vr_thermalert", "vr_tdc")
COMFYUI, OLLAMA = "comfyui-xpu.service", "ollama.service"


def put(path: Path, text: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")
    return path


class Machine:
    """``now`` is in seconds; ``counters`` are energy files with watts, where they begin anew (µJ), and their begin."""

    def __init__(self, top: Path) -> None:
        self.root, self.now = top, 0.0
        self.counters: list[tuple[Path, float, int, float]] = []
        self.cgroup = top / "sys/fs/cgroup"
        self.cgroup.mkdir(parents=True)
        (top / "proc").mkdir()

    # --- GPUs

    def a770(self, watts: float = 150.0, *, wrap: int = 1 << 64, begin: float = 5e9) -> Path:
        """By i915: one energy counter, GT files beside the card."""
        device = self._device(A770, "i915", "0x56a0")
        hwmon = device / "hwmon/hwmon3"
        put(hwmon / "name", "i915")
        self.counter(hwmon / "energy1_input", watts, wrap, begin)
        put(hwmon / "power1_max", 190 * MICRO)
        put(hwmon / "in0_input", 940)
        put(hwmon / "fan1_input", 1210)
        put(hwmon / "temp1_input", 61000)
        gt = next((device / "drm").glob("card*")) / "gt/gt0"
        for name, value in {"rps_act": 2100, "rps_cur": 2100, "rps_max": 2400, "rps_min": 300, "rps_RP0": 2400}.items():
            put(gt / f"{name}_freq_mhz", value)
        put(gt / "throttle_reason_status", 1)
        for name in REASONS:
            put(gt / f"throttle_reason_{name}", int(name == "thermal"))
        return device

    def b580(self, card: float = 140.0, package: float = 110.0, *, wrap: int = 1 << 64, begin: float = 7e9) -> Path:
        """By xe: counters of card and package, labels, a media GT, memory that cgroups count."""
        device = self._device(B580, "xe", "0xe20b")
        hwmon = device / "hwmon/hwmon5"
        put(hwmon / "name", "xe")
        self.counter(hwmon / "energy1_input", card, wrap, begin)
        self.counter(hwmon / "energy2_input", package, wrap, begin)
        for name, value in {"power1_max": 190, "power1_crit": 380, "power1_cap": 228, "power2_max": 160}.items():
            put(hwmon / name, value * MICRO)
        for name, text in {"energy1": "card", "energy2": "pkg", "temp2": "pkg", "temp3": "vram"}.items():
            put(hwmon / f"{name}_label", text)
        put(hwmon / "temp2_input", 58000)
        put(hwmon / "temp3_input", 72000)
        for fan in (1, 2, 3):
            put(hwmon / f"fan{fan}_input", 900 + fan)
        put(hwmon / "in1_input", 865)
        self._xe_gt(device, 0, act=2850, most=2850)
        self._xe_gt(device, 1, act=1450, most=1500)
        put(self.cgroup / "dmem.capacity", f"drm/{B580}/vram0 {12 * GIB}")
        return device

    def lunar_lake(self) -> Path:
        """Integrated, by xe: no hwmon, no memory of its own."""
        device = self._device(LUNAR_LAKE, "xe", "0x64a0")
        self._xe_gt(device, 0, act=1950, most=2050)
        self._xe_gt(device, 1, act=0, most=1500)
        return device

    def _device(self, address: str, driver: str, number: str) -> Path:
        device = self.root / "sys/devices/pci0000:00" / address
        put(device / "vendor", "0x8086")
        put(device / "device", number)
        put(device / "class", "0x030000")
        drivers = self.root / "sys/bus/pci/drivers" / driver
        drivers.mkdir(parents=True, exist_ok=True)
        _link(device / "driver", drivers)
        count = len(list((self.root / "sys/class/drm").glob("card?")))
        card = device / "drm" / f"card{count}"
        card.mkdir(parents=True)
        _link(card / "device", device)
        _link(self.root / "sys/class/drm" / card.name, card)
        _link(self.root / "sys/class/drm" / f"{card.name}-DP-1", card)  # a connector
        return device

    def _xe_gt(self, device: Path, number: int, act: int, most: int) -> None:
        freq = device / f"tile0/gt{number}/freq0"
        for name, value in {
            "act": act,
            "cur": act,
            "min": 300,
            "max": most,
            "rp0": most,
            "rpe": 400,
            "rpn": 300,
        }.items():
            put(freq / f"{name}_freq", value)
        put(freq / "throttle/status", 0)
        for name in REASONS:
            put(freq / f"throttle/reason_{name}", 0)

    def reset(self, device: Path, number: int = 1) -> None:
        """An engine hung, and xe has left a dump."""
        dump = self.root / f"sys/class/devcoredump/devcd{number}"
        dump.mkdir(parents=True)
        _link(dump / "failing_device", device)
        put(dump / "data", "a dump")

    # --- Time

    def counter(self, file: Path, watts: float, wrap: int, begin: float) -> None:
        self.counters.append((file, watts, wrap, begin))
        put(file, int(begin) % wrap)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for file, watts, wrap, begin in self.counters:
            if file.exists():
                put(file, int(begin + watts * self.now * MICRO) % wrap)

    # --- Processes

    def process(self, pid: int, unit: str, *files: str, name: str = "renderD128") -> None:
        """A process of a unit with open files of a GPU, by what fdinfo says of each, and some of no GPU."""
        folder = self.root / f"proc/{pid}"
        put(folder / "cgroup", f"0::/system.slice/{unit}")
        for number, text in enumerate(("", "pos:\t0\nflags:\t02", *files)):
            put(folder / f"fdinfo/{number}", text or "pos:\t0")
            (folder / "fd").mkdir(exist_ok=True)
            link = folder / f"fd/{number}"
            link.unlink(missing_ok=True)
            link.symlink_to(f"/dev/dri/{name}" if number > 1 else "/dev/null")

    def held(self, unit: str, address: str, size: int, limit: str = "max") -> None:
        """GPU memory that a unit holds, as cgroups count it."""
        put(self.cgroup / "system.slice" / unit / "dmem.current", f"drm/{address}/vram0 {size}")
        put(self.cgroup / "system.slice" / unit / "dmem.max", f"drm/{address}/vram0 {limit}")
        files = (self.cgroup / "system.slice").glob("*.service/dmem.current")
        total = sum(int(file.read_text().split()[1]) for file in files if address in file.read_text())
        put(self.cgroup / "system.slice/dmem.current", f"drm/{address}/vram0 {total}")


def xe(address: str, client: int, busy: int, total: int, *, engine: str = "ccs", vram_mib: int = 100) -> str:
    """What xe says of an open file."""
    return (
        f"drm-driver:\txe\ndrm-client-id:\t{client}\ndrm-pdev:\t{address}\n"
        f"drm-total-vram0:\t{vram_mib} MiB\ndrm-resident-vram0:\t{vram_mib} MiB\ndrm-total-gtt:\t8 MiB\n"
        f"drm-cycles-{engine}:\t{busy}\ndrm-total-cycles-{engine}:\t{total}\ndrm-engine-capacity-{engine}:\t1"
    )


def i915(address: str, client: int, busy_ns: int, engine: str = "compute", vram_kib: int = 1024) -> str:
    """What i915 says of an open file."""
    return (
        f"drm-driver:\ti915\ndrm-client-id:\t{client}\ndrm-pdev:\t{address}\n"
        f"drm-total-local0:\t{vram_kib} KiB\ndrm-engine-{engine}:\t{busy_ns} ns\ndrm-engine-render:\t0 ns\n"
        f"drm-engine-capacity-{engine}:\t1"
    )


def _link(place: Path, to: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(to, place.parent))
