"""Intel GPUs as the kernel tells of them, without root and without torch.

``root`` is ``/``, or a tree of its shape. Sensors are read when somebody asks (:meth:`Reader.collect`); what is told by
process, and what needs two readings, comes from :meth:`Reader.sample`, which is to be called every few seconds: an
energy counter of 32 bits begins anew every 17 seconds at 250 W. A file that is not there, or goes while it is read, is
a value less. Sources: the kernel's ABI documents sysfs-driver-intel-xe-hwmon and sysfs-driver-intel-i915-hwmon,
Documentation/gpu/drm-usage-stats, xe's xe_gt_freq.c and xe_gt_throttle.c, i915's intel_gt_sysfs_pm.c, and
Documentation/admin-guide/cgroup-v2 (dmem).
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from patchforge import bounded
from patchforge.bench.energy import MOST_WATTS, Meter, step
from patchforge.bench.memory import clients, vram_of
from patchforge.operate.metrics import Sample

_INTEL = "0x8086"
_DRIVERS = ("xe", "i915")
_CARD = re.compile(r"card\d+")
_ADDRESS = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_NUMBER, _COUNT = re.compile(r"-?[0-9]{1,20}"), re.compile(r"[0-9]{1,19}")
_REGION = re.compile(r"drm/([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])/vram\d+ (\d{1,19}|max)")
_UNIT = re.compile(r".+\.(service|scope|slice)")
_DEPTH = 6  #: of nested control groups
_MOST_UNITS = 2000
_MICRO, _MILLI, _MEGA = 1_000_000, 1000, 1e6
#: hwmon's names of a sensor, by channel, where the driver gives no label: xe's, which i915's first one shares.
_POWER_PLACES = {1: "card", 2: "package"}
_TEMPERATURE_PLACES = {1: "gpu", 2: "gpu", 3: "memory"}
_LABELS = {"pkg": "gpu", "vram": "memory", "mctrl": "memory_controller", "pcie": "pcie", "card": "card"}
#: Engines as xe (cycles) and i915 (nanoseconds) name them in fdinfo → as Intel's collector calls what they do.
_TASKS = {
    "rcs": "render-all",
    "ccs": "compute-all",
    "bcs": "copy-all",
    "vcs": "media-all",
    "vecs": "media-enhance-all",
    "render": "render-all",
    "compute": "compute-all",
    "copy": "copy-all",
    "video": "media-all",
    "video-enhance": "media-enhance-all",
}
_I915_LIMITS = {"max": "rps_max_freq_mhz", "min": "rps_min_freq_mhz"}
_XE_LIMITS = {"max": "max_freq", "min": "min_freq"}


_COUNTER = Meter("energy", lambda: None, 1 / _MICRO)


@dataclass(frozen=True, slots=True)
class DrmCard:
    """One GPU. ``path`` is its PCI device's folder, ``drm`` that of its card there."""

    address: str
    driver: str
    device: str
    path: Path
    drm: Path


@dataclass(slots=True)
class _Energy:
    """Joules of one counter: as it tells them, and what was lost when it began anew."""

    raw: float
    when: float
    lost: float = 0.0
    marks: list[tuple[float, float]] = field(default_factory=list)  #: time and joules, when sampled

    @property
    def joules(self) -> float:
        return self.lost + self.raw

    def read(self, raw: float, when: float, most: Callable[[], float]) -> None:
        """Takes the next reading; ``most``: watts above which a step is no wrap-around.

        A counter that was reset begins at what it tells, as Prometheus expects it.
        """
        if raw < self.raw:
            grown = step(_COUNTER, self.raw, raw)
            if grown <= most() * max(when - self.when, 0.001):
                self.lost += self.raw + grown - raw
            else:
                self.lost = 0.0
                self.marks.clear()
        self.raw, self.when = raw, when

    def mark(self, when: float) -> None:
        self.marks = [*self.marks[-1:], (when, self.joules)]

    def watts(self) -> float | None:
        """Between the last two samples; None without two of them."""
        if len(self.marks) < 2 or self.marks[1][0] <= self.marks[0][0]:
            return None
        (begin, before), (end, after) = self.marks
        return (after - before) / (end - begin)


@dataclass(slots=True)
class _Client:
    """What a process's client of a GPU has had of its engines: by engine, busy and (xe) all cycles."""

    busy: dict[str, int]
    total: dict[str, int]
    capacity: dict[str, int]


