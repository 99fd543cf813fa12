"""The dynamic proof: what a release answers and calls on faked machines, before and after its patches.

Without an Intel GPU the two records are equal; with one, every difference is one that a transform declares; and an
Intel GPU is never given up for the CPU. docs/dynamic-proof.md says what is faked, recorded, and beyond this proof.
"""

from __future__ import annotations

import json
import queue
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from patchforge import bounded, documents, faults, processes, resources
from patchforge.errors import NotChecked, SystemFault
from patchforge.paths import quoted
from patchforge.proof.judgement import ProofResult, judge
from patchforge.proof.records import Record, checked, packages
from patchforge.proof.scenarios import SCENARIOS, Scenario

_LONGEST = 16 << 20  #: characters of an answer


class ProofInterpreter:
    """One clean interpreter that has imported torch and forks for every record. NotChecked when it lacks that."""

    def __init__(self, python: str) -> None:
        self._python = python
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        probe = resources.path("proof/probe.py")
        try:
            self._process = processes.start(
                [python, "-I", str(probe), "--serve"],
                stdin=processes.PIPE,
                stdout=processes.PIPE,
                stderr=self._errors,
                env=processes.environment({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}),
                text=True,
            )
        except OSError as error:
            raise NotChecked(
                "the proof's interpreter does not start",
                found=f"{python}: {faults.reason(error)}",
                do="name another with --python",
            ) from error
        started = self._reply()
        if "error" in started:
            self.close()
            raise _no_torch(python, str(started["error"]), list(started.get("absent", [])))

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The probe's answer to one request; NotChecked when the interpreter died."""
        if self._process.stdin is None:
            raise SystemFault("the proof's interpreter has no input", do="please report this")
        with suppress(BrokenPipeError):  # it is dead, and _reply says so
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        line = next(bounded.lines(self._process.stdout, _LONGEST), "") if self._process.stdout else ""
        if not line:
            said = bounded.ended(self._errors, 1000)
            raise NotChecked(
                "the proof's interpreter died",
                found=said or "it said nothing",
                do="run this again; with --python another interpreter is used",
            )
        return documents.parse_json(line.encode(), dict[str, Any], "an answer of the proof's interpreter")

    def close(self) -> None:
        """End the interpreter."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()
        self._errors.close()


def _no_torch(python: str, found: str, others: Sequence[str]) -> NotChecked:
    pip = f"{quoted(python)} -m pip install --extra-index-url https://download.pytorch.org/whl/cpu"
    return NotChecked(
        "the proof's interpreter has no torch",
        expected="a CPU build of torch 2.13",
        found=f"{python}: {found}",
        do=f"{pip} torch==2.13.0 {packages(others)}".rstrip(),
    )


class Prover:
    """Keeps ``jobs`` interpreters for any number of proofs. ``timeout``: seconds a record may take."""

    def __init__(self, python: str = sys.executable, *, jobs: int = 2, timeout: int = 120) -> None:
        self._python, self._jobs, self._timeout = python, max(1, jobs), timeout
        self._idle: queue.SimpleQueue[ProofInterpreter | None] = queue.SimpleQueue()
        self._all: list[ProofInterpreter] = []

    def __enter__(self) -> Self:
        for _ in range(self._jobs):
            self._idle.put(None)  # started by the first record that needs one
        self._pool = ThreadPoolExecutor(self._jobs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        for interpreter in self._all:
            interpreter.close()

    @contextmanager
    def _interpreter(self) -> Iterator[ProofInterpreter]:
        interpreter = self._idle.get()
        try:
            if interpreter is None:
                interpreter = ProofInterpreter(self._python)
                self._all.append(interpreter)
            yield interpreter
        finally:
            self._idle.put(interpreter)

    def record(self, tree: Path, scenario: Scenario, extra: Sequence[str] = ()) -> Record:
        """One record; ``extra`` are flags beside the scenario's own.

        NotChecked when the interpreter lacks a package that the release imports (named), CheckFailed when the probe
        dies.
        """
        request = {
            "tree": str(tree.resolve()),
            "scenario": scenario.name,
            "flags": [*scenario.flags, *extra],
            "timeout": self._timeout,
        }
        with self._interpreter() as interpreter:
            raw = interpreter.ask(request)
        return checked(raw, tree, scenario, self._python)

    def prove(
        self,
        upstream: Path,
        patched: Path,
        declares: Mapping[str, str],
        scenarios: Sequence[Scenario] = SCENARIOS,
    ) -> ProofResult:
        """Both trees in every scenario. ``declares``: name or fnmatch pattern of a difference to a transform's id.

        Plain names hold where there is an Intel GPU; names that begin with ``cpu:`` hold on a host without any
        accelerator and without ``--cpu``; nothing holds elsewhere. Errors as :meth:`record` says.
        """
        before = [self._pool.submit(self.record, upstream, scenario) for scenario in scenarios]
        after = [self._pool.submit(self.record, patched, scenario, scenario.ours) for scenario in scenarios]
        pairs = zip(scenarios, before, after, strict=True)
        return ProofResult(tuple(judge(scenario, a.result(), b.result(), declares) for scenario, a, b in pairs))


def record(
    tree: Path, scenario: Scenario, python: str = sys.executable, timeout: int = 120, extra: Sequence[str] = ()
) -> Record:
    """One record from an interpreter of its own; see :meth:`Prover.record`."""
    with Prover(python, jobs=1, timeout=timeout) as prover:
        return prover.record(tree, scenario, extra)
