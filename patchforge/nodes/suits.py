"""What stands behind a question for a device, and whether it suits every accelerator."""

from __future__ import annotations

import ast
import re

from patchforge.effort import walk
from patchforge.engine.syntax import last_name
from patchforge.nodes.code import Code
from patchforge.nodes.cuda_tests import Behind, Gate, harmless, says
from patchforge.nodes.shapes import body_of, device_of, for_any_gpu, kernels
from patchforge.pattern import Kind

#: What may be called beside a device's memory, whatever the device is.
_HOUSEKEEPING = frozenset(
    (
        *("empty_cache", "soft_empty_cache", "ipc_collect", "collect", "clear", "synchronize"),
        *("reset_peak_memory_stats", "set_device", "manual_seed", "manual_seed_all", "autocast"),
        *("cpu", "to", "cuda", "append", "info", "debug", "warning", "print", "log"),
    )
)
_LOOKS = frozenset(("list", "getattr", "len", "sorted", "items", "keys", "values", "get"))
_FREES = re.compile(r"offload|unload|clear|free|release|evict|empty|collect|clean|purge|to_cpu", re.IGNORECASE)
_SIZE = re.compile(r"(memory|mem|vram|model)_?(size|bytes)$|(?<![a-z])vram", re.IGNORECASE)


def refuses(body: list[ast.stmt]) -> bool:
    """Whether a branch ends in an error."""
    last = body[-1]
    return isinstance(last, ast.Raise) or (
        isinstance(last, ast.Assert) and isinstance(last.test, ast.Constant) and not last.test.value
    )


def tidies_up(gate: Gate, positive: bool, arms: Behind) -> bool:  # noqa: FBT001
    """Housekeeping that is converted throughout, or a move to the CPU."""
    if not positive or isinstance(gate, (ast.While, ast.Assert)):
        return False
    body = body_of(gate)
    done = bool(arms.converted) and not arms.open
    moved = any(map(harmless, body)) and all(harmless(part) or _notes(part) for part in body)
    return moved or (done and all(map(_tidies, body)))


def _notes(part: ast.AST) -> bool:
    """``changed = True``."""
    value = part.value if isinstance(part, ast.Assign) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, bool)


def _tidies(part: ast.AST) -> bool:
    if isinstance(part, ast.Pass) or harmless(part):
        return True
    if isinstance(part, ast.With):
        return all(_is_autocast(item.context_expr) for item in part.items)
    if isinstance(part, ast.If):
        return all(map(_tidies, (*part.body, *part.orelse)))
    value = part.value if isinstance(part, (ast.Expr, ast.Assign)) else None
    return isinstance(value, ast.Call) and last_name(value) in _HOUSEKEEPING


def suits(decided: tuple[Gate, bool], arms: Behind, asked: ast.expr, code: Code) -> bool:
    """Code whose every site is converted, where no other branch is meant for XPUs; or a device that is handed on."""
    gate, positive = decided
    if isinstance(gate, ast.IfExp):
        suits = _is_device(gate.body, arms, code) or _is_autocast(gate.body) or _asks_index(gate.body, asked)
        suits = suits or is_comfys(gate.body) or for_any_gpu(gate, code)
        if _is_nothing(gate.orelse) and arms.suits(code):
            return positive
        if _is_size(gate, code) or (positive and suits):
            return True
        return _keeps(gate.body, gate.orelse, asked, positive=positive)
    if not isinstance(gate, ast.If):
        return False
    if _makes_room(gate, arms, code, positive=positive) or (positive and _asks_comfy(gate.body)):
        return True
    if positive and (_hands_on(gate.body, asked) or (len(gate.body) == 1 and _asks_index(gate.body[0], asked))):
        return True
    if all(map(_is_index, gate.body)):
        return positive
    if (
        len(
            values := [statement.value for statement in (*gate.body, *gate.orelse) if isinstance(statement, ast.Assign)]
        )
        == 2
    ):
        each = len(gate.body) == len(gate.orelse) == 1
        if each and _keeps(values[0], values[1], asked, positive=positive):
            return True
    if positive and (all(map(_pins, gate.body)) or (len(gate.body) == 1 and _is_autocast(_value(gate.body[0])))):
        return not arms.open
    alone = (
        not positive
        or all(map(_tells, gate.orelse))
        or all(_is_device(statement, arms, code) for statement in gate.body)
    )
    return alone and arms.suits(code)