@dataclass(slots=True)
class _HardwareSeen:
    """What the last sample found."""

    when: float = 0.0
    clients: dict[tuple[str, str], _Client] = field(default_factory=dict)
    utilization: dict[tuple[str, str], float] = field(default_factory=dict)  #: by card and task
    vram: dict[tuple[str, str], int] = field(default_factory=dict)  #: by unit and card, of the processes seen
    services: dict[tuple[str, str], int] = field(default_factory=dict)  #: the same, as control groups count it
    limits: dict[tuple[str, str], int] = field(default_factory=dict)


class Reader:
    """The GPUs of a machine. Both methods may be called from any thread."""

    def __init__(
        self, root: Path = Path("/"), *, stale: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``stale``: seconds after which a sample is no more told."""
        self._sys, self._proc = root / "sys", root / "proc"
        self._stale, self._clock = stale, clock
        self._lock = threading.Lock()
        self._energy: dict[tuple[str, str], _Energy] = {}
        self._resets: dict[str, set[str]] = {}
        self._seen = _HardwareSeen()

    # --- Every few seconds

    def sample(self) -> None:
        """Reads what is told by process, and marks energy for the power that is told next."""
        cards = list(self._cards())
        seen = self._processes(cards)
        with self._lock:
            self._energies(cards)
            for energy in self._energy.values():
                energy.mark(seen.when)
            self._note_resets(cards)
            self._seen = seen

    def _processes(self, cards: list[DrmCard]) -> _HardwareSeen:
        before, now = self._seen, self._clock()
        seen = _HardwareSeen(now)
        for folder in self._units():
            for address, size in _regions(folder / "dmem.current").items():
                seen.services[folder.name, address] = seen.services.get((folder.name, address), 0) + size
            for address, limit in _regions(folder / "dmem.max").items():
                seen.limits[folder.name, address] = limit
        drivers = {card.address: card.driver for card in cards}
        sizes: dict[tuple[str, str], tuple[str, int]] = {}
        for pid in self._pids():
            unit = ""
            for address, client, lines in clients(pid, self._proc):
                if address not in drivers or (address, client) in seen.clients:
                    continue
                unit = unit or self._unit_of(pid)
                seen.clients[address, client] = _engines(lines)
                if (held := vram_of(lines)) is not None:
                    sizes[address, client] = unit, held
        for (address, _), (unit, size) in sizes.items():
            seen.vram[unit, address] = seen.vram.get((unit, address), 0) + size
        if before.when and now > before.when:
            seen.utilization = _utilization(before, seen, drivers)
        return seen

    def _pids(self) -> Iterator[int]:
        with suppress(OSError):
            for entry in os.scandir(self._proc):
                if entry.name.isdigit():
                    yield int(entry.name)

    def _unit_of(self, pid: int) -> str:
        """The innermost systemd unit that a process is in; its user's session scope, or "" for none."""
        path = bounded.head(self._proc / str(pid) / "cgroup", 1 << 12).strip().rpartition("::")[2]
        return next((part for part in reversed(path.split("/")) if _UNIT.fullmatch(part)), "")

    def _units(self) -> Iterator[Path]:
        """Control groups with GPU memory that are units and no slices."""
        top = self._sys / "fs" / "cgroup"
        left = _MOST_UNITS
        todo = [(top, 0)]
        while todo and left:
            folder, depth = todo.pop()
            with suppress(OSError):
                for entry in os.scandir(folder):
                    if entry.is_dir(follow_symlinks=False) and depth < _DEPTH:
                        path = folder / entry.name
                        if bounded.head(path / "dmem.current", 1 << 12).strip():
                            left -= 1
                            todo.append((path, depth + 1))
                            if entry.name.endswith((".service", ".scope")):
                                yield path

    def _note_resets(self, cards: list[DrmCard]) -> None:
        """A dump of xe's is there for five minutes after an engine was reset (Documentation/gpu/xe/xe_devcoredump)."""
        paths = {card.path.resolve(): card.address for card in cards}
        for address in paths.values():
            self._resets.setdefault(address, set())
        with suppress(OSError):
            for dump in (self._sys / "class" / "devcoredump").iterdir():
                address = paths.get((dump / "failing_device").resolve(), "")
                if address:
                    self._resets[address].add(dump.name)

    # --- When somebody asks

    def collect(self) -> Iterator[Sample]:
        """Everything that can be told now."""
        cards = list(self._cards())
        with self._lock:
            self._energies(cards)
            seen = self._seen if self._clock() - self._seen.when <= self._stale else _HardwareSeen()
            energies = {
                key: (energy.joules, energy.watts() if seen.when else None) for key, energy in self._energy.items()
            }
            resets = {address: len(dumps) for address, dumps in self._resets.items()}
        for card in cards:
            yield Sample("hw_gpu_info", 1, (card.address, card.driver, card.device))
            yield from self._sensors(card)
            yield from _frequencies(card)
            if card.driver == "xe":
                yield Sample("hw_errors_total", resets.get(card.address, 0), (card.address, "engine_reset"))
        for (address, place), (joules, watts) in sorted(energies.items()):
            yield Sample("hw_energy_joules_total", joules, (address, place))
            if watts is not None:
                yield Sample("hw_power_watts", watts, (address, place))
        for (address, task), share in sorted(seen.utilization.items()):
            yield Sample("hw_gpu_utilization_ratio", share, (address, task))
        yield from self._memory(cards, seen)

    def _cards(self) -> Iterator[DrmCard]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._sys / "class" / "drm"))
        except OSError:
            return
        for name in filter(_CARD.fullmatch, names):
            drm = self._sys / "class" / "drm" / name
            with suppress(OSError):
                path = (drm / "device").resolve(strict=True)
                driver = (path / "driver").resolve().name
                if _text(path / "vendor") == _INTEL and driver in _DRIVERS and _ADDRESS.fullmatch(path.name):
                    yield DrmCard(path.name, driver, _text(path / "device"), path, drm)

    def _energies(self, cards: list[DrmCard]) -> None:
        """Reads the counters. One that is not there is told no more."""
        now = self._clock()
        there = set()
        for card in cards:
            for folder in _hwmon(card):
                for channel, place in _POWER_PLACES.items():
                    raw = _number(folder / f"energy{channel}_input")
                    if raw is None:
                        continue
                    key = card.address, place
                    there.add(key)
                    if key in self._energy:
                        self._energy[key].read(raw / _MICRO, now, partial(_most_watts, folder / f"power{channel}_max"))
                    else:
                        self._energy[key] = _Energy(raw / _MICRO, now)
        for key in self._energy.keys() - there:
            del self._energy[key]

    def _sensors(self, card: DrmCard) -> Iterator[Sample]:
        for folder in _hwmon(card):
            for channel, place in _POWER_PLACES.items():
                if (limit := _number(folder / f"power{channel}_max")) is not None and limit > 0:
                    yield Sample("hw_power_limit_watts", limit / _MICRO, (card.address, place))
            for channel, usual in _TEMPERATURE_PLACES.items():
                if (degrees := _number(folder / f"temp{channel}_input", signed=True)) is not None:
                    label = _text(folder / f"temp{channel}_label")
                    place = _LABELS.get(label, usual)
                    yield Sample("hw_temperature_celsius", degrees / _MILLI, (card.address, place))
            for channel in range(1, 5):
                if (speed := _number(folder / f"fan{channel}_input")) is not None:
                    yield Sample("hw_fan_speed_rpm", speed, (card.address, f"fan{channel}"))
            for channel in (0, 1):
                if (volts := _number(folder / f"in{channel}_input")) is not None:
                    yield Sample("hw_voltage_volts", volts / _MILLI, (card.address, _POWER_PLACES.get(channel, "gpu")))

    def _memory(self, cards: list[DrmCard], seen: _HardwareSeen) -> Iterator[Sample]:
        """By card now, from the control groups at the top; by unit as it was sampled."""
        top = self._sys / "fs" / "cgroup"
        sizes = _regions(top / "dmem.capacity")
        used: dict[str, int] = {}
        for folder in _folders(top, "*") if sizes else ():
            for address, size in _regions(folder / "dmem.current").items():
                used[address] = used.get(address, 0) + size
        services = dict(seen.services)
        for card in cards:
            if card.address in sizes:
                yield Sample("hw_memory_size_bytes", sizes[card.address], (card.address, "device"))
            else:  # the driver does not count by cgroup: what the processes that may be looked at hold
                mine = {key: size for key, size in seen.vram.items() if key[1] == card.address}
                services |= mine
                if mine:
                    used[card.address] = sum(mine.values())
            if card.address in used:
                yield Sample("hw_memory_usage_bytes", used[card.address], (card.address, "device"))
        known = {card.address for card in cards}
        for name, by_unit in (
            ("patchforge_service_vram_bytes", services),
            ("patchforge_service_vram_limit_bytes", seen.limits),
        ):
            for (unit, address), size in sorted(by_unit.items()):
                if address in known:
                    yield Sample(name, size, (unit, address))


