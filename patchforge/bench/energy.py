"""Energy from hardware counters: Intel GPUs by hwmon (xe, i915), NVIDIA's by NVML, the CPU by RAPL.

A counter is read while something runs, often enough that it cannot wrap around twice unseen, and its steps are added
up. Watts are never taken from one reading, nor from two sources. What has no counter, or one that cannot be read, is
not measured. Sources: the kernel's ABI documents sysfs-driver-intel-xe-hwmon and sysfs-driver-intel-i915-hwmon
(``energy1_input`` is the card, ``energy2_input`` of xe the package, in microjoules), Documentation/power/powercap, and
NVML's nvmlDeviceGetTotalEnergyConsumption (millijoules).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from patchforge import bounded
from patchforge.bench.model import EnergyUse, MemoryUse

_EVERY = 0.05  # seconds between readings
_HWMON = {"xe": ("energy1_input", "card"), "i915": ("energy1_input", "card")}
_XE_PACKAGE = "energy2_input"  # where a card has no counter of the whole
#: What Intel's drivers keep: 64 bits; some that came before kept the 32 of the register.
_WRAPS = (1 << 32, 1 << 64)
MOST_WATTS = 3000.0  #: a step of more than that is no wrap-around: the counter was reset, as by a suspend
_LEAST_JOULES = 5.0  # ... unless it is that small
_NUMBER = re.compile(r"\d{1,20}")


@dataclass(frozen=True, slots=True)
class Meter:
    """One counter: what it is of, and what gives its joules so far; None where it cannot be read now.

    ``wrap``: at how many joules it begins anew; 0 where that is to be told from the step.
    """

    name: str
    joules: Callable[[], float | None]
    unit: float  #: joules of its smallest step
    wrap: float = 0.0


def meters(kind: str, sys: Path = Path("/sys"), pci: frozenset[str] = frozenset()) -> list[Meter]:
    """The counters of this machine that can be read: the CPU's, and those of GPUs of a kind (``xpu``, ``cuda``).

    Of several GPUs those at the PCI addresses; all where none is known.
    """
    counters = list(_intel(sys, pci) if kind == "xpu" else _nvml(pci) if kind == "cuda" else ())
    return [*counters, *_rapl(sys)]


def _intel(sys: Path, pci: frozenset[str]) -> Iterator[Meter]:
    """Intel GPUs: one counter for each card, that of the card before that of its package."""
    for folder in sorted((sys / "class" / "hwmon").glob("hwmon*")):
        driver = bounded.head(folder / "name", 100).strip()
        if driver not in _HWMON:
            continue
        address = _address(folder)
        if pci and address not in pci:
            continue
        for file, part in (_HWMON[driver], (_XE_PACKAGE, "package")):
            if _number(folder / file) is not None:
                yield Meter(f"{driver} {address or folder.name} {part}", _reader(folder / file), 1e-6)
                break


def _rapl(sys: Path) -> Iterator[Meter]:
    """The CPU's packages; of these the domains below are parts, so they are not added."""
    for folder in sorted((sys / "class" / "powercap").glob("*-rapl:*")):
        if folder.name.count(":") != 1 or not bounded.head(folder / "name", 100).startswith("package"):
            continue
        if _number(folder / "energy_uj") is None:  # for root only since CVE-2020-8694
            continue
        most = _number(folder / "max_energy_range_uj") or 0
        yield Meter(
            f"rapl {bounded.head(folder / 'name', 100).strip()}", _reader(folder / "energy_uj"), 1e-6, most * 1e-6
        )


def _nvml(pci: frozenset[str]) -> Iterator[Meter]:
    """NVIDIA's GPUs, where NVML is there and the GPU counts (since Volta)."""
    try:
        import pynvml  # noqa: PLC0415 - the extra ``benchmark``

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception:  # noqa: BLE001 - no package, no driver, no GPU
        return
    for handle in handles:

        def read(handle: object = handle) -> float | None:
            with suppress(pynvml.NVMLError):
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * 1e-3
            return None

        bus = pynvml.nvmlDeviceGetPciInfo(handle).busId
        domain, _, place = (bus.decode() if isinstance(bus, bytes) else str(bus)).lower().partition(":")
        address = f"{domain[-4:]}:{place}"
        if read() is not None and (not pci or address in pci):
            yield Meter(f"nvml {address} card", read, 1e-3)


def _address(folder: Path) -> str:
    """The PCI address of a hwmon folder's device, such as 0000:03:00.0; "" where it is none."""
    with suppress(OSError):
        name = (folder / "device").resolve().name
        if re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", name):
            return name
    return ""


def _number(file: Path) -> int | None:
    number = _NUMBER.match(bounded.head(file, 100))
    return int(number[0]) if number else None


def _reader(file: Path) -> Callable[[], float | None]:
    def read() -> float | None:
        number = _number(file)
        return None if number is None else number * 1e-6

    return read


class MeterReading:
    """Joules of some meters, and peaks of gauges (bytes), while the block runs.

    They are read from a thread of its own, and at the beginning and the end.
    A meter that cannot be read once, or that was reset, is given up: half of a time is no energy of it. The block may
    be entered again; joules and seconds are summed.
    """

    def __init__(
        self,
        meters: Sequence[Meter],
        gauges: Mapping[str, Callable[[], int | None]] | None = None,
        *,
        every: float = _EVERY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._meters, self._gauges, self._every, self._clock = list(meters), dict(gauges or {}), every, clock
        self._peaks: dict[str, int] = {}
        self.runs = 0
        self._last: dict[str, tuple[float, float]] = {}
        self._joules: dict[str, float] = {}
        self._lost: set[str] = set()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._begin = self.seconds = 0.0

    def __enter__(self) -> Self:
        self._last.clear()
        self.look()
        self._begin = self._clock()
        if (self._meters or self._gauges) and self._every:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
        self.look()
        self.seconds += self._clock() - self._begin
        self.runs += 1

    def look(self) -> None:
        """Reads every meter and gauge once; adds the steps, and keeps the peaks."""
        for name, read in self._gauges.items():
            if (size := read()) is not None:
                self._peaks[name] = max(size, self._peaks.get(name, 0))
        for meter in self._meters:
            when, now = self._clock(), meter.joules()
            before = self._last.get(meter.name)
            if now is None:
                self._lost.add(meter.name)
                continue
            self._last[meter.name] = when, now
            if before is None:
                continue
            joules = step(meter, before[1], now)
            if joules > MOST_WATTS * (when - before[0]) + _LEAST_JOULES:
                self._lost.add(meter.name)
            self._joules[meter.name] = self._joules.get(meter.name, 0.0) + joules

    def found(self) -> tuple[EnergyUse, ...]:
        """What every meter counted; of a counter that did not move nothing is said."""
        return tuple(
            EnergyUse(meter.name, self._joules[meter.name], self.seconds, self.runs)
            for meter in self._meters
            if meter.name not in self._lost and self._joules.get(meter.name)
        )

    def peaks(self) -> tuple[MemoryUse, ...]:
        """The most that every gauge told; of one that told nothing nothing is said."""
        return tuple(MemoryUse(name, size) for name, size in self._peaks.items())

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.look()


def step(meter: Meter, before: float, now: float) -> float:
    """Joules between two readings of a counter that may have begun anew once."""
    if now >= before:
        return now - before
    wrap = meter.wrap or next(size * meter.unit for size in _WRAPS if size * meter.unit > before)
    return wrap - before + now
