"""What a benchmark found, as the document that it leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from pathlib import Path
from typing import Annotated

from patchforge import __version__, documents
from patchforge.documents import between, filled, form
from patchforge.errors import PatchforgeError
from patchforge.trial.model import Device, TrialVerdict
from patchforge.vocabulary import Version

FILE = "benchmark.json"
_AGAIN = "run patchforge bench again"

#: Sides of one run: what is measured, and what it is measured against.
PATCHED, UPSTREAM, CPU, CUDA = "patched", "upstream", "cpu", "cuda"
#: Other devices that a device is measured against, in turns.
DEVICES = (CPU, CUDA)
TORCH = "torch"  #: of suites that need no release: torch on the device
NOT_MEASURED = "not measured"


#: What figures can be: no run takes less than a picosecond or thirty years, and no memory is larger.
Number = Annotated[int, between(0, 1 << 62)]
Positive = Annotated[int, between(1, 1 << 62)]
Seconds = Annotated[float, between(1e-12, 1e9)]
Figure = Annotated[float, between(0, 1e15)]
Signed = Annotated[float, between(-1e6, 1e6)]


def _is_release(text: str) -> None:
    try:
        same = str(Version.parse(text)) == text
    except ValueError:
        same = False
    if not same:
        raise ValueError(f"expected a release such as v0.33.0, found {repr(text)[:80]}")


def _is_date(text: str) -> None:
    _DATED(text)
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected {_DATE}, found {repr(text)[:80]}") from None


_DATE = "a day or a time such as 2026-11-29T10:00:00+00:00"
_DATED = form(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:]{8}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?)?", _DATE)
Digest = Annotated[str, form("[0-9a-f]{0,64}", "a digest in hexadecimal digits")]


def shown(number: float | None) -> str:
    """A figure as it is told: what was not measured is never 0."""
    return NOT_MEASURED if number is None else str(number)


@dataclass(frozen=True, slots=True)
class Counts:
    """What one part of a case asked of torch; see trial/server/pack/counting.py. None is what was not counted.

    Bytes are those of the results; ``peak_bytes`` is the most that was held above what was held when the part began.
    """

    operations: Mapping[str, Number]  #: by type and ATen's name: ``float16 linear``
    copies: Mapping[str, tuple[Number, Number]]  #: number and bytes by direction: ``cpu to xpu``
    synchronisations: Mapping[str, Number] | None  #: by cause: ``asked for``, ``blocking copy``, or an operator
    allocations: Number | None
    allocated_bytes: Number | None
    peak_bytes: Number | None
    models: Number | None
    files: Number | None
    graphs: Number | None
    recompilations: Number | None

    def figures(self) -> dict[str, int]:
        """Every number by a name of its own; what was not counted is not in it."""
        figures = {f"operation {name}": count for name, count in self.operations.items()}
        figures |= {f"wait, {cause}": count for cause, count in (self.synchronisations or {}).items()}
        for direction, (count, size) in self.copies.items():
            figures |= {f"copies {direction}": count, f"bytes {direction}": size}
        plain = {name: getattr(self, name) for name in _PLAIN}
        return figures | {name.replace("_", " "): value for name, value in plain.items() if value is not None}

    @property
    def waits(self) -> int | None:
        """How often the host waited, for whatever cause."""
        return None if self.synchronisations is None else sum(self.synchronisations.values())


_NAMED = frozenset({"operations", "copies", "synchronisations"})
_PLAIN = tuple(field.name for field in fields(Counts) if field.name not in _NAMED)


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    summed: dict[str, int] = {}
    for counted in counts:
        for name, count in counted.items():
            summed[name] = summed.get(name, 0) + count
    return summed


def total(parts: Iterable[Counts]) -> Counts:
    """The sum over parts, and the highest of the peaks; None where no part was counted."""
    listed = list(parts)
    copies: dict[str, tuple[int, int]] = {}
    for counts in listed:
        for name, (count, size) in counts.copies.items():
            before = copies.get(name, (0, 0))
            copies[name] = before[0] + count, before[1] + size
    plain: dict[str, int | None] = {}
    for name in _PLAIN:
        known = [value for counts in listed if (value := getattr(counts, name)) is not None]
        plain[name] = None if not known else max(known) if name == "peak_bytes" else sum(known)
    waits = [counts.synchronisations for counts in listed if counts.synchronisations is not None]
    return Counts(_sum(counts.operations for counts in listed), copies, _sum(waits) if waits else None, **plain)


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of the runs of a case after its warm-up, in order, and by part; nothing is counted meanwhile.

    The runs of two sides that were timed together belong in pairs, which were made in turns. ``steady`` says whether
    the warm-up ended because its last runs took about as long as one another.
    """

    seconds: Annotated[tuple[Seconds, ...], filled]
    parts: Mapping[str, tuple[Figure, ...]]
    warm_up: tuple[Figure, ...]
    steady: bool


