"""The census: every place in a file that names a device, whatever rule may look at it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from patchforge.devices import CUDA_VARIABLE, about
from patchforge.effort import spend
from patchforge.engine.syntax import LONGEST_NAME, dotted
from patchforge.nodes import operators, other_names
from patchforge.nodes.code import Code
from patchforge.pattern import Kind, Site

#: The text prefilter: a file without any of these names no device.
NEEDLES = re.compile(other_names.NEEDLES + rb"|autocast_gpu|fork_rng")
#: What is only listed: a file without these either is not parsed, nor is one with these alone that nodes do not run.
LISTED = re.compile(rb"torch\.load|float64|\.double\b|" + operators.NEEDLES.pattern)

_DEVICE = re.compile(r"cuda(:.*)?$", re.DOTALL)
#: What the names of the table are called here; packs' own code for XPUs and ROCm is not a site.
_KINDS_OF_NAMES = {
    "cuda": Kind.API,
    "amp": Kind.AMP,
    "autocast": Kind.AMP,
    "backend": Kind.BACKEND,
    "build": Kind.BUILD,
}


def sites(code: Code, own_questions: frozenset[tuple[str, str]] = frozenset()) -> tuple[Site, ...]:
    """Every site of a file, in the order of the file. ``own_questions``: see ``PackFacts``."""
    places = [site for node in code.nodes if isinstance(node, ast.expr) for site in _sites(node, code)]
    places += _of_own_questions(code, own_questions) if own_questions else []
    return tuple(sorted(places, key=lambda site: (site.line, site.node.col_offset, site.kind, site.text)))


def _of_own_questions(code: Code, own_questions: frozenset[tuple[str, str]]) -> Iterator[Site]:
    """Calls of the pack's functions that only say whether CUDA is there: by name, or as a module's attribute."""
    asked = {name for module, name in own_questions if module == PurePosixPath(code.path).stem}
    functions: dict[str, list[str]] = {}
    for module, name in own_questions:
        functions.setdefault(module, []).append(name)
    for node in code.nodes:
        for alias in node.names if isinstance(node, (ast.Import, ast.ImportFrom)) else ():
            local, module = alias.asname or alias.name, getattr(node, "module", None) or ""
            asked |= {local} if (module.rpartition(".")[2], alias.name) in own_questions else set()
            names = functions.get(alias.name.rpartition(".")[2], [])
            spend(len(names))
            asked |= {f"{local}.{name}" for name in names}
    for node in code.nodes:
        if isinstance(node, ast.Call) and not node.args and not node.keywords and dotted(node.func) in asked:
            yield Site(
                node.func, Kind.OWN_QUESTION, dotted(node.func).rpartition(".")[2], node.lineno, code.function(node)
            )


_NAMED = (ast.Name, ast.Attribute, ast.Call, ast.Constant, ast.JoinedStr)
_FP64 = frozenset(("torch.float64", "torch.double"))


def _sites(node: ast.expr, code: Code) -> Iterator[Site]:
    if not isinstance(node, _NAMED):
        return
    for kind, text in _kinds(node, code):
        yield Site(node, kind, text, node.lineno, code.function(node))
    if isinstance(node, ast.Call):
        for value, text in other_names.of_keywords(node, of_torch=_leads_to_torch(node.func, code)):
            yield Site(value, _of_text(text), text, value.lineno, code.function(value))
        name = code.name(node.func) if _leads_to_torch(node.func, code) else ""
        if name and operators.operator(name, node):
            yield Site(node, Kind.OPERATOR, name, node.lineno, code.function(node))
        if name in ("torch.load", "torch.random.fork_rng"):
            given, kind = (("map_location",), Kind.LOAD) if name == "torch.load" else (("device_type",), Kind.API)
            if len(node.args) <= 1 and not any(keyword.arg in (*given, None) for keyword in node.keywords):
                yield Site(node, kind, name, node.lineno, code.function(node))
        elif _is_double(node):
            yield Site(node, Kind.FP64, ".double()", node.lineno, code.function(node))
    elif isinstance(node, (ast.Name, ast.Attribute)) and _leads_to_torch(node, code) and code.name(node) in _FP64:
        yield Site(node, Kind.FP64, code.name(node), node.lineno, code.function(node))


def _leads_to_torch(node: ast.expr, code: Code) -> bool:
    """Whether a dotted name begins with torch, or with a name that was imported from there."""
    for _ in range(LONGEST_NAME + 1):
        if not isinstance(node, ast.Attribute):
            return isinstance(node, ast.Name) and node.id in code.torchs
        node = node.value
    return False


def _is_double(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or node.args or node.keywords:
        return False
    return isinstance(node.func, ast.Attribute) and node.func.attr == "double"


def _kinds(node: ast.expr, code: Code) -> Iterator[tuple[Kind, str]]:
    if isinstance(node, (ast.Name, ast.Attribute)):
        if _leads_to_torch(node, code):
            yield from _api(node, code) if isinstance(node.ctx, ast.Load) else _set(node, code)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield from _asked(node, code)
        elif (
            isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and (text := other_names.of_name(node, code))
        ):
            yield Kind.OTHER, text
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
        if code.name(node.func) != "torch.cuda":
            yield Kind.METHOD, ".cuda()"
    elif isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        yield from _string(node, node.value, code)
    elif isinstance(node, ast.JoinedStr) and node.values:
        first, *rest = node.values
        if isinstance(first, ast.Constant) and re.match(r"cuda(:|$)", str(first.value)):
            yield Kind.LITERAL, "cuda:…"
        elif any(isinstance(part, ast.Constant) and re.fullmatch(r"cuda(:\d*)?", str(part.value)) for part in rest):
            yield Kind.LITERAL, "…cuda…"
        elif isinstance(first, ast.Constant) and (text := other_names.in_formatted(str(first.value))):
            yield Kind.OTHER, text


def _asked(node: ast.Attribute, code: Code) -> Iterator[tuple[Kind, str]]:
    """What is asked of a value that may be a tensor."""
    if node.attr == "is_cuda":
        yield Kind.IS_CUDA, ".is_cuda"
    elif node.attr == "cuda" and not _called(node, code.parent(node)):
        yield Kind.METHOD, ".cuda"
    elif text := other_names.of_object(node, code):
        yield Kind.OTHER, text


def _api(node: ast.Name | ast.Attribute, code: Code) -> Iterator[tuple[Kind, str]]:
    parent = code.parent(node)
    if isinstance(parent, ast.Attribute) and about(code.name(parent)) in _KINDS_OF_NAMES:
        return  # the whole chain is the site
    full = code.name(node)
    if kind := _KINDS_OF_NAMES.get(about(full)):
        yield (Kind.AVAILABLE if full == "torch.cuda.is_available" else kind), full
    elif isinstance(parent, ast.Attribute) and other_names.of_torch(code.name(parent)):
        return
    elif isinstance(node, ast.Attribute) and (asked := list(_asked(node, code))):
        yield from ((kind, full if kind is Kind.METHOD else text) for kind, text in asked)
    elif other := other_names.of_torch(full):
        yield Kind.OTHER, other


def _called(node: ast.Attribute, parent: ast.AST | None) -> bool:
    """Whether an attribute is called, which is a site by itself, or leads on to another."""
    return isinstance(parent, ast.Attribute) or (isinstance(parent, ast.Call) and parent.func is node)


def _set(node: ast.Name | ast.Attribute, code: Code) -> Iterator[tuple[Kind, str]]:
    """A flag of CUDA's libraries that is set, or what torch has for CUDA and a pack puts something else in place of."""
    full = code.name(node)
    if not isinstance(node, ast.Attribute):
        return
    if about(full) == "backend":
        yield Kind.BACKEND, full
    elif (
        about(full) in _KINDS_OF_NAMES
        or other_names.of_torch(full)
        or (full.startswith("torch.") and node.attr in ("cuda", "is_cuda"))
    ):
        yield Kind.REPLACED, full


def _string(node: ast.Constant, value: str | bytes, code: Code) -> Iterator[tuple[Kind, str]]:
    parent = code.parent(node)
    if isinstance(parent, (ast.Expr, ast.JoinedStr)):  # a docstring, or a part of a string that is looked at whole
        return
    if other := other_names.in_text(node, code):
        yield _of_text(other), other
    elif isinstance(value, bytes):
        return
    elif _DEVICE.match(value) and "\n" not in value and " " not in value:
        yield Kind.LITERAL, value
    elif value in ("CUDAExecutionProvider", "CUDA"):
        yield Kind.PROVIDER, value
    elif value in ("nccl", "NCCL"):
        yield Kind.DISTRIBUTED, value


def _of_text(text: str) -> Kind:
    return Kind.ENVIRONMENT if CUDA_VARIABLE.fullmatch(text) else Kind.OTHER
