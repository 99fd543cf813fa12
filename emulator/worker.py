# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs test functions in processes of their own that have the emulated XPU; one process per preset and options.

A process that has imported torch can no longer get the device, and a process that has it must not run other tests.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import subprocess
import sys
import traceback
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emulator import active, environment

_ROOT = Path(__file__).parents[1]
_workers: dict[tuple[str, str], _Worker] = {}


class _Worker:
    """A process that answers one line of JSON per function it was told to run."""

    def __init__(self, preset: str, options: str) -> None:
        env = environment(preset, options)
        env["PYTHONPATH"] += f":{_ROOT}"
        command = [sys.executable, "-m", "emulator.worker"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=_ROOT
        )
        atexit.register(self.stop)

    def run(self, file: str, name: str) -> tuple[str, str]:
        """What came of function ``name`` of ``file``: ("passed", ""), or "skipped" or "failed" and why."""
        assert self.process.stdin is not None  # noqa: S101
        assert self.process.stdout is not None  # noqa: S101
        self.process.stdin.write(json.dumps([file, name]) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            return "failed", f"the worker ended with exit status {self.process.wait()}"
        outcome, reason = json.loads(answer)
        return outcome, reason

    def stop(self) -> None:
        """End the process, which ends when nobody writes to it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def on(preset: str, options: str = "") -> Callable[[Callable[[], None]], Callable[[], None]]:
    """A decorator: the test runs in a process that has the devices of ``preset``."""

    def decorate(function: Callable[[], None]) -> Callable[[], None]:
        if active():
            return function

        @functools.wraps(function)
        def remote() -> None:
            worker = _workers.get((preset, options))
            if worker is None or worker.process.poll() is not None:
                worker = _workers[preset, options] = _Worker(preset, options)
            outcome, reason = worker.run(function.__code__.co_filename, function.__name__)
            if outcome == "skipped":
                raise unittest.SkipTest(reason)
            if outcome != "passed":
                raise AssertionError(f"on the emulated XPU ({preset}):\n{reason}")

        return remote

    return decorate


@functools.cache
def _module(file: str) -> Any:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None  # noqa: S101
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _run(file: str, name: str) -> tuple[str, str]:
    from emulator import faults  # noqa: PLC0415 (needs a loaded device)

    try:
        with faults.cleared():
            getattr(_module(file), name)()
    except BaseException as error:  # noqa: BLE001 (whatever a test raises is its answer)
        skipped = type(error).__name__ in {"Skipped", "SkipTest"}
        return ("skipped", str(error)) if skipped else ("failed", traceback.format_exc())
    return "passed", ""


def main() -> None:
    """Answer until standard input ends; what tests print goes to standard error."""
    import torch  # noqa: F401, PLC0415 (loads the device)

    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        answers.write(json.dumps(_run(*json.loads(line))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
