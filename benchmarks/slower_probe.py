"""``patchforge/bench/probe.py`` in which every case takes 5 % longer, for benchmarks/alarms.py; the same arguments.

On a CPU it waits that long, actively. GPUs work on while it would: there every twentieth run is done twice.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

SHARE = 0.05


def slowed(run: Callable[..., Any], *, on_gpu: bool) -> Callable[..., Any]:
    numbers = itertools.count(1)

    def slower(*inputs: Any) -> Any:
        begin = time.perf_counter()
        result = run(*inputs)
        if on_gpu:
            return result if next(numbers) % round(1 / SHARE) else run(*inputs)
        end = time.perf_counter()
        while time.perf_counter() < end + SHARE * (end - begin):
            pass
        return result

    return slower


def main(arguments: list[str]) -> int:
    path = Path(__file__).parents[1] / "patchforge" / "bench" / "probe.py"
    spec = importlib.util.spec_from_file_location("probe", path)
    if spec is None or spec.loader is None:
        return 2
    probe: Any = importlib.util.module_from_spec(spec)
    sys.modules["probe"] = probe
    spec.loader.exec_module(probe)
    on_gpu = arguments[1] != "cpu"
    probe.CASES = tuple(replace(case, run=slowed(case.run, on_gpu=on_gpu)) for case in probe.CASES)
    return int(probe.main(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
