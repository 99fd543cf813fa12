"""One place of a pack's file before and after: both evaluated, on every machine and in every way."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from patchforge import effort
from patchforge.effort import TooIntricate, spend
from patchforge.errors import CheckFailed
from patchforge.proof.packs.evaluation import Evaluation, Observation, Truths
from patchforge.proof.packs.file import PackFile
from patchforge.proof.packs.limits import NotEvaluable
from patchforge.proof.packs.machines import NO_CUDA, NOT_TAKEN, WORLDS, XPU, World
from patchforge.proof.reading import same

_MOST_WAYS = 256  #: in which unknown values may be true or false in one expression
#: What torch says on an XPU to what it has not there.
_REFUSED = (NO_CUDA, NOT_TAKEN, "module 'torch.xpu' has no attribute")
_MOST_STEPS = 400_000  #: for one expression, in all ways and worlds


class NotProved(CheckFailed):
    """One place of a file is not proved. ``old``: what stood there before; None for the file as a whole."""

    def __init__(self, path: str, line: int, problem: str, old: ast.expr | ast.stmt | None) -> None:
        self.old, self.reason = old, f"not proved: {problem[:400]}"
        super().__init__(f"{path}:{line}: {self.reason}")


class Equivalence:
    """Whether a place does the same. ``old``: what stood there before, which an error names."""

    def __init__(self, before: PackFile, after: PackFile, old: ast.expr | ast.stmt) -> None:
        self.before, self.after, self.old = before, after, old

    def holds(self, old: ast.expr, new: ast.expr, *, truth: bool) -> bool:
        """Whether the evaluation proves it; False where what it does is not known."""
        with self.bounded(new):
            try:
                self.unchanged(old, new, truth=truth)
                self.portable(old, new)
            except NotEvaluable:
                return False
        return True

    def unchanged(self, old: ast.expr, new: ast.expr, *, truth: bool) -> None:
        for world in WORLDS:
            for truths in self.ways(new):
                was, now = (
                    _observed(file, node, world, truths) for file, node in ((self.before, old), (self.after, new))
                )
                if was.shown(truth=truth) != now.shown(truth=truth):
                    raise self.refused(new, f"on {world.name}: {now.shown()} instead of {was.shown()}")
                if more := now.read - was.read:
                    raise self.refused(new, f"on {world.name}: it also reads {min(more)}, which need not be there")
                self.bound(now.names, was.names.keys(), new)

    def bound(self, names: Mapping[str, ast.Name], known: Collection[str], new: ast.AST) -> None:
        """NotProved for a name that is read where the old code does not, and that need not mean anything there."""
        for name, node in names.items():
            if name not in known and not self.after.scopes.may_read(node):
                raise self.refused(new, f"it reads {name}, which need not be bound there")

    def portable(self, old: ast.expr, new: ast.expr) -> None:
        read = _names(old)
        for smallest in _differing(old, new):
            for truths in self.ways(smallest):
                now = _observed(self.after, smallest, XPU, truths)
                self.bound(now.names, read, new)
                if any(said in now.error for said in _REFUSED):
                    raise self.refused(smallest, f"on an XPU: {now.error}")
                if now.devices:
                    raise self.refused(smallest, f"on an XPU: the device {now.devices[0]}")

    def arm(self, cuda: ast.If, arm: ast.If) -> None:
        """An arm behind CUDA's: never taken where CUDA's would be, nor without an XPU. NotProved for another."""
        with self.bounded(arm):
            for world in (*WORLDS, XPU):
                for truths in self.ways(arm):
                    asked, asking = (_observed(self.after, test, world, truths) for test in (cuda.test, arm.test))
                    self.bound(asking.names, _names(cuda.test) if world is XPU else asked.names.keys(), arm)
                    before, taken = (now.error == "" and bool(now.value) for now in (asked, asking))
                    if taken and not world.xpu:
                        raise self.refused(arm, f"an arm that is taken on {world.name}")
                    if taken and world.cuda and not before:
                        raise self.refused(arm, f"an arm that is taken on {world.name} where CUDA's is not")

    @contextmanager
    def bounded(self, node: ast.AST) -> Iterator[None]:
        """What takes too many steps, or does what is not known, is not proved."""
        try:
            with effort.at_most(_MOST_STEPS):
                yield
        except TooIntricate:
            spend()  # the file may have none left, either
            raise self.refused(node, "too intricate to be evaluated") from None

    def ways(self, node: ast.AST) -> Iterator[Truths]:
        """Every way in which the unknown values that ``node`` asks may be true or false; CheckFailed for too many."""
        open_: list[dict[str, bool]] = [{}]
        for _ in range(_MOST_WAYS):
            truths = Truths(open_.pop())
            known = dict(truths)
            yield truths
            for text in [asked for asked in truths if asked not in known]:
                open_.append({**known, text: True})
                known[text] = False
            if not open_:
                return
        raise self.refused(node, f"more than {_MOST_WAYS} ways through it")

    def refused(self, node: ast.AST, problem: str) -> NotProved:
        return NotProved(self.after.path, getattr(node, "lineno", 0), problem, self.old)


def _names(old: ast.expr) -> set[str]:
    """Names that an expression reads in some way or other: on an XPU more of it may be come to than before."""
    return {part.id for part in effort.walk(old) if isinstance(part, ast.Name)}


def _observed(file: PackFile, node: ast.expr, world: World, truths: Truths) -> Observation:
    return Evaluation(file, world, truths).evaluate(node)


def _differing(old: ast.expr, new: ast.expr) -> Iterator[ast.expr]:
    """The smallest expressions of ``new`` that are not as they were."""
    if same(old, new):
        return
    parts, twins = list(ast.iter_child_nodes(old)), list(ast.iter_child_nodes(new))
    splits = isinstance(new, (ast.BinOp, ast.BoolOp, ast.Tuple, ast.List, ast.UnaryOp, ast.IfExp))
    if not splits or type(old) is not type(new) or len(parts) != len(twins) or not all(map(_matches, parts, twins)):
        yield new
        return
    for part, twin in zip(parts, twins, strict=True):
        if isinstance(part, ast.expr) and isinstance(twin, ast.expr):
            yield from _differing(part, twin)


def _matches(part: ast.AST, twin: ast.AST) -> bool:
    """Whether two parts are expressions, or alike."""
    return (isinstance(part, ast.expr) and isinstance(twin, ast.expr)) or same(part, twin)
