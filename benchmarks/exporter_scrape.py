"""What a scrape of the exporter costs, with two GPUs and 200 processes: ``python -m benchmarks.exporter_scrape``.

The trees are those of the tests. A scrape is one answer over HTTP, from asking to the last byte; the sample is what the
exporter does by itself every five seconds. Milliseconds of wall time, and of CPU time.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from patchforge.operate.exporter import Exporter, sources
from patchforge.operate.hardware import Reader
from patchforge.operate.server import MetricsServer
from tests.operate import trees
from tests.operate.trees import A770, B580, Machine

PROCESSES, FILES, TIMES = 200, 20, 300


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        machine.a770()
        machine.b580()
        for number in range(PROCESSES):
            unit = f"unit-{number}.service"
            gpu = [trees.xe(B580, number, number, 1000), trees.i915(A770, number, number)] if number % 10 == 0 else []
            machine.process(1000 + number, unit, *gpu)
            for file in range(len(gpu) + 2, FILES):
                trees.put(machine.root / f"proc/{1000 + number}/fdinfo/{file}", "pos:\t0\nflags:\t02")
                (machine.root / f"proc/{1000 + number}/fd/{file}").symlink_to(f"socket:[{file}]")
            machine.held(unit, B580, number << 20)
        reader = Reader(machine.root)
        print("sample:", told([timed(reader.sample) for _ in range(10)]))
        exporter = Exporter(sources(reader, [], [], list, ()))
        with MetricsServer("127.0.0.1:0", exporter.registry(), lambda _: b"") as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()

            def scrape() -> None:
                with urllib.request.urlopen(f"{server.url}/metrics") as answer:
                    size.append(len(answer.read()))

            size: list[int] = []
            print("scrape:", told([timed(scrape) for _ in range(TIMES)]), f"{size[-1]} bytes")
            server.shutdown()


def timed(function: Callable[[], object]) -> tuple[float, float]:
    begin, cpu = time.perf_counter(), time.process_time()
    function()
    return (time.perf_counter() - begin) * 1000, (time.process_time() - cpu) * 1000


def told(times: list[tuple[float, float]]) -> str:
    wall = sorted(wall_time for wall_time, _ in times)
    cpu = statistics.median(cpu_time for _, cpu_time in times)
    middle, most = statistics.median(wall), wall[int(len(wall) * 0.99) - 1]
    return f"least {wall[0]:.1f} ms, median {middle:.1f} ms, 99 of 100 below {most:.1f} ms; CPU {cpu:.1f} ms"


if __name__ == "__main__":
    main()