def _is_device(part: ast.AST, arms: Behind, code: Code) -> bool:
    """``return "cuda"``, ``device = torch.device("cuda")``, ``model.cuda()``, converted; or the expression alone.

    A list of ONNX Runtime's providers, one of which was converted, is one too.
    """
    if isinstance(part, (ast.Return, ast.Assign)) and part.value is not None:
        part = part.value
    if isinstance(part, (ast.List, ast.Tuple)):
        return any(site.kind is Kind.PROVIDER and site.node in part.elts for site in arms.converted)
    part = device_of(part, code) if isinstance(part, ast.expr) else part
    while isinstance(part, ast.BinOp):  # "cuda:%d" % index
        part = part.left
    return any(site.node is part for site in arms.converted)


def is_comfys(part: ast.AST) -> bool:
    """``device = get_torch_device()``: ComfyUI's own choice, which may be an XPU."""
    value = part.value if isinstance(part, (ast.Assign, ast.Return)) else part
    return isinstance(value, ast.Call) and last_name(value) == "get_torch_device"


def _asks_comfy(body: list[ast.stmt]) -> bool:
    """``device = mm.get_torch_device(); offload = mm.intermediate_device()``: ComfyUI's own choices alone."""
    names = [
        last_name(statement.value)
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)
        else ""
        for statement in body
    ]
    return "get_torch_device" in names and all(name.endswith("_device") for name in names)


def _makes_room(gate: ast.If, arms: Behind, code: Code, *, positive: bool) -> bool:
    """Memory is freed by the pack's own functions, by their names; or a function with such a name is left on a no."""
    if arms.open or kernels(arms.guarded, code):
        return False
    if not positive:
        nothing = [statement.value for statement in gate.body if isinstance(statement, ast.Return)]
        plain = all(value is None or isinstance(value, ast.Constant) for value in nothing)
        return len(nothing) == len(gate.body) and plain and bool(_FREES.search(code.function(gate).rpartition(".")[2]))
    calls = [node for part in gate.body for node in walk(part) if isinstance(node, ast.Call)]
    kept = all(_is_housework(part) for part in gate.body)
    return kept and not gate.orelse and any(_FREES.search(last_name(call)) for call in calls)


def _is_housework(part: ast.stmt) -> bool:
    """Messages and calls whose results are counted at most, under whatever loops and tests."""
    if isinstance(part, (ast.For, ast.If, ast.Try, ast.With)):
        inner = [*part.body, *getattr(part, "orelse", ()), *getattr(part, "finalbody", ())]
        inner += [statement for each in getattr(part, "handlers", ()) for statement in each.body]
        return all(map(_is_housework, inner))
    if isinstance(part, ast.Expr):
        return isinstance(part.value, (ast.Call, ast.Constant))
    if isinstance(part, ast.Assign):
        named = last_name(part.value) if isinstance(part.value, ast.Call) else ""
        return bool(_FREES.search(named) or named in _LOOKS) or isinstance(part.value, (ast.Name, ast.List))
    return isinstance(part, (ast.Pass, ast.Continue, ast.Import, ast.ImportFrom, ast.AugAssign, ast.Delete))


def _is_index(statement: ast.stmt) -> bool:
    """``options["device"] = 0``: to torch a number is a device of the accelerator that is there."""
    if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Constant):
        return False
    keys = [
        target.slice.value
        for target in statement.targets
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant)
    ]
    return keys == ["device"] and type(statement.value.value) is int and statement.value.value >= 0


