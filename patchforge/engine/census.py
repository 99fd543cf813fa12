"""The census: every place that names a device, so that completeness is a number and not a feeling.

It works on ``ast``, apart from the transforms, so that a site which no transform looks at is seen all the same.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from patchforge.devices import DEVICE_TEST, DEVICE_VARIABLE, IPEX, KITCHEN_TEST, XPU_TESTS, about, asks_vendor
from patchforge.effort import spend, walk
from patchforge.engine.blocks import SourceFile, UnreadableSource
from patchforge.engine.records import RawSite
from patchforge.engine.syntax import DEFINITIONS, dotted, last_name, resolved

NEEDLES = re.compile(
    rb"cuda|cudnn|version\.hip|xpu|ipex|is_nvidia|is_amd|OOM_EXCEPTION|ONEAPI|_VISIBLE_DEVICES"
    rb"|pin_memory|is_device_|_is_available"
)
#: The kind of an XPU arm that only says no: not everything that upstream writes for XPUs is support.
REFUSAL = "xpu-refusal"

#: What the names of the table are called here.
_KINDS = {
    "cuda": "cuda-api",
    "amp": "cuda-api",
    "xpu": "xpu-api",
    "backend": "cuda-backend",
    "build": "build-test",
    "rocm": "build-test",
}


def device_sites(source: SourceFile, memo: dict[tuple[object, ...], Any]) -> tuple[RawSite, ...]:
    """Every site of a file in line order. ``memo`` remembers top-level statements by their bytes."""
    if source.tree is None:
        raise UnreadableSource("a syntax that this Python does not know", 1)
    aliases = tuple(sorted(source.aliases.items()))
    hidden = tuple(
        name.encode() for name, full in aliases if NEEDLES.search(full.encode()) and not NEEDLES.search(name.encode())
    )
    all_sites: list[RawSite] = []
    for node in source.tree.body:
        start, end = node.lineno - 1, node.end_lineno or node.lineno
        text = b"".join(source.lines[start:end])
        if not NEEDLES.search(text) and not any(name in text for name in hidden):
            continue
        if (text, aliases) not in memo:
            sites: set[RawSite] = set()
            _Walk(source.aliases, sites).node(node, "<module>", "")
            memo[text, aliases] = [replace(site, line=site.line - start) for site in sites]
        all_sites += [replace(site, line=site.line + start) for site in memo[text, aliases]]
    return tuple(sorted(all_sites, key=lambda site: (site.line, site.kind, site.text)))


class _Walk:
    def __init__(self, aliases: dict[str, str], sites: set[RawSite]) -> None:
        self.aliases, self.sites = aliases, sites

    def statements(self, body: Sequence[ast.stmt], function: str, guard: str) -> None:
        """A statement list; an XPU arm that returns makes all that follows stand beside it."""
        for index, node in enumerate(body):
            if index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            self.node(node, function, guard)
            if isinstance(node, ast.If) and not node.orelse and _leaves(node.body):
                test = node.test
                inverted = _is_not(test)
                kind = self.kind_of_test(test)
                if kind == "xpu" and not inverted:
                    guard = guard or "beside-xpu"
                elif kind == "vendor" and inverted:
                    guard = guard or "vendor"

    def node(self, node: ast.AST, function: str, guard: str) -> None:
        spend(4)
        if isinstance(node, ast.If):
            self.chain(node, function, guard)
            return
        if isinstance(node, DEFINITIONS):
            arguments = () if isinstance(node, ast.ClassDef) else (node.args,)
            for part in (*node.decorator_list, *getattr(node, "bases", ()), *arguments):
                self.node(part, function, guard)
            self.statements(node.body, node.name if function == "<module>" else f"{function}.{node.name}", guard)
            return
        self.site(node, function, guard)
        if isinstance(node, ast.Attribute) and self.dotted(node):
            return
        for name, value in ast.iter_fields(node):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                self.statements(value, function, guard)
            else:
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, ast.AST) and name != "ctx":
                        self.node(child, function, guard)

    def chain(self, node: ast.If, function: str, guard: str) -> None:
        """An ``if`` with its ``elif`` arms: whether one of them is XPU's tells how to read the others."""
        arms: list[ast.If] = [node]
        while len(arms[-1].orelse) == 1 and isinstance(arms[-1].orelse[0], ast.If):
            arms.append(arms[-1].orelse[0])
        kinds = [self.kind_of_test(arm.test) for arm in arms]
        beside = "beside-xpu" if "xpu" in kinds else ""
        for arm, kind in zip(arms, kinds, strict=True):
            if kind == "xpu" and not guard and not _is_not(arm.test):
                self.refusals(arm.body, function)
            self.node(arm.test, function, guard or (beside if kind != "xpu" else ""))
            self.statements(arm.body, function, guard or ("xpu" if kind == "xpu" else beside or kind))
        self.statements(arms[-1].orelse, function, guard or beside)

    def refusals(self, body: Sequence[ast.stmt], function: str) -> None:
        """Statements by which an XPU arm answers no, or ends early with nothing."""
        for node in body:
            if isinstance(node, ast.Return) and (node.value is None or _is_nothing(node.value)):
                text = "return" if node.value is None else f"return {ast.unparse(node.value)}"
                self.sites.add(RawSite(node.lineno, function, REFUSAL, text, "xpu"))

    def kind_of_test(self, test: ast.expr) -> str:
        """Whether a test asks for an XPU, for another vendor, or for neither."""
        names = {text for child in walk(test) for text in self.words(child)}
        if names & XPU_TESTS or "xpu" in names or any(name.startswith("torch.xpu") for name in names):
            return "xpu"
        vendor = (
            any(map(asks_vendor, names))
            or names & {"cuda", "is_cuda"}
            or any(name.startswith(("torch.cuda", "torch.version.")) for name in names)
        )
        return "vendor" if vendor else ""

    def words(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, (ast.Name, ast.Attribute)):
            full = self.dotted(node)
            yield full
            yield full.rpartition(".")[2]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value

    def dotted(self, node: ast.AST) -> str:
        return resolved(dotted(node), self.aliases)

    def site(self, node: ast.AST, function: str, guard: str) -> None:
        for kind, text in self.kinds(node):
            self.sites.add(RawSite(getattr(node, "lineno", 0), function, kind, text, guard))

    def kinds(self, node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, (ast.Name, ast.Attribute)):
            full = self.dotted(node)
            last = full.rpartition(".")[2]
            if kind := _KINDS.get(about(full)):
                yield kind, full
            if last == "OOM_EXCEPTION" and isinstance(node.ctx, ast.Load):
                yield "oom-type", last
            if full.partition(".")[0] in IPEX:
                yield "ipex", full
            if isinstance(node, ast.Attribute) and last == "is_cuda":
                yield "cuda-test", ".is_cuda"
        elif isinstance(node, ast.Call):
            yield from _called(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value in ("cuda", "xpu") or node.value.startswith(("cuda:", "xpu:")):
                yield "device-string", node.value
            elif DEVICE_VARIABLE.fullmatch(node.value):
                yield "environment", node.value
        elif isinstance(node, ast.keyword) and node.arg == "pin_memory" and not _is_nothing(node.value):
            yield "pinning", "pin_memory="


def _called(node: ast.Call) -> Iterator[tuple[str, str]]:
    last = last_name(node)
    if last in XPU_TESTS:
        yield "xpu-test", last
    elif asks_vendor(last):
        yield "vendor-test", last
    elif DEVICE_TEST.fullmatch(last):
        yield "device-test", last
    elif KITCHEN_TEST.fullmatch(last):
        yield "kitchen-test", last
    elif last == "cuda" and isinstance(node.func, ast.Attribute):
        yield "cuda-method", ".cuda()"


def _is_not(test: ast.expr) -> bool:
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _is_nothing(value: ast.expr) -> bool:
    """False, None, 0, "" or an empty container, as it is written."""
    if isinstance(value, ast.Constant):
        return not value.value
    return isinstance(value, (ast.List, ast.Tuple)) and not value.elts


def _leaves(body: Sequence[ast.stmt]) -> bool:
    last = body[-1]
    if isinstance(last, ast.If):
        return bool(last.orelse) and _leaves(last.body) and _leaves(last.orelse)
    return isinstance(last, (ast.Return, ast.Raise, ast.Continue, ast.Break))
