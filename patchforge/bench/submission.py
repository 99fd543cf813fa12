"""A benchmark without what is about its user: what others may see."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from patchforge import names
from patchforge.bench.model import FORMAT, Benchmark
from patchforge.errors import Damaged, NotChecked
from patchforge.trial.model import TrialVerdict

SUFFIX = ".benchmark.json"
_VERSIONS = frozenset({"torch", "numpy", "intel-extension-for-pytorch"})


@dataclass(frozen=True, slots=True)
class Submitted:
    """Where it was written, and how many cases it has."""

    written: str
    cases: int


def anonymous(benchmark: Benchmark) -> Benchmark:
    """What was fresh, without paths, packages, the hour, and the kernel's own build; NotChecked where nothing was.

    Reasons are left out: they are texts of a release's code.
    """
    fresh = [
        replace(case, reason="", not_measured=dict.fromkeys(case.not_measured, ""))
        for case in benchmark.cases
        if case.verdict is TrialVerdict.FRESH
    ]
    if not fresh:
        raise NotChecked(
            "there is nothing to submit", expected="a case that is fresh", found="none", do="run patchforge bench again"
        )
    kernel = re.match(r"\w+ \d+(\.\d+)?", benchmark.machine.system)
    return replace(
        benchmark,
        date=benchmark.date[:10],
        machine=replace(benchmark.machine, system=kernel[0] if kernel else ""),
        versions={name: text for name, text in benchmark.versions.items() if name in _VERSIONS},
        cases=tuple(fresh),
    )


def file_name(benchmark: Benchmark) -> str:
    """Of release, device and day."""
    return names.file_name(f"{benchmark.release}-{benchmark.device}-{benchmark.date}".replace(":", "-") + SUFFIX)


def rendered(benchmark: Benchmark) -> bytes:
    """The file, which is always the same for the same benchmark."""
    return FORMAT.dump(benchmark)


def is_ours(data: bytes) -> bool:
    """Whether a file may be replaced: it is such a submission, as it was written."""
    try:
        return rendered(FORMAT.parse(data, "the file")) == data
    except Damaged:
        return False