def _asks_index(part: ast.AST, asked: ast.expr) -> bool:
    """``torch.device(x.get_device())`` behind ``x.is_cuda``: a tensor on an XPU tells its index just so."""
    value = part.value if isinstance(part, (ast.Return, ast.Assign)) else part
    if isinstance(value, ast.Call) and last_name(value) == "device" and len(value.args) == 1 and not value.keywords:
        value = value.args[0]
    if not (isinstance(asked, ast.Attribute) and isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute)):
        return False
    return last_name(value) == "get_device" and ast.dump(value.func.value) == ast.dump(asked.value)


def _is_nothing(value: ast.expr) -> bool:
    """0, None and the like: what is said where there is no device to ask."""
    return isinstance(value, ast.Constant) and not value.value


def _keeps(body: ast.expr, other: ast.expr, asked: ast.expr, *, positive: bool) -> bool:
    """``x.device if x.is_cuda else …``, ``x.clone() if x.is_cuda else x``, ``"cpu" if d.type != "cuda" else d``."""
    kept = body if positive else other
    subjects = {ast.dump(part) for part in ast.walk(asked) if isinstance(part, (ast.Name, ast.Attribute))}
    same = isinstance(kept, (ast.Name, ast.Attribute)) and ast.dump(kept) in subjects
    if positive:
        inner = kept.func if isinstance(kept, ast.Call) and last_name(kept) in ("clone", "contiguous") else kept
        same = isinstance(inner, ast.Attribute) and inner.attr in ("device", "clone", "contiguous")
        return same and isinstance(asked, ast.Attribute) and ast.dump(inner.value) == ast.dump(asked.value)  # type: ignore[attr-defined]
    cpu = body.args[0] if isinstance(body, ast.Call) and last_name(body) == "device" and len(body.args) == 1 else body
    return same and isinstance(cpu, ast.Constant) and cpu.value == "cpu"


def _is_size(gate: ast.IfExp, code: Code) -> bool:
    """``self.memory_size if … else 0``: what is on the card, by the pack's own account."""
    arms = sorted((gate.body, gate.orelse), key=lambda arm: isinstance(arm, ast.Constant))
    nothing = isinstance(arms[1], ast.Constant) and arms[1].value == 0
    return nothing and isinstance(arms[0], (ast.Name, ast.Attribute)) and bool(_SIZE.search(code.said(arms[0])))


def _pins(statement: ast.stmt) -> bool:
    """``x = x.pin_memory().to(device)``, which works on every accelerator."""
    return isinstance(statement, ast.Assign) and any(
        isinstance(part, ast.Call) and last_name(part) == "pin_memory" for part in walk(statement.value)
    )


def _tells(statement: ast.stmt) -> bool:
    """A message, or a text for one."""
    value = _value(statement)
    return says(statement) or (isinstance(value, (ast.Constant, ast.JoinedStr)) and isinstance(statement, ast.Assign))


def _value(statement: ast.stmt) -> ast.expr | None:
    return statement.value if isinstance(statement, (ast.Assign, ast.Return)) else None


def _is_autocast(part: ast.AST | None) -> bool:
    return isinstance(part, ast.Call) and last_name(part) == "autocast"


def _hands_on(body: list[ast.stmt], asked: ast.expr) -> bool:
    """The device that was asked about is only passed on."""
    name = asked.func.value if isinstance(asked, ast.Call) and isinstance(asked.func, ast.Attribute) else None
    if not isinstance(name, ast.Name):
        return False
    values = [
        statement.value if isinstance(statement, ast.Assign) else None for statement in body if not says(statement)
    ]
    plain = all(isinstance(value, (ast.Name, ast.Constant)) for value in values)
    return plain and any(isinstance(value, ast.Name) and value.id == name.id for value in values)