@dataclass(frozen=True, slots=True)
class EnergyUse:
    """What a hardware counter told over the timed runs of a case, the machine's rest included; see bench/energy.py."""

    meter: str  #: such as ``xe 0000:03:00.0 card``
    joules: Figure
    seconds: Seconds
    runs: Positive

    @property
    def watts(self) -> float:
        """The mean."""
        return self.joules / self.seconds

    @property
    def joules_per_run(self) -> float:
        return self.joules / self.runs


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The most memory that was held at any look during the timed runs of a case, in bytes; see bench/memory.py."""

    what: str
    peak: Number


@dataclass(frozen=True, slots=True)
class Quality:
    """How near the pictures of a run are to the CPU's in float32, the worst of them; see bench/quality.py.

    ``largest`` and ``mean`` differences in 8-bit levels, ``psnr`` in decibels (None of equal pictures), ``ssim`` (None
    of pictures that are too small), ``flip`` from 0, nothing seen, to 1.
    """

    equal: bool  #: to the bit
    largest: Figure
    mean: Figure
    psnr: Signed | None
    ssim: Signed | None
    flip: Figure


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that was run on one side. Nothing is measured of a run that is not fresh: ``reason`` says why.

    ``counts`` are by part, a workflow's node such as ``5 KSampler``. ``not_measured`` says why something has no figure.
    """

    suite: str
    name: str
    side: str
    verdict: TrialVerdict
    reason: str
    counts: Mapping[str, Counts] = field(default_factory=dict)
    times: Times | None = None
    energy: tuple[EnergyUse, ...] = ()
    memory: tuple[MemoryUse, ...] = ()
    quality: Quality | None = None
    pictures: Number = 0  #: that a run makes
    steps: Number = 0  #: of sampling, for each
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> tuple[str, str, str]:
        return self.suite, self.name, self.side


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it was run. ``memory`` in bytes; ``gpus`` as they call themselves, with their drivers."""

    system: str
    cpu: str
    cores: Number
    memory: Number
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One run of ``patchforge bench``. ``manifest`` is the sha256 of the manifest beside the release's patches."""

    release: Annotated[str, _is_release]
    commit: Digest
    manifest: Digest
    device: Device
    date: Annotated[str, _is_date]  #: ISO 8601
    machine: Machine
    versions: Mapping[str, str]  #: python, torch and the packages
    flags: tuple[str, ...]  #: the server's
    quick: bool
    cases: tuple[Case, ...]
    patchforge: str = field(default=__version__)

    def case(self, suite: str, name: str, side: str) -> Case | None:
        """The case at that place."""
        return next((case for case in self.cases if case.place == (suite, name, side)), None)

    def side(self, side: str) -> list[Case]:
        return [case for case in self.cases if case.side == side]


def _fault(benchmark: Benchmark) -> str:
    """What is wrong between the cases: one place has two, or sides that took turns have not as many runs."""
    runs: dict[tuple[str, str], int] = {}
    seen: set[tuple[str, str, str]] = set()
    for case in benchmark.cases:
        if case.place in seen:
            return f"$.cases: two of {' '.join(case.place)[:200]}"
        seen.add(case.place)
        if case.times and runs.setdefault(case.place[:2], len(case.times.seconds)) != len(case.times.seconds):
            return f"$.cases: sides of {' '.join(case.place[:2])[:200]} with different numbers of times"
    return ""


FORMAT = documents.Format(Benchmark, 1, _fault)


def read(named: Path) -> Benchmark:
    """The benchmark of a file, or of the folder that it lies in."""
    path = named / FILE if named.is_dir() else named
    if not path.exists():
        raise PatchforgeError(
            f"{named} holds no benchmark",
            expected=f"{FILE}, or a folder with it",
            found="a folder without such a file" if named.is_dir() else "nothing there",
            do="make one: patchforge bench v0.33.0",
        )
    return FORMAT.read(path, do=_AGAIN)
