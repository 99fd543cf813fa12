"""What a tree answered and called in one scenario, as the probe tells it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from patchforge.errors import CheckFailed, NotChecked
from patchforge.paths import quoted
from patchforge.proof.scenarios import Scenario

#: Module to pip package, where their names differ (what ``import comfy.model_management`` needs over all releases).
PACKAGES = {"PIL": "pillow", "yaml": "pyyaml", "comfy_kitchen": "comfy-kitchen", "comfy_aimdo": "comfy-aimdo"}


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

    lacks: Mapping[str, str] = field(default_factory=dict)  #: what the faked machine lacks, to what wanted it
    help: str = field(default="", compare=False)  #: the device that ``--help-gpu`` names

    def answer(self, question: str) -> str | None:
        """The answer to a question such as ``get_torch_device()``; None where it was not asked."""
        return next((item.answer for item in self.questions if item.text == question), None)

    @property
    def calls(self) -> int:
        """How many calls of faked functions are on record."""
        return len(self.import_calls) + sum(len(item.calls) for item in self.questions)


def packages(modules: Sequence[str]) -> str:
    """What pip calls them, for one line."""
    return " ".join(quoted(PACKAGES.get(name, name)) for name in modules)


def checked(raw: dict[str, Any], tree: Path, scenario: Scenario, python: str) -> Record:
    if "crash" in raw:
        raise CheckFailed(f"{scenario.name}: the probe of {tree} did not end", found=f"{raw['crash']}\n{raw['output']}")
    if raw["requires"]:
        modules = raw["requires"]
        raise NotChecked(
            f"the release cannot be asked: {python} lacks {', '.join(modules)}",
            expected="what the release imports",
            found=raw["import_error"] or "missing, and the release would go on without it",
            do=f"{quoted(python)} -m pip install {packages(modules)}",
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
        lacks=raw.get("lacks", {}),
        help=raw.get("help", ""),
    )


def _command_line(raw: dict[str, Any]) -> CommandLine:
    if "crash" in raw:
        return CommandLine(raw["line"], (), error=raw["crash"])
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return CommandLine(**plain)
