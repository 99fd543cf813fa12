"""Expressions of a stranger's file, evaluated on made-up machines without Python ever running them.

Names that are not known stand for themselves, and of Python's own values only plain data and harmless operations on it
exist. There is no way from an expression to a module, a frame, a class or the inside of an object of ours, and none to
a number or a text so large that it takes time or memory. What is not known here is NotEvaluable, which proves nothing.
"""

from __future__ import annotations

import ast
import re
import types
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from patchforge.effort import TooIntricate
from patchforge.proof.packs.attributes import attribute
from patchforge.proof.packs.expressions import Evaluator
from patchforge.proof.packs.file import PackFile
from patchforge.proof.packs.functions import builtins
from patchforge.proof.packs.helpers import helpers
from patchforge.proof.packs.limits import NotEvaluable
from patchforge.proof.packs.machines import World
from patchforge.proof.packs.values import TorchValue, Unknown, shown

_CLASS = re.compile(r"_*[A-Z]\w*[a-z]\w*")


@dataclass
class Observation:
    """What an evaluation gave."""

    value: object
    error: str
    calls: list[str]
    devices: list[str]
    asked: dict[str, None]  #: values whose truth was asked for, in order
    read: set[str]  #: attributes of unknown values, any of which may be missing
    names: dict[str, ast.Name]  #: names that were looked up, and where first

    def shown(self, *, truth: bool = False) -> str:
        """All that is compared, as text. ``truth``: whether the value holds, and which unknown values decided that."""
        holds = truth and bool(self.value)
        said = f"{holds} by {list(self.asked)}" if truth else shown(self.value)
        return f"{self.error or said} after {self.calls}"


class Truths(dict[str, bool]):
    """Which unknown values hold; one that is asked for the first time does not."""

    def __missing__(self, text: str) -> bool:
        self[text] = False
        return False


class Evaluation:
    """One evaluation on one made-up machine."""

    def __init__(self, file: PackFile, world: World, truths: Truths) -> None:
        self.file, self.world, self.truths = file, world, truths
        self.calls: list[str] = []
        self.asked: dict[str, None] = {}
        self.read: set[str] = set()
        self.looked_up: dict[str, ast.Name] = {}
        self.devices: list[str] = []
        self.torch = TorchValue(self)
        self.names = _Names(self)

    def is_no_object(self, owner: str, args: Sequence[object]) -> bool:
        """Whether what a method is called of may be a class, or a module, and its first argument the object."""
        if owner in self.file.imported or owner.startswith("type(") or owner.rpartition(".")[2] == "cls":
            return True
        given = shown(args[0]) if args and isinstance(args[0], Unknown) else ""
        like_a_class = _CLASS.fullmatch(owner.rpartition(".")[2]) and owner not in self.file.assigned
        return bool(given) and not given.startswith("torch.device(") and bool(like_a_class)

    def evaluate(self, node: ast.expr) -> Observation:
        """The value of an expression. NotEvaluable for what is not known here, TooIntricate for what takes too long."""
        value: object = None
        error = ""
        self.devices, self.calls, self.asked, self.read, self.looked_up = [], [], {}, set(), {}
        try:
            value = Evaluator(self).of(node, {})
            shown(value)
        except (NotEvaluable, TooIntricate):
            raise
        except (RecursionError, MemoryError):
            raise TooIntricate from None
        except Exception as problem:  # noqa: BLE001 - both sides must raise the same
            error = f"{type(problem).__name__}: {problem}"
        return Observation(value, error, self.calls, self.devices, self.asked, self.read, self.looked_up)


@lru_cache(maxsize=1)
def _helpers() -> types.CodeType:
    return compile("\n\n".join(helpers().values()), "<patchforge>", "exec")


class _OurGlobals(dict[str, Any]):
    """What our own functions see."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__()
        self.evaluation = evaluation
        theirs = {"isinstance": isinstance, "int": int, "str": str, "bool": bool, "object": object, "hasattr": hasattr}
        theirs |= {"dict": dict, "type": type, "zip": zip}
        self["__builtins__"] = {**theirs, "__import__": lambda *_args, **_more: evaluation.torch}


def _our_functions(evaluation: Evaluation) -> dict[str, Any]:
    names = _OurGlobals(evaluation)
    exec(_helpers(), names)  # noqa: S102 - from our own file
    return {name: names[name] for name in helpers()}


class _Names(dict[str, Any]):
    """Every name that an expression uses: torch, our functions, harmless builtins, else a value that is only itself."""

    def __init__(self, evaluation: Evaluation) -> None:
        super().__init__(_our_functions(evaluation))
        self.evaluation = evaluation
        self.harmless = builtins(evaluation)

    def __missing__(self, name: str) -> Any:
        if name in self.harmless:
            return self.harmless[name]
        evaluation, file = self.evaluation, self.evaluation.file
        if name in file.cuda_flags:
            return evaluation.world.cuda
        if name == "comfy":
            return Unknown(evaluation, name)
        head, *rest = file.aliases.get(name, name).split(".")
        value: Any = evaluation.torch if head == "torch" else Unknown(evaluation, head)
        for part in rest:
            value = attribute(value, part)
        return value