def _engines(lines: Mapping[str, str]) -> _Client:
    client = _Client({}, {}, {})
    for name, text in lines.items():
        number = _COUNT.match(text)
        if number is None:
            continue
        value = int(number[0])
        for prefix, part in (
            ("drm-engine-capacity-", client.capacity),
            ("drm-total-cycles-", client.total),
            ("drm-cycles-", client.busy),
            ("drm-engine-", client.busy),
        ):
            if name.startswith(prefix):
                if (engine := name.removeprefix(prefix)) in _TASKS:
                    part[engine] = value
                break
    return client


def _utilization(before: _HardwareSeen, now: _HardwareSeen, drivers: Mapping[str, str]) -> dict[tuple[str, str], float]:
    """Shares of the time between two samples, by card and task; of clients that are in both."""
    nanoseconds = (now.when - before.when) * 1e9
    shares: dict[tuple[str, str], float] = {}
    for key, client in now.clients.items():
        earlier = before.clients.get(key)
        if earlier is None:
            continue
        for engine, busy in client.busy.items():
            grown = busy - earlier.busy.get(engine, busy)
            whole: float = nanoseconds
            if engine in client.total:  # xe counts in cycles of the GPU's clock
                whole = client.total[engine] - earlier.total.get(engine, client.total[engine])
            whole *= max(client.capacity.get(engine, 1), 1)
            share = grown / whole if whole > 0 and grown > 0 else 0.0
            place = key[0], _TASKS[engine]
            shares[place] = min(shares.get(place, 0.0) + share, 1.0)
    for address in drivers:
        if of_card := [share for (card, _), share in shares.items() if card == address]:
            shares[address, "all"] = max(of_card)
    return shares


