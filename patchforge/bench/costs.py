"""What releases cost in exact counts, kept beside their patches: in ``generated/costs/comfyui/``, one file for each.

A file is a benchmark whose nodes are summed, without what is about a machine. The folder with the patches holds what
follows from the inputs alone, so what a run saw is not in it. Nothing but tables and pull requests reads these files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from patchforge import names
from patchforge.bench.compare import BenchmarkComparison, CountDifference, against_upstream, compare
from patchforge.bench.model import FORMAT, PATCHED, UPSTREAM, Benchmark, Case, Machine, shown, total
from patchforge.bench.own_model import is_own
from patchforge.bench.real_size import is_real
from patchforge.bench.submission import anonymous
from patchforge.bench.suites import OF_A_SERVER
from patchforge.errors import Damaged, NotChecked, PatchforgeError
from patchforge.paths import all_below, not_there, quoted
from patchforge.project import parsed_version
from patchforge.rules import transforms
from patchforge.vocabulary import Outcome, Version

_ALL = "all nodes"
_MIB = 1 << 20
#: Transforms that change a figure where they apply, and the first release, if any, that does the same without them.
EXPLAINED: Mapping[str, Mapping[str, str]] = {"wait, asked for": {"empty-cache": "v0.21.0", "load-synchronize": ""}}


@dataclass(frozen=True, slots=True)
class Recorded:
    """The files that were written, and the releases that they are of."""

    written: tuple[str, ...]
    releases: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReleaseCost:
    """One case of a release in exact counts; ``added`` is what patched differs in from upstream, None if not measured.

    ``than`` and ``more`` are the release before, and what this one differs in from it; "" and None where the two cannot
    be compared.
    """

    release: str
    manifest: str
    suite: str
    case: str
    figures: Mapping[str, int | None]  #: totals of patched
    added: tuple[CountDifference, ...] | None
    than: str
    more: tuple[CountDifference, ...] | None


def place(generated: Path, release: str) -> Path:
    """The file of a release, of which ``generated`` has the patches (``generated/comfyui``)."""
    return generated.parent / "costs" / generated.name / names.file_name(f"{release}.json")


def command(release: str) -> str:
    """What counts a release."""
    counted = "--device emulated --suite workflows --quick --pairs 0 --baseline upstream"
    return " ".join(("patchforge bench", quoted(release), counted))


def recorded(benchmark: Benchmark) -> Benchmark:
    """The benchmark as it is kept. NotChecked where it was not counted on the emulated device, which all machines have.

    Only workflows that were fresh count, of the patched tree as it comes and of upstream's.
    """
    cases = [
        replace(case, counts={_ALL: total(case.counts.values())}, times=None, energy=(), memory=(), quality=None)
        for case in benchmark.cases
        if case.suite in OF_A_SERVER and case.side in (PATCHED, UPSTREAM) and case.counts and not _is_other(case.name)
    ]
    if not benchmark.device.emulated or not any(case.side == PATCHED for case in cases):
        raise NotChecked(
            f"the benchmark of {benchmark.release} on {benchmark.device} has no counts to keep",
            expected="counts of the patched release on the emulated device, which do not depend on the machine",
            found=", ".join(f"{case.name} {case.side}" for case in cases) or "none",
            do=command(benchmark.release),
        )
    kept = anonymous(replace(benchmark, cases=tuple(cases)))
    nowhere = Machine("", "", 0, 0, benchmark.machine.gpus)
    return replace(kept, machine=nowhere, cases=tuple(replace(case, not_measured={}) for case in kept.cases))


def _is_other(case: str) -> bool:
    """Whether a case is not of the models that every machine has."""
    return is_own(case) or is_real(case)


def parse(data: bytes) -> Benchmark | None:
    """What such a file says; None of one that is not as it was written."""
    try:
        benchmark = FORMAT.parse(data, "the file")
        return benchmark if FORMAT.dump(recorded(benchmark)) == data else None
    except (Damaged, NotChecked):
        return None


def is_ours(data: bytes) -> bool:
    """Whether such a file may be replaced."""
    return parse(data) is not None


def load(generated: Path, release: str) -> Benchmark | None:
    """What is kept of a release; None where nothing is. Damaged where it is not that."""
    path = place(generated, release)
    do = f"{command(release)}, then patchforge bench record"
    return FORMAT.read(path, do=do) if os.path.lexists(path) else None


def load_all(generated: Path) -> list[Benchmark]:
    """All that is kept, the oldest release first."""
    folder = place(generated, "v").parent
    if not folder.is_dir() and not generated.is_dir():
        do = "check the path, or run this in a checkout of patchforge"
        raise not_there(generated, "a folder with the patches of releases", do=do)
    paths = {path: parsed_version(path.stem) for path in all_below(folder, "v*.json")}
    if strange := [path for path, version in paths.items() if not version]:
        raise Damaged(f"{strange[0]} is not named as a release", expected="such as v0.32.0.json", do="move it away")
    ordered = sorted((version, path.stem) for path, version in paths.items() if version)
    return [kept for _, name in ordered if (kept := load(generated, name))]


def added(kept: Benchmark) -> BenchmarkComparison | str:
    """What the patches add to upstream, or why that is not known."""
    return _or_why(lambda: against_upstream(kept))


def than(before: Benchmark, kept: Benchmark) -> BenchmarkComparison | str:
    """What a release costs more than another, or why that is not known."""
    return _or_why(lambda: compare(_patched(before), _patched(kept)))


def explained(difference: CountDifference, release: str) -> str:
    """The transforms that can be why patched differs from upstream in a release; "" where none is known."""
    version, known = Version.parse(release), EXPLAINED.get(difference.what, {})
    applied = {rule.id for rule in transforms() if rule.id in known and rule.expected(version) is Outcome.APPLIED}
    early = {name for name, until in known.items() if not until or version < Version.parse(until)}
    return ", ".join(sorted(applied & early))


def told(difference: CountDifference) -> str:
    """A difference in a few words, as ``+288 wait, asked for``."""
    if difference.before is None or difference.after is None:
        return f"{difference.what} {shown(difference.before)} → {shown(difference.after)}"
    return f"{difference.after - difference.before:+d} {difference.what}"


def costs(kept: Sequence[Benchmark]) -> Iterator[ReleaseCost]:
    """Every patched case of releases that are in their order."""
    if not kept:
        raise PatchforgeError(
            "nothing is kept of any release", expected="files of patchforge bench record", do=command("v0.33.0")
        )
    earlier = {later.release: before for before, later in pairwise(kept)}
    for benchmark in kept:
        before = earlier.get(benchmark.release)
        against, more = added(benchmark), than(before, benchmark) if before else ""
        for case in benchmark.side(PATCHED):
            has_upstream = benchmark.case(case.suite, case.name, UPSTREAM) is not None
            had_before = before is not None and before.case(*case.place) is not None
            yield ReleaseCost(
                benchmark.release,
                benchmark.manifest,
                case.suite,
                case.name,
                _figures(case),
                _of(case, against) if has_upstream else None,
                before.release if before and had_before and not isinstance(more, str) else "",
                _of(case, more) if had_before else None,
            )


def peak(figures: Mapping[str, int | None]) -> str:
    """The peak of a case, with its unit."""
    size = figures["peak bytes"]
    return shown(None) if size is None else f"{size / _MIB:.1f} MiB"


def _figures(case: Case) -> dict[str, int | None]:
    counts = total(case.counts.values())
    return {
        "operations": sum(counts.operations.values()),
        "copies": sum(count for count, _ in counts.copies.values()),
        "waits": counts.waits,
        "allocations": counts.allocations,
        "peak bytes": counts.peak_bytes,
    }


def _of(case: Case, comparison: BenchmarkComparison | str) -> tuple[CountDifference, ...] | None:
    if isinstance(comparison, str):
        return None
    return tuple(figure for figure in comparison.differences if (figure.suite, figure.case) == (case.suite, case.name))


def _patched(kept: Benchmark) -> Benchmark:
    return replace(kept, cases=tuple(kept.side(PATCHED)))


def _or_why(compared: Callable[[], BenchmarkComparison]) -> BenchmarkComparison | str:
    try:
        return compared()
    except NotChecked as error:
        return f"{error.problem}: {error.expected}, {error.found}"
