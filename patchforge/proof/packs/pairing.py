"""The proof that a converted file does on CUDA what it did, and names no CUDA device beside an XPU.

It knows nothing of the rules, and reads both versions itself. Their syntax trees are walked side by side; where an
expression differs, both are evaluated with every unknown name standing for itself, in every way in which unknown values
may hold or not, on machines made up for the purpose:

* CUDA alone, CUDA beside an XPU, no accelerator: both give the same value, of the same type, raise the same, and call
  the same functions in the same order (``is_available`` may be asked more often);
* an XPU alone: the new expression calls nothing of ``torch.cuda`` that raises there, and passes no "cuda" device on.

What may be added is closed: our functions, behind the imports; ``name = _patchforge_choice(name)``; an arm that asks
for an XPU behind one that asks for CUDA; ``if not _patchforge_xpu():`` around a call. ``x.cuda(i)`` counts as
``x.to("cuda:i")``.
Two options change more, and the proof takes their word: ``get_torch_device`` counts as the CUDA device, and
``torch.load`` may read to the CPU where there is no CUDA.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from patchforge import effort
from patchforge.effort import spend
from patchforge.proof.packs.additions import is_addition, is_arm, skipped_on_xpu
from patchforge.proof.packs.equivalence import Equivalence, NotProved
from patchforge.proof.packs.file import PackFile
from patchforge.proof.packs.scopes import has_value, named_by
from patchforge.proof.reading import same, same_text


@dataclass
class Proved:
    """How much was looked at."""

    expressions: int = 0
    arms: int = 0


def prove(path: str, before: bytes, after: bytes) -> Proved:
    """NotProved where ``after`` may differ on CUDA, or names CUDA beside an XPU; CheckFailed for what is not Python."""
    walk = _walked(path, before, after)
    if walk.failures:
        raise walk.failures[0]
    return walk.proved


def failures(path: str, before: bytes, after: bytes) -> list[NotProved]:
    """All places that ``prove`` would refuse, at most one for each statement."""
    return _walked(path, before, after).failures


def _walked(path: str, before: bytes, after: bytes) -> _Pairing:
    walk = _Pairing(PackFile(path, before), PackFile(path, after))
    try:
        walk.bodies(walk.before.tree.body, walk.after.tree.body)
    except NotProved as error:
        walk.failures.append(error)
    except RecursionError:
        walk.failures.append(walk.refused(None, "nested too deeply"))
    return walk


class _Pairing:
    """Both trees side by side."""

    def __init__(self, before: PackFile, after: PackFile) -> None:
        self.before, self.after, self.proved = before, after, Proved()
        self.old: ast.expr | ast.stmt | None = None
        self.failures: list[NotProved] = []

    def bodies(self, old: Sequence[ast.stmt], new: Sequence[ast.stmt]) -> None:
        kept: list[ast.stmt] = []
        for statement in new:
            if is_addition(statement, old):
                self.addition(statement, old[: len(kept)], old[len(kept) :], top=new is self.after.tree.body)
            else:
                kept.append(statement)
        for statement, twin in zip_longest(old, kept):
            spend()
            if statement is None or twin is None:
                raise self.refused(statement or twin, "a statement more or less")
            if not same_text(self.before, statement, self.after, twin):
                self.old = statement
                self.noted(statement, twin)

    def addition(self, added: ast.stmt, above: Sequence[ast.stmt], below: Sequence[ast.stmt], *, top: bool) -> None:
        """Functions and imports are the module's; a name that is chosen anew has a value of its own there already."""
        if not isinstance(added, ast.Assign) or not isinstance(target := added.targets[0], ast.Name):
            if not top:
                raise self.refused(added, "an addition that is not the module's")
            return
        self.old = below[0] if below else self.old
        call = added.value.func if isinstance(added.value, ast.Call) else None
        if not isinstance(call, ast.Name) or not self.after.scopes.may_read(call):
            raise self.refused(added, "it reads what need not be bound there")
        if not below or not has_value(target.id, above, below[0], self.before.scopes):
            raise self.refused(added, f"it reads {target.id}, which need not have a value there")

    def noted(self, old: ast.stmt, new: ast.stmt) -> None:
        """What is refused of one statement is no reason not to look at the next."""
        try:
            self.statement(old, new)
        except NotProved as error:
            self.failures.append(error)

    def statement(self, old: ast.stmt, new: ast.stmt) -> None:
        if isinstance(old, ast.Expr) and (skipped := skipped_on_xpu(new)) is not None:
            self.expression(old.value, skipped)
            return
        if type(old) is not type(new):
            raise self.refused(new, "another statement")
        if isinstance(old, ast.If) and isinstance(new, ast.If):
            self.choice(old, new)
            return
        self.fields(old, new)

    def choice(self, old: ast.If, new: ast.If) -> None:
        self.expression(old.test, new.test, truth=True)
        self.bodies(old.body, new.body)
        rest = new.orelse
        if is_arm(rest, old.orelse) and isinstance(arm := rest[0], ast.If):
            self.arm(old, arm)
            rest = arm.orelse
        self.bodies(old.orelse, rest)

    def arm(self, cuda: ast.If, arm: ast.If) -> None:
        """An arm behind CUDA's: never taken where CUDA's would be, nor without an XPU; and it names no CUDA."""
        self.proved.arms += 1
        self.old = cuda
        Equivalence(self.before, self.after, cuda).arm(cuda, arm)
        known = _names(cuda)
        for statement in arm.body:
            for node in effort.walk(statement):
                read = (
                    isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and self.after.scopes.may_read(node)
                )
                if new := [name for name in named_by(node) if not read and name not in known]:
                    raise self.refused(statement, f"an arm names {new[0]}, which need not be bound there")
                if isinstance(node, ast.expr) and (self.after.name(node).startswith("torch.cuda") or _names_cuda(node)):
                    raise self.refused(statement, "CUDA in an arm for XPUs")

    def fields(self, old: ast.AST, new: ast.AST) -> None:
        for name in old._fields:
            part, twin = getattr(old, name, None), getattr(new, name, None)
            if not isinstance(part, list) or not isinstance(twin, list):
                self.parts(part, twin, new)
            elif part and isinstance(part[0], ast.stmt):
                self.bodies(part, twin)
            else:
                self.lists(part, twin, new)

    def lists(self, parts: Sequence[Any], twins: Sequence[Any], near: ast.AST) -> None:
        if len(parts) != len(twins):
            raise self.refused(near, "a part more or less")
        for part, twin in zip(parts, twins, strict=True):
            self.parts(part, twin, near)

    def parts(self, part: object, twin: object, near: ast.AST) -> None:
        if isinstance(part, ast.expr) and isinstance(twin, ast.expr):
            self.expression(part, twin, truth=isinstance(near, (ast.While, ast.Assert)))
        elif isinstance(part, ast.AST) and isinstance(twin, ast.AST) and type(part) is type(twin):
            self.fields(part, twin)
        elif isinstance(part, ast.AST) or isinstance(twin, ast.AST) or part != twin:
            raise self.refused(near, "another part")

    def expression(self, old: ast.expr, new: ast.expr, *, truth: bool = False) -> None:
        """``truth``: only whether it holds matters."""
        if same(old, new):
            return
        self.old = old
        if any(map(_cuts, effort.walk(new))) and not any(map(_cuts, effort.walk(old))):
            raise self.refused(new, "on an XPU: its name is compared with a part that is as long as CUDA's")
        both = Equivalence(self.before, self.after, old)
        if _evaluable(old) and _evaluable(new) and both.holds(old, new, truth=truth):
            self.proved.expressions += 1
        elif type(old) is type(new):
            self.fields(old, new)
        else:
            raise self.refused(new, "an expression that cannot be evaluated apart")

    def refused(self, node: ast.AST | None, problem: str) -> NotProved:
        return NotProved(self.after.path, getattr(node, "lineno", 0), problem, self.old)


def _names(old: ast.If) -> set[str]:
    """The names that an ``if`` reads or binds."""
    return {name for node in effort.walk(old) for name in named_by(node)}


def _cuts(node: ast.AST) -> bool:
    """``device[:4] == _patchforge_device()``."""
    operands = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
    parts = [isinstance(each, ast.Subscript) and isinstance(each.slice, ast.Slice) for each in operands]
    return any(parts) and any(_names_xpu(each) for each, part in zip(operands, parts, strict=True) if not part)


def _names_xpu(node: ast.expr) -> bool:
    if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
        return any(map(_names_xpu, node.elts))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "_patchforge_device"
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("xpu")


def _names_cuda(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


def _evaluable(node: ast.expr) -> bool:
    """No suspension, no binding, and no way to Python's own insides."""
    return not isinstance(node, ast.Starred) and not any(map(_is_closed, effort.walk(node)))


def _is_closed(part: ast.AST) -> bool:
    name = part.attr if isinstance(part, ast.Attribute) else part.id if isinstance(part, ast.Name) else ""
    hidden = name.startswith("__") or (name == "super" and isinstance(part, ast.Name))
    return hidden or isinstance(part, (ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr))
