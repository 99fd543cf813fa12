"""What differences show, given what transforms declare; and that an Intel GPU is never given up for the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase

from patchforge.proof.comparison import RecordDifference, compare
from patchforge.proof.records import Record
from patchforge.proof.scenarios import NOTHING, FakedCard, Group, Scenario


class ProofVerdict(StrEnum):
    """What one scenario showed."""

    EQUAL = "equal"
    DECLARED = "declared"  #: it differs, and only as transforms declare
    DIFFERS = "differs"  #: something differs that no transform declares
    DEMOTED = "demoted"  #: the patched tree does not use the device it must use
    NOT_PROVED = "not proved"  #: the question could not be put
    NOT_FAKED = "not faked"  #: the machine that stands in for the real one lacks what a release asks of it
    NOT_ASKED = "not asked"  #: the patched tree lacks the flag that the scenario is about


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """What one scenario showed, with every difference and who declares it."""

    scenario: Scenario
    verdict: ProofVerdict
    declared: tuple[tuple[RecordDifference, str], ...] = ()  #: with the id of the transform
    undeclared: tuple[RecordDifference, ...] = ()
    problems: tuple[str, ...] = ()
    not_asked: Mapping[str, str] = field(default_factory=dict)
    answers: int = 0
    calls: int = 0

    @property
    def holds(self) -> bool:
        """Whether nothing speaks against the patched tree here."""
        return self.verdict in (ProofVerdict.EQUAL, ProofVerdict.DECLARED, ProofVerdict.NOT_ASKED)

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


def judge(scenario: Scenario, before: Record, after: Record, declares: Mapping[str, str]) -> ScenarioResult:
    """What two records of a scenario show, given what transforms declare."""
    if {*scenario.ours} & {*after.lacking}:
        reason = f"the patched tree does not know {' '.join(after.lacking)}"
        return ScenarioResult(scenario, ProofVerdict.NOT_ASKED, not_asked={"scenario": reason})
    declared, undeclared = [], []
    for difference in compare(before, after):
        transform = declarer(difference, declares)
        if transform is None:
            undeclared.append(difference)
        else:
            declared.append((difference, transform))
    lacks, unproved = tuple(_lacks(before, after)), tuple(_unproved(scenario, before, after))
    demoted = (*_demoted(scenario, after), *_helped(after))
    return ScenarioResult(
        scenario=scenario,
        verdict=_verdict(lacks, unproved, demoted, undeclared, declared),
        declared=tuple(declared),
        undeclared=tuple(undeclared),
        problems=lacks + unproved + demoted,
        not_asked=after.not_asked,
        answers=len(after.questions),
        calls=after.calls,
    )


def _verdict(lacks: object, unproved: object, demoted: object, undeclared: object, declared: object) -> ProofVerdict:
    verdicts = (
        (lacks, ProofVerdict.NOT_FAKED),
        (demoted, ProofVerdict.DEMOTED),
        (unproved, ProofVerdict.NOT_PROVED),
        (undeclared, ProofVerdict.DIFFERS),
        (declared, ProofVerdict.DECLARED),
    )
    return next((verdict for evidence, verdict in verdicts if evidence), ProofVerdict.EQUAL)


def declarer(difference: RecordDifference, declares: Mapping[str, str]) -> str | None:
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


def _lacks(before: Record, after: Record) -> Iterator[str]:
    """What the fake lacks: that neither tree gets on without it is no fault of theirs, and no proof either."""
    for record_, tree in ((before, "upstream"), (after, "the patched tree")):
        for call in dict.fromkeys(record_.unfaked):
            yield f"{tree} calls {call}, which has no chosen answer: add one to backends.py"
        for name, wanted_by in sorted(record_.lacks.items()):
            yield f"{tree} wants {name} ({wanted_by}), which the faked torch lacks: add it to backends.py"


def _unproved(scenario: Scenario, before: Record, after: Record) -> Iterator[str]:
    if after.import_error and after.import_error == before.import_error and scenario.starts:
        yield f"neither tree starts: {after.import_error}"
    elif after.import_error and not before.import_error and scenario.device != NOTHING:
        yield f"the patched tree does not start: {after.import_error}\n{after.import_trace}"
    if {*scenario.flags} & {*after.lacking}:
        yield f"the patched tree does not know {' '.join(after.lacking)}"


def _demoted(scenario: Scenario, after: Record) -> Iterator[str]:
    """Where the patched tree does not use the device that the scenario says it must."""
    if scenario.group is Group.OTHER or (after.import_error and scenario.device != NOTHING):
        return
    if scenario.group in (Group.DUAL, Group.MIXED) and not after.forcible:
        return  # no transform chooses between the two here: records say what upstream does
    expected, found = f"device({scenario.device})", after.answer("get_torch_device()")
    if scenario.device == NOTHING:
        if after.forcible and not after.import_error.startswith("SystemExit: patchforge: "):
            yield f"the start must stop with a message, and ends with {after.import_error or found}"
    elif found != expected:
        yield f"get_torch_device() must be {expected} and is {found}"
    if scenario.group is Group.DUAL:
        yield from _inconsistent(scenario, after)


def _helped(after: Record) -> Iterator[str]:
    """Where ``--help-gpu`` names another device than the start uses."""
    if not after.help:
        return
    used = NOTHING if after.import_error else (after.answer("get_torch_device()") or "")
    used = used.removeprefix("device(").removesuffix(")")
    if used not in (after.help, f"{after.help}:0") and used != after.help.partition(":")[0]:
        yield f"--help-gpu says {after.help}, and the start uses {used}"


def _inconsistent(scenario: Scenario, after: Record) -> Iterator[str]:
    """With two backends in one build, device list and memory must be of the backend in use (facts, 3.12)."""
    machine = scenario.machine
    kind = scenario.device.partition(":")[0]
    cards: tuple[FakedCard, ...] = machine.xpu if kind == "xpu" else machine.cuda
    devices = ", ".join(f"device({kind}:{number})" for number in range(len(cards)))
    wanted = {"get_all_torch_devices()": f"list({devices})", "get_total_memory()": str(cards[0].total)}
    for question, expected in wanted.items():
        found = after.answer(question)
        if found not in (None, expected):
            yield f"{question} must be {expected} and is {found}"
