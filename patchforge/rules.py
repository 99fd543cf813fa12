"""What every rule is, whatever it changes, and how rules are found and put in order.

A rule is one file with one class. Its two kinds are ``transform.Transform`` (a known place of a release) and
``pattern.Pattern`` (the sites of any node pack).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

from patchforge.errors import Damaged, PatchforgeError

if TYPE_CHECKING:
    from patchforge.pattern import Pattern
    from patchforge.transform import Transform


class Rule:
    """Base of all rules. The class docstring says why the gap matters."""

    id: ClassVar[str]  #: its name, that of its file
    aliases: ClassVar[tuple[str, ...]] = ()  #: what it was called before
    title: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()  #: rules that come before it, by their names; "*": all that do not say so


AnyRule = TypeVar("AnyRule", bound=Rule)


class Discovered(NamedTuple, Generic[AnyRule]):
    """The rules of one kind, in order, and what is wrong with files that cannot be loaded."""

    rules: tuple[AnyRule, ...]
    faults: tuple[Damaged, ...]

    def whole(self) -> tuple[AnyRule, ...]:
        """The rules. Damaged where one of them cannot be loaded: without it another patch would come out."""
        if self.faults:
            raise self.faults[0]
        return self.rules


def transforms() -> tuple[Transform, ...]:
    """Every transform of ComfyUI's releases, in order. Damaged where one cannot be loaded."""
    return all_transforms().whole()


def patterns() -> tuple[Pattern, ...]:
    """Every pattern of node packs, in the order in which they see a site. Damaged where one cannot be loaded."""
    return all_patterns().whole()


@cache
def all_transforms() -> Discovered[Transform]:
    """The transforms, and the files of such that cannot be loaded."""
    from patchforge.transform import Transform  # noqa: PLC0415 - libcst is slow to import
    from patchforge.transforms import comfyui  # noqa: PLC0415

    return discover(comfyui, Transform)


@cache
def all_patterns() -> Discovered[Pattern]:
    """The patterns, and the files of such that cannot be loaded."""
    from patchforge.pattern import Pattern  # noqa: PLC0415 - the other kind needs none of it
    from patchforge.transforms import nodes  # noqa: PLC0415

    return discover(nodes, Pattern)


def discover(package: ModuleType, kind: type[AnyRule]) -> Discovered[AnyRule]:
    """The rules of one kind in the files of a folder, each after those that it comes after, else by name."""
    faults: dict[str, Damaged] = {}
    for module in pkgutil.iter_modules(package.__path__):
        name = f"{package.__name__}.{module.name}"
        try:
            importlib.import_module(name)
        except (PatchforgeError, OSError, MemoryError, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001 - a rule is code, and whatever is wrong with it is told as its fault
            faults[name] = _fault(Path(package.__path__[0], f"{module.name}.py"), error)
    ours = (rule for rule in _below(kind) if rule.__module__.startswith(f"{package.__name__}."))
    return Discovered(in_order(rule() for rule in ours if rule.__module__ not in faults), tuple(faults.values()))


def _fault(file: Path, error: Exception) -> Damaged:
    """What is wrong with the file of a rule, with the line of it that was run last."""
    line = error.lineno if isinstance(error, SyntaxError) and error.filename == str(file) else None
    trace = error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == str(file) else line
        trace = trace.tb_next
    place = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return Damaged(
        f"{place}{f':{line}' if line else ''}: this rule cannot be loaded",
        expected="a file with one rule, and an import of each name that it uses",
        found=f"{type(error).__name__}: {said}",
        do="correct the file, or move it away",
    )


def _below(kind: type[AnyRule]) -> set[type[AnyRule]]:
    return {rule for direct in kind.__subclasses__() for rule in (direct, *_below(direct)) if hasattr(rule, "id")}


def in_order(rules: Iterable[AnyRule]) -> tuple[AnyRule, ...]:
    """Rules in the order of ``after``, else by name. CycleError, a ValueError, for a circle."""
    known = {rule.id: rule for rule in rules}
    early = {name for name, rule in known.items() if "*" not in rule.after}
    graph = TopologicalSorter(
        {name: {*rule.after} & known.keys() | (set() if name in early else early) for name, rule in known.items()}
    )
    graph.prepare()
    ordered: list[AnyRule] = []
    while graph.is_active():
        ready = sorted(graph.get_ready())
        ordered += [known[name] for name in ready]
        graph.done(*ready)
    return tuple(ordered)


def current(name: str, rules: Sequence[Rule]) -> str:
    """The name of today for one that a document of an earlier version may have."""
    rule = named(name, rules)
    return rule.id if rule else name


def named(name: str, rules: Sequence[AnyRule]) -> AnyRule | None:
    """The rule with a name, or that was called so before; capitals do not matter."""
    wanted = name.lower()
    by_alias = (rule for rule in rules if wanted in map(str.lower, rule.aliases))
    return next((rule for rule in rules if rule.id == wanted), None) or next(by_alias, None)
