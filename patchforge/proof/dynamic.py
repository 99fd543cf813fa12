"""The dynamic proof: what a release answers and calls on faked machines, before and after its patches.

Without an Intel GPU the two records are equal; with one, every difference is one that a transform declares; and an
Intel GPU is never given up for the CPU. docs/dynamic-proof.md says what is faked, recorded, and beyond this proof.
"""

from __future__ import annotations

import difflib
import json
import queue
import re
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from patchforge import documents, processes, resources
from patchforge.errors import CheckFailed, NotChecked, SystemFault
from patchforge.proof.fake_torch import SCENARIOS, Card, Group, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

__all__ = [
    "SCENARIOS",
    "Difference",
    "Group",
    "Kind",
    "ProofResult",
    "Prover",
    "Record",
    "Scenario",
    "ScenarioResult",
    "Verdict",
    "compare",
    "prove",
    "record",
]

#: Module to pip package, where their names differ (what ``import comfy.model_management`` needs over all releases).
PACKAGES = {"PIL": "pillow", "yaml": "pyyaml", "comfy_kitchen": "comfy-kitchen", "comfy_aimdo": "comfy-aimdo"}
_ABSENT = "<absent>"


class Kind(StrEnum):
    """What of a record differs; the names that declarations use follow from it."""

    IMPORT = "import"  #: ``import``
    MAIN = "main"  #: ``main``: main's argument block fails, or imports torch
    ENVIRONMENT = "environment"  #: ``env:NAME``
    ARGUMENT = "argument"  #: ``argument:NAME``, a parsed argument of upstream's
    FLAG = "flag"  #: ``flag:--name``, known to one tree only
    NAME = "name"  #: ``name:NAME``, bound by model_management in one tree only
    CONSTANT = "constant"  #: ``constant:NAME``
    SWITCH = "switch"  #: ``switch:NAME``, a global setting of torch
    ANSWER = "answer"  #: the function's name
    CALL = "call"  #: ``call:torch.xpu.mem_get_info``


@dataclass(frozen=True, slots=True)
class Question:
    """One call of a function of model_management: what it answered and which faked functions it called, in order."""

    text: str
    function: str
    answer: str
    calls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CommandLine:
    """main's argument block run once: what it changed in the environment, and the arguments it left."""

    line: str
    lacking: tuple[str, ...]  #: flags that the tree does not know; then nothing was run
    error: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    imported: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """Everything that a tree answered in one scenario. Two records of the same tree are equal."""

    scenario: str
    lacking: tuple[str, ...]  #: flags of the scenario that the tree does not know
    forcible: bool  #: whether the tree knows ``--force-intel-xpu``
    main: tuple[CommandLine, ...]
    import_error: str
    import_trace: str = field(compare=False)
    import_calls: tuple[str, ...]
    names: tuple[str, ...] = ()
    constants: Mapping[str, str] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)
    questions: tuple[Question, ...] = ()
    not_asked: Mapping[str, str] = field(default_factory=dict)  #: function to the reason
    unfaked: tuple[str, ...] = ()  #: calls that have no chosen answer

    def answer(self, question: str) -> str | None:
        """The answer to a question such as ``get_torch_device()``; None where it was not asked."""
        return next((item.answer for item in self.questions if item.text == question), None)

    @property
    def calls(self) -> int:
        """How many calls of faked functions are on record."""
        return len(self.import_calls) + sum(len(item.calls) for item in self.questions)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that the patched tree does otherwise. ``name`` is what a transform declares."""

    scenario: str
    group: Group
    kind: Kind
    name: str
    where: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.scenario}: {self.name} ({self.where}): {self.before} -> {self.after}"


class Verdict(StrEnum):
    """What one scenario showed."""

    EQUAL = "equal"
    DECLARED = "declared"  #: it differs, and only as transforms declare
    DIFFERS = "differs"  #: something differs that no transform declares
    DEMOTED = "demoted"  #: the patched tree does not use the device it must use
    NOT_PROVED = "not proved"  #: the question could not be put
    NOT_ASKED = "not asked"  #: the patched tree lacks the flag that the scenario is about


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """What one scenario showed, with every difference and who declares it."""

    scenario: Scenario
    verdict: Verdict
    declared: tuple[tuple[Difference, str], ...] = ()  #: with the id of the transform
    undeclared: tuple[Difference, ...] = ()
    problems: tuple[str, ...] = ()
    not_asked: Mapping[str, str] = field(default_factory=dict)
    answers: int = 0
    calls: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the patched tree here."""
        return self.verdict in (Verdict.EQUAL, Verdict.DECLARED, Verdict.NOT_ASKED)

    def as_data(self) -> dict[str, object]:
        """Plain data for evidence; differences are counted by name."""
        return {
            "scenario": self.scenario.name,
            "verdict": str(self.verdict),
            "answers": self.answers,
            "calls": self.calls,
            "declared": _counted((name.name, transform) for name, transform in self.declared),
            "undeclared": [str(difference) for difference in self.undeclared],
            "problems": list(self.problems),
            "not_asked": dict(self.not_asked),
        }


