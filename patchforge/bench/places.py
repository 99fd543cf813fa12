"""The folder that a benchmark is written to."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from patchforge import atomic, faults
from patchforge.bench.model import FILE, FORMAT, Benchmark
from patchforge.errors import PatchforgeError, SystemFault
from patchforge.outputs import OutputKind, check_folder, place_of, write_folder

KIND = OutputKind("a benchmark", re.compile(r"benchmark\.json|report\.(html|md|csv)"))


def check(folder: Path, inputs: Iterable[Path] = ()) -> None:
    """PatchforgeError before the work where the folder could not be written after it."""
    check_folder(folder, KIND, inputs)
    atomic.try_place(place_of(folder))


def write(folder: Path, benchmark: Benchmark, inputs: Iterable[Path] = ()) -> None:
    """What was measured, into its folder. Where that fails after all, it is kept elsewhere, and SystemFault says where.

    The last resort is standard error.
    """
    data = FORMAT.dump(benchmark)
    try:
        write_folder(folder, {FILE: data}, KIND, inputs=inputs)
    except (OSError, PatchforgeError) as error:
        fault, kept = faults.told(error), _kept(data)
        if kept is None:
            print(data.decode(), file=sys.stderr, flush=True)
        raise SystemFault(
            f"{folder / FILE} could not be written, after everything was measured: {fault.problem}",
            found=fault.found,
            do=f"the benchmark is {kept or 'what stands above this, on standard error'}: move it to where it belongs",
        ) from error


def _kept(data: bytes) -> Path | None:
    """A new file elsewhere; None where no folder has the room."""
    for place in (tempfile.gettempdir(), ".", "~"):
        path: Path | None = None
        with suppress(OSError, RuntimeError):
            handle, name = tempfile.mkstemp(".json", "patchforge-benchmark-", Path(place).expanduser().absolute())
            path = Path(name)
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            return path
        if path is not None:
            with suppress(OSError):
                path.unlink()
    return None