def _frequencies(card: DrmCard) -> Iterator[Sample]:
    """xe: device/tile*/gt*/freq0, in MHz; i915: card/gt/gt*. The second GT of a tile is the media engines'."""
    if card.driver == "xe":
        folders = _folders(card.path, "tile[0-9]*/gt[0-9]*")
        parts = [(folder / "freq0", "act_freq", _XE_LIMITS, folder / "freq0" / "throttle") for folder in folders]
    else:
        folders = _folders(card.drm, "gt/gt[0-9]*")
        parts = [(folder, "rps_act_freq_mhz", _I915_LIMITS, folder) for folder in folders]
    for folder, now, limits, throttle in parts:
        own = folder.parent.name if card.driver == "xe" else folder.name
        labels = card.address, "gpu" if int(own.removeprefix("gt")) % 2 == 0 else "media"
        if (hertz := _number(folder / now)) is not None:
            yield Sample("hw_frequency_hertz", hertz * _MEGA, labels)
        for kind, file in limits.items():
            if (hertz := _number(folder / file)) is not None:
                yield Sample("hw_frequency_limit_hertz", hertz * _MEGA, (*labels, kind))
        prefix = "" if card.driver == "xe" else "throttle_"
        with suppress(OSError):
            names = sorted(entry.name for entry in os.scandir(throttle))
            for name in names:
                reason = (
                    "any" if name in ("status", "throttle_reason_status") else name.removeprefix(f"{prefix}reason_")
                )
                if reason == name or (value := _number(throttle / name)) is None:
                    continue
                yield Sample("hw_frequency_throttle_status", float(value != 0), (*labels, reason))


def _most_watts(limit: Path) -> float:
    """What no card takes for seconds: twice its sustained limit, where it tells one."""
    number = _number(limit)
    return 2 * number / _MICRO if number else MOST_WATTS


def _hwmon(card: DrmCard) -> list[Path]:
    return [folder for folder in _folders(card.path, "hwmon/hwmon*") if _text(folder / "name") in _DRIVERS]


def _folders(top: Path, pattern: str) -> list[Path]:
    """Sorted; those that were found until one went away."""
    folders: list[Path] = []
    with suppress(OSError):
        folders.extend(top.glob(pattern))
    return sorted(folders)


def _regions(file: Path) -> dict[str, int]:
    """Bytes of video memory by PCI address, as the files of the dmem controller tell them; ``max`` is none."""
    sizes: dict[str, int] = {}
    for line in bounded.head(file, 1 << 14).splitlines():
        known = _REGION.fullmatch(line.strip())
        if known and known[2] != "max":
            sizes[known[1]] = sizes.get(known[1], 0) + int(known[2])
    return sizes


def _number(file: Path, *, signed: bool = False) -> int | None:
    """What a file has that is of one number of at most 64 bits; None for anything else."""
    text = _text(file)
    if not _NUMBER.fullmatch(text) or not (0 <= (value := int(text)) < 1 << 64 or signed):
        return None
    return value


def _text(file: Path) -> str:
    return bounded.head(file, 256).strip()