@dataclass(frozen=True, slots=True)
class ProofResult:
    """The proof of one release."""

    scenarios: tuple[ScenarioResult, ...]

    @property
    def holds(self) -> bool:
        """Whether every scenario holds."""
        return all(result.holds for result in self.scenarios)

    def undeclared_names(self) -> tuple[str, ...]:
        """What a transform would have to declare, sorted."""
        return tuple(sorted({item.name for result in self.scenarios for item in result.undeclared}))

    def as_data(self) -> dict[str, object]:
        """Plain data for evidence."""
        return {"holds": self.holds, "scenarios": [result.as_data() for result in self.scenarios]}

    def report(self, limit: int = 5) -> str:
        """Lines for people: a verdict a scenario, and at most ``limit`` findings each."""
        return "\n".join(line for result in self.scenarios for line in _lines(result, limit))


def _lines(result: ScenarioResult, limit: int) -> Iterator[str]:
    yield f"{result.scenario.name:16} {result.verdict:10} {result.answers} answers, {result.calls} calls"
    findings = [*result.problems, *map(str, result.undeclared)]
    yield from (f"  {finding}" for finding in findings[:limit])
    if len(findings) > limit:
        yield f"  ... and {len(findings) - limit} more"
    for row in _counted((difference.name, transform) for difference, transform in result.declared):
        yield f"  {row['name']} x{row['count']}: declared by {row['transform']}"


def _counted(pairs: Iterable[tuple[str, str]]) -> list[dict[str, object]]:
    counts = sorted(Counter(pairs).items())
    return [{"name": name, "transform": transform, "count": count} for (name, transform), count in counts]


class Interpreter:
    """One clean interpreter that has imported torch and forks for every record. NotChecked when it cannot start."""

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
            raise NotChecked("the proof's interpreter does not start", found=f"{python}: {error}") from error
        started = self._reply()
        if "error" in started:
            self.close()
            raise _no_torch(python, str(started["error"]))

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """The probe's answer to one request; NotChecked when the interpreter died."""
        if self._process.stdin is None:
            raise SystemFault("the proof's interpreter has no input")
        with suppress(BrokenPipeError):  # it is dead, and _reply says so
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace")[-1000:]
            raise NotChecked(
                "the proof's interpreter died", found=said, do=f"run {self._python} -I on probe.py by hand"
            )
        return documents.parse_json(line.encode(), dict[str, Any], "an answer of the proof's interpreter")

    def close(self) -> None:
        """End the interpreter."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()
        self._errors.close()


def _no_torch(python: str, found: str) -> NotChecked:
    return NotChecked(
        "the proof's interpreter has no torch",
        expected="a CPU build of torch 2.13",
        found=f"{python}: {found}",
        do=f"{python} -m pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu",
    )


class Prover:
    """Keeps ``jobs`` interpreters for any number of proofs. ``timeout``: seconds a record may take."""

    def __init__(self, python: str = sys.executable, *, jobs: int = 2, timeout: int = 120) -> None:
        self._python, self._jobs, self._timeout = python, max(1, jobs), timeout
        self._idle: queue.SimpleQueue[Interpreter | None] = queue.SimpleQueue()
        self._all: list[Interpreter] = []

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
    def _interpreter(self) -> Iterator[Interpreter]:
        interpreter = self._idle.get()
        try:
            if interpreter is None:
                interpreter = Interpreter(self._python)
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
        return _checked(raw, tree, scenario, self._python)

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


def prove(
    upstream: Path,
    patched: Path,
    declares: Mapping[str, str],
    scenarios: Sequence[Scenario] = SCENARIOS,
    *,
    python: str = sys.executable,
    jobs: int = 2,
) -> ProofResult:
    """The proof of one release; see :meth:`Prover.prove`."""
    with Prover(python, jobs=jobs) as prover:
        return prover.prove(upstream, patched, declares, scenarios)


def _checked(raw: dict[str, Any], tree: Path, scenario: Scenario, python: str) -> Record:
    if "crash" in raw:
        raise CheckFailed(f"{scenario.name}: the probe of {tree} did not end", found=f"{raw['crash']}\n{raw['output']}")
    if raw["requires"]:
        module = raw["requires"][0]
        package = PACKAGES.get(module, module)
        raise NotChecked(
            f"{scenario.name}: {tree} cannot be asked",
            expected=f"module {module!r} in {python}",
            found=raw["import_error"] or "it is missing, and the release would go on without it",
            do=f"{python} -m pip install {package}",
        )
    questions = (Question(q["question"], q["function"], q["answer"], tuple(q["calls"])) for q in raw.get("answers", ()))
    return Record(
        scenario=raw["scenario"],
        lacking=tuple(raw["lacking"]),
        forcible=raw["forcible"],
        main=tuple(_command_line(item) for item in raw["main"]),
        import_error=raw["import_error"],
        import_trace=raw.get("import_trace", ""),
        import_calls=tuple(raw["import_calls"]),
        names=tuple(raw.get("names", ())),
        constants=raw.get("constants", {}),
        switches=raw.get("switches", {}),
        questions=tuple(questions),
        not_asked=raw.get("not_asked", {}),
        unfaked=tuple(raw.get("unfaked", ())),
    )


def _command_line(raw: dict[str, Any]) -> CommandLine:
    if "crash" in raw:
        return CommandLine(raw["line"], (), error=raw["crash"])
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return CommandLine(**plain)


def compare(before: Record, after: Record) -> tuple[Difference, ...]:
    """Every difference between two records of one scenario, in the order of a start and then of the questions."""
    scenario = next(item for item in SCENARIOS if item.name == before.scenario)

    def say(kind: Kind, name: str, where: str, old: str, new: str) -> Difference:
        return Difference(scenario.name, scenario.group, kind, name, where, old, new)

    return tuple(say(*found) for found in _differences(before, after, scenario))


_Found = tuple[Kind, str, str, str, str]


def _differences(before: Record, after: Record, scenario: Scenario) -> Iterator[_Found]:
    for old, new in zip(before.main, after.main, strict=True):
        yield from _main_differences(old, new, scenario)
    if before.import_error or after.import_error:
        if before.import_error != after.import_error:
            yield Kind.IMPORT, "import", "import", before.import_error or "starts", after.import_error or "starts"
        return
    yield from _sequence("import", before.import_calls, after.import_calls)
    for name in sorted({*before.names} ^ {*after.names}):
        had = name in before.names
        yield Kind.NAME, f"name:{name}", "module", name if had else _ABSENT, _ABSENT if had else name
    shared = {*before.names} & {*after.names}
    yield from _mapping(Kind.CONSTANT, "constant:", "module", before.constants, after.constants, only=shared)
    yield from _mapping(Kind.SWITCH, "switch:", "torch", before.switches, after.switches)
    yield from _question_differences(before.questions, after.questions)


def _main_differences(old: CommandLine, new: CommandLine, scenario: Scenario) -> Iterator[_Found]:
    """A flag that only the patched tree knows matters with an Intel GPU only: without one nobody is asked it."""
    if old.lacking != new.lacking:
        if scenario.group in (Group.XPU, Group.DUAL) or not {*new.lacking} <= {*old.lacking}:
            for flag in sorted({*old.lacking} ^ {*new.lacking}):
                known = flag not in old.lacking
                yield Kind.FLAG, f"flag:{flag}", old.line, _known(known), _known(not known)
        return
    if old.error != new.error:
        yield Kind.MAIN, "main", old.line, old.error or "runs", new.error or "runs"
    if old.imported != new.imported:
        yield Kind.MAIN, "main:imports", old.line, str(old.imported), str(new.imported)
    yield from _mapping(Kind.ENVIRONMENT, "env:", old.line, old.environment, new.environment)
    yield from _mapping(Kind.ARGUMENT, "argument:", old.line, old.arguments, new.arguments, only={*old.arguments})
    yield from _sequence(old.line, old.calls, new.calls)


def _known(known: bool) -> str:  # noqa: FBT001 - a word for a truth value
    return "known" if known else "unknown"


def _mapping(
    kind: Kind,
    prefix: str,
    where: str,
    before: Mapping[str, str],
    after: Mapping[str, str],
    *,
    only: set[str] | None = None,
) -> Iterator[_Found]:
    for name in sorted({*before, *after} if only is None else {*before, *after} & only):
        old, new = before.get(name, _ABSENT), after.get(name, _ABSENT)
        if old != new:
            yield kind, prefix + name, where, old, new


def _question_differences(before: Sequence[Question], after: Sequence[Question]) -> Iterator[_Found]:
    old_by_text, new_by_text = ({item.text: item for item in items} for items in (before, after))
    for text in dict.fromkeys([*old_by_text, *new_by_text]):
        old, new = old_by_text.get(text), new_by_text.get(text)
        if old is None or new is None:
            if item := old or new:
                yield Kind.ANSWER, item.function, text, old.answer if old else _ABSENT, new.answer if new else _ABSENT
            continue
        if old.answer != new.answer:
            yield Kind.ANSWER, old.function, text, old.answer, new.answer
        yield from _sequence(text, old.calls, new.calls)


def _sequence(where: str, before: Sequence[str], after: Sequence[str]) -> Iterator[_Found]:
    """Calls removed, added or changed; order counts."""
    if before == after:
        return
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag != "equal":
            yield from ((Kind.CALL, f"call:{_called(call)}", where, call, _ABSENT) for call in before[i1:i2])
            yield from ((Kind.CALL, f"call:{_called(call)}", where, _ABSENT, call) for call in after[j1:j2])


def _called(call: str) -> str:
    """``torch.xpu.mem_get_info`` of a recorded call; ``stream.wait_stream`` of a call on an object."""
    return re.sub(r"^(\w+)\([^()]*\)\.", r"\1.", call).partition("(")[0]


def judge(scenario: Scenario, before: Record, after: Record, declares: Mapping[str, str]) -> ScenarioResult:
    """What two records of a scenario show, given what transforms declare."""
    if {*scenario.ours} & {*after.lacking}:
        reason = f"the patched tree does not know {' '.join(after.lacking)}"
        return ScenarioResult(scenario, Verdict.NOT_ASKED, not_asked={"scenario": reason})
    declared, undeclared = [], []
    for difference in compare(before, after):
        transform = declarer(difference, declares)
        if transform is None:
            undeclared.append(difference)
        else:
            declared.append((difference, transform))
    unproved, demoted = tuple(_unproved(scenario, before, after)), tuple(_demoted(scenario, after))
    return ScenarioResult(
        scenario=scenario,
        verdict=_verdict(unproved, demoted, undeclared, declared),
        declared=tuple(declared),
        undeclared=tuple(undeclared),
        problems=unproved + demoted,
        not_asked=after.not_asked,
        answers=len(after.questions),
        calls=after.calls,
    )


def _verdict(unproved: object, demoted: object, undeclared: object, declared: object) -> Verdict:
    verdicts = (
        (demoted, Verdict.DEMOTED),
        (unproved, Verdict.NOT_PROVED),
        (undeclared, Verdict.DIFFERS),
        (declared, Verdict.DECLARED),
    )
    return next((verdict for found, verdict in verdicts if found), Verdict.EQUAL)


def declarer(difference: Difference, declares: Mapping[str, str]) -> str | None:
    """The transform that declares a difference, or None. See :meth:`Prover.prove` for which names hold where."""
    if difference.group is Group.OTHER:
        return None
    qualified = f"{difference.group}:{difference.name}"
    names = (qualified,) if difference.group is Group.CPU else (difference.name, qualified)
    for pattern, transform in sorted(declares.items()):
        right_group = pattern.startswith("cpu:") == (difference.group is Group.CPU)
        if right_group and any(fnmatchcase(name, pattern) for name in names):
            return transform
    return None


def _unproved(scenario: Scenario, before: Record, after: Record) -> Iterator[str]:
    if after.import_error and after.import_error == before.import_error and scenario.starts:
        yield f"neither tree starts: {after.import_error}"
    elif after.import_error and not before.import_error:
        yield f"the patched tree does not start: {after.import_error}\n{after.import_trace}"
    for record_, tree in ((before, "upstream"), (after, "the patched tree")):
        for call in dict.fromkeys(record_.unfaked):
            yield f"{tree} calls {call}, which has no chosen answer: add one to fake_torch.py"
    if {*scenario.flags} & {*after.lacking}:
        yield f"the patched tree does not know {' '.join(after.lacking)}"


def _demoted(scenario: Scenario, after: Record) -> Iterator[str]:
    """Where the patched tree does not use the device that the scenario says it must."""
    if scenario.group is Group.OTHER or after.import_error:
        return
    if scenario.group is Group.DUAL and not after.forcible:
        return  # no transform chooses between the two here: records say what upstream does
    index = "" if scenario.device == "cpu" else ":0"
    expected, found = f"device({scenario.device}{index})", after.answer("get_torch_device()")
    if found != expected:
        yield f"get_torch_device() must be {expected} and is {found}"
    if scenario.group is Group.DUAL:
        yield from _inconsistent(scenario, after)


def _inconsistent(scenario: Scenario, after: Record) -> Iterator[str]:
    """With two backends in one build, device list and memory must be of the backend in use (facts, 3.12)."""
    machine = scenario.machine
    cards: tuple[Card, ...] = machine.xpu if scenario.device == "xpu" else machine.cuda
    devices = ", ".join(f"device({scenario.device}:{number})" for number in range(len(cards)))
    wanted = {"get_all_torch_devices()": f"list({devices})", "get_total_memory()": str(cards[0].total)}
    for question, expected in wanted.items():
        found = after.answer(question)
        if found not in (None, expected):
            yield f"{question} must be {expected} and is {found}"
