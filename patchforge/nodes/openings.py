"""What a call of ``torch.cuda`` opens to an XPU: by its value, or by raising, it asks for CUDA like ``is_available``.

``if torch.cuda.device_count() > 0``, ``try: torch.cuda.init(); return True``, ``name() != "CPU"``: where such a call is
answered on an XPU, code runs there that did not before. It is found here, through names, attributes and functions of
the file, and judged as what stands behind ``is_available``: the call is converted with it, or not at all.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from patchforge.effort import spend, walk
from patchforge.engine.syntax import FUNCTIONS, last_name
from patchforge.nodes.code import Code, between
from patchforge.nodes.cuda_tests import (
    asks,
    decisions,
    following,
    given_parameter,
    guarded,
    holds_for_none,
    only_definition,
    says,
)
from patchforge.nodes.known import PACKAGES, RAISING, TWINS
from patchforge.nodes.shapes import KERNELS, api, below, body_of, call_of, keyword_of, leaves, only_cuda
from patchforge.pattern import Kind, Site, Verdict, left, person
from patchforge.vocabulary import Decision

#: Whose answer says whether a device is there; others tell how much of something it has.
_PRESENT = frozenset(("device_count", "is_initialized", "current_device", "init"))
_COUNTED = frozenset(("device_count", "is_initialized"))
#: Calls whose value is no more than what they are given says.
_CLEAR = frozenset(
    (
        *("bool", "int", "float", "str", "len", "min", "max", "abs", "round", "sum", "any", "all"),
        *("range", "list", "tuple", "sorted", "reversed", "enumerate", "set"),
    )
)
_CATCHES = frozenset(("Exception", "BaseException", "RuntimeError", "AssertionError", "AttributeError"))
_CUDA = re.compile(r"cuda", re.IGNORECASE)
_MAKES = re.compile(r"cpp_extension|pycuda|pynvml|nvidia", re.IGNORECASE)
#: Packages that are for CUDA, and have nothing for XPUs.
_PACKAGES = frozenset(
    package.module
    for package in PACKAGES
    if package.kernels or ((package.needed or package.source) and not package.devices and "intel" not in package.module)
)
_Trying = ast.Try | ast.With
Elsewhere = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class How:
    """How a value is followed. ``strict``: where it is lost, that counts. ``yes``: whether it holds with CUDA alone."""

    strict: bool = False
    yes: bool | None = None  #: None where that is not known


class Opened:
    """What a call opens. ``lost``: its answer goes where nobody follows it."""

    def __init__(self, code: Code, elsewhere: Elsewhere, *, present: bool, said: tuple[type, ...] = (object,)) -> None:
        self.said = said  #: types of constants that say that a block ran
        self.code, self.elsewhere, self.present = code, elsewhere, present
        self.near: list[list[ast.AST]] = []  #: arms of tests and loops, what is tried
        self.far: list[list[ast.AST]] = []  #: what follows a way out
        self.lost = False
        self._seen: set[object] = set()

    @property
    def asks(self) -> bool:
        """Whether anything depends on the answer."""
        return bool(self.near or self.far) or self.lost

    def inside(self, sites: Sequence[Site]) -> list[Site]:
        """The sites in what is opened. ``sites``: all of the file."""
        blocks = (*self.near, *self.far)
        return list(
            dict.fromkeys(place for block in blocks for part in block for place in below(part, sites, self.code))
        )

    def follow(self, call: ast.expr, name: str) -> None:
        """What comes of a call, by its value and by whether it raises."""
        self.value(call, How(name in _COUNTED, True if name in _COUNTED else None))
        if name in RAISING:
            self.tried(call)

    def tried(self, asked: ast.AST, *, open_: bool = True) -> None:
        """What runs only where a try, or a ``suppress``, goes on behind a place; else what is said there of that."""
        for parent, child in self.code.above(asked):
            if isinstance(parent, (*FUNCTIONS, ast.Lambda, ast.ClassDef)) or self._guards(parent, child):
                return
            if self._catches(parent, child) and isinstance(parent, (ast.Try, ast.With)):
                self._behind(asked, parent, open_=open_)

    def _guards(self, parent: ast.AST, child: ast.AST) -> bool:
        """Whether a place is only come to where something else has asked for CUDA: then nothing is tried there."""
        return (
            isinstance(parent, (ast.If, ast.IfExp))
            and child is not parent.test
            and self.code.mentions([parent.test], _CUDA)
        )

    def _catches(self, parent: ast.AST, child: ast.AST) -> bool:
        if isinstance(parent, ast.With):
            calls = [item.context_expr for item in parent.items]
            return any(isinstance(call, ast.Call) and last_name(call) == "suppress" for call in calls)
        return isinstance(parent, ast.Try) and child in parent.body and any(map(_is_way_on, parent.handlers))

    def _behind(self, asked: ast.AST, trying: _Trying, *, open_: bool) -> None:
        seen, present, self.present = len(self._seen), self.present, True
        child: ast.AST = self.code.statement(asked)
        self.leaves([child])
        while child is not trying:
            parent = self.code.parent(child)
            if parent is None:
                break
            if isinstance(child, ast.stmt) and (rest := following(child, self.code)):
                self._opens(rest, open_=open_)
            child = parent
        if isinstance(trying, ast.Try):
            self._opens(trying.orelse, open_=open_)
            ways = [handler for handler in trying.handlers if _is_way_on(handler)]
            if open_ and all(leaves(handler.body) for handler in ways) and (rest := following(trying, self.code)):
                self.far.append(list(rest))
        self.present = present or len(self._seen) > seen  # something says that it ran

    def _opens(self, block: Sequence[ast.AST], *, open_: bool = True) -> None:
        if block and open_:
            self.near.append(list(block))
        self.leaves(block)

    def leaves(self, block: Iterable[ast.AST]) -> None:
        """Follows the constants that a block puts into names, or answers with: they say that it ran."""
        for part in block:
            for node in walk(part):
                value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign, ast.Return)) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, self.said) and not _says_nothing(value):
                    text = isinstance(value.value, str)
                    self.value(value, How(self.present and not text, None if text else bool(value.value)))

    def value(self, node: ast.expr, how: How) -> None:
        """Follows a value to the tests that it decides."""
        if node in self._seen:
            return
        self._seen.add(node)
        for parent, child in self.code.above(node):
            spend()
            if (on := self._climbs(parent, child, how)) is None:
                return
            how = on

    def _climbs(self, parent: ast.AST, child: ast.AST, how: How) -> How | None:
        """How what is around is followed; None where it is the value no more, and what it decides there is noted."""
        if isinstance(parent, ast.Compare):
            named = any(map(_names_cuda, (parent.left, *parent.comparators)))
            return None if named else replace(how, yes=_holds(parent, child) if how.yes else None)
        if isinstance(parent, (ast.If, ast.While, ast.IfExp, ast.Assert)) and child is parent.test:
            self._gate(parent, how)
            return How() if isinstance(parent, ast.IfExp) else None
        if isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.Not):
            return replace(how, yes=None if how.yes is None else not how.yes)
        if isinstance(parent, ast.BoolOp):
            self._opens(parent.values[parent.values.index(child) + 1 :] if isinstance(child, ast.expr) else [])
            return how
        return how if self._goes_on(parent, child, how) else None

    def _goes_on(self, parent: ast.AST, child: ast.AST, how: How) -> bool:
        if isinstance(parent, (ast.For, ast.AsyncFor)):
            self._opens(parent.body if child is parent.iter else [])
            return False
        if isinstance(parent, ast.comprehension):
            return self._loop(parent)
        if isinstance(parent, ast.Match):
            for case in parent.cases:
                self._opens(case.body)
            return False
        if isinstance(parent, ast.Call):
            return self._handed(parent, child, how)
        if isinstance(parent, (ast.Attribute, ast.Subscript)):
            return child is parent.value
        return self._kept(parent, child, how)

    def _kept(self, parent: ast.AST, child: ast.AST, how: How) -> bool:
        if isinstance(parent, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
            targets = parent.targets if isinstance(parent, ast.Assign) else [parent.target]
            for target in targets:
                for part in target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]:
                    self._name(part, how)
            return isinstance(parent, ast.NamedExpr)
        if isinstance(parent, ast.Return):
            if isinstance(scope := self.code.scope(parent), FUNCTIONS):
                self._answer(scope, how)
            return False
        if isinstance(parent, ast.Lambda):
            self.lost = self.lost or how.strict
            return False
        if isinstance(parent, ast.arguments):
            self._default(parent, child)
            return False
        return isinstance(parent, (ast.UnaryOp, ast.BinOp, ast.IfExp, ast.Starred, ast.Tuple))

    def _gate(self, gate: ast.If | ast.While | ast.IfExp | ast.Assert, how: How) -> None:
        body = body_of(gate) if not isinstance(gate, ast.Assert) else []
        rest = getattr(gate, "orelse", [])
        other = rest if isinstance(rest, list) else [rest]
        if how.yes is not False:
            self._opens(body)
        if how.yes is not True:
            self._opens(other)
        out = (how.yes is not True and _leaves(body)) or (how.yes is not False and _leaves(other))
        if (
            isinstance(gate, ast.stmt)
            and (out or isinstance(gate, ast.Assert))
            and (rest := following(gate, self.code))
        ):
            self.far.append(list(rest))

    def _loop(self, loop: ast.comprehension) -> bool:
        """``[… for i in range(n)]``: its elements are there where something is counted."""
        around = self.code.parent(loop)
        self._opens([part for part in (getattr(around, name, None) for name in ("elt", "key", "value")) if part])
        return False

    def _handed(self, call: ast.Call, child: ast.AST, how: How) -> bool:
        if child is call.func:
            return True  # a method of the value
        if isinstance(call.func, ast.Name) and call.func.id in _CLEAR:
            return True
        if isinstance(child, ast.expr):
            keyword, _ = keyword_of(child, self.code)
            function = only_definition(last_name(call), self.code)
            if function is not None and (name := given_parameter(function, call, keyword, child)):
                self._reads(name, function, how)
        return False

    def _name(self, target: ast.expr, how: How) -> None:
        if isinstance(target, ast.Attribute):
            self._attribute(target.attr, how)
        elif isinstance(target, ast.Name):
            scope = self.code.scope(target)
            if any(isinstance(parent, ast.ClassDef) for parent, _ in self._within(target, scope)):
                self._attribute(target.id, how)
                return
            declared = any(
                isinstance(node, (ast.Global, ast.Nonlocal)) and target.id in node.names for node in walk(scope)
            )
            self._reads(target.id, self.code.tree if declared else scope, how)

    def _within(self, node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
        for parent, child in self.code.above(node):
            if parent is scope:
                return
            yield parent, child

    def _reads(self, name: str, scope: ast.AST, how: How) -> None:
        if (scope, name) in self._seen:
            return
        self._seen.add((scope, name))
        if scope is self.code.tree and how.strict and self.elsewhere(name, self.code.path):
            self.lost = True
        for use in self.code.named(name, scope):
            if isinstance(use.ctx, ast.Load):
                self.value(use, how)

    def _attribute(self, name: str, how: How) -> None:
        if (None, name) in self._seen:
            return
        self._seen.add((None, name))
        if how.strict and self.elsewhere(name, self.code.path):
            self.lost = True
        for node in self.code.attributes(name):
            if isinstance(node.ctx, ast.Load):
                self.value(node, how)

    def _answer(self, function: ast.FunctionDef | ast.AsyncFunctionDef, how: How) -> None:
        if (None, function) in self._seen:
            return
        self._seen.add((None, function))
        if any(last_mark(mark) in ("property", "cached_property") for mark in function.decorator_list):
            self._attribute(function.name, how)
            return
        if how.strict and self.elsewhere(function.name, self.code.path):
            self.lost = True
        calls = self.code.once("calls by name", lambda: _calls(self.code)).get(function.name, ())
        spend(1 + len(calls))
        for call in calls:
            self.value(call, how)

    def _default(self, arguments: ast.arguments, child: ast.AST) -> None:
        function, name = self.code.parent(arguments), self.code.parameter(child)
        if function is not None and name:
            self._reads(name, function, How())


def last_mark(mark: ast.expr) -> str:
    """``cached_property`` of ``functools.cached_property``, called or not."""
    return getattr(mark.func if isinstance(mark, ast.Call) else mark, "attr", getattr(mark, "id", ""))


def _calls(code: Code) -> dict[str, list[ast.Call]]:
    calls: dict[str, list[ast.Call]] = {}
    for node in code.nodes:
        if isinstance(node, ast.Call):
            calls.setdefault(last_name(node), []).append(node)
    return calls


def _leaves(block: Sequence[ast.AST]) -> bool:
    return leaves([part for part in block if isinstance(part, ast.stmt)])


def _is_way_on(handler: ast.ExceptHandler) -> bool:
    """Whether a handler takes what a call raises without CUDA, and goes on."""
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    names = [getattr(each, "attr", getattr(each, "id", "")) for each in types if each is not None]
    return (not names or not _CATCHES.isdisjoint(names)) and not isinstance(handler.body[-1], ast.Raise)


def _holds(compare: ast.Compare, asked: ast.AST) -> bool | None:
    """Whether a comparison with a number holds where there is a device; None where that is not known."""
    other = compare.comparators[0]
    if compare.left is not asked or len(compare.ops) != 1 or not isinstance(other, ast.Constant):
        return None
    return not holds_for_none(compare) if isinstance(other.value, int) else None


def _says_nothing(value: ast.Constant) -> bool:
    """None, and a device, which has a verdict of its own."""
    return value.value is None or _names_cuda(value)


def _names_cuda(node: ast.expr) -> bool:
    """A comparison with "cuda" has a verdict of its own."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("cuda")


def opened(site: Site, code: Code, elsewhere: Elsewhere) -> Opened | None:
    """What a call of ``torch.cuda`` opens to an XPU once it is converted; None where nothing depends on it."""
    name = api(site)
    if site.kind is not Kind.API or name not in TWINS or isinstance(site.node, ast.Call):
        return None
    return code.once(("opened", site.node), lambda: _opened(call_of(site, code) or site.node, name, code, elsewhere))


def _opened(call: ast.expr, name: str, code: Code, elsewhere: Elsewhere) -> Opened | None:
    trail = Opened(code, elsewhere, present=name in _PRESENT)
    trail.follow(call, name)
    return trail if trail.asks else None


def for_cuda_alone(trail: Opened) -> bool:
    """Whether CUDA's kernels or libraries are named where the answer leads."""
    code = trail.code
    parts = [part for block in trail.near for part in block]
    return code.mentions(parts, KERNELS) or _for_cuda_alone(
        [*parts, *(part for block in trail.far for part in block)], code
    )


def _for_cuda_alone(parts: Sequence[ast.AST], code: Code) -> bool:
    if only_cuda(parts, code) or code.mentions(parts, _MAKES):
        return True
    places = code.once("of packages for CUDA alone", lambda: _of_packages(code))
    return any(between(places, *code.span(part)) for part in parts)


def _of_packages(code: Code) -> list[int]:
    """Where the file names a package for CUDA alone, or calls a function of its own that does so with no way back."""
    local = {name for name, full in code.aliases.items() if _is_packages(full)}
    places: set[ast.AST] = set()
    for node in code.nodes:
        if isinstance(node, ast.Import):
            places |= {node} if any(_is_packages(alias.name) for alias in node.names) else set()
        elif isinstance(node, ast.ImportFrom):
            places |= {node} if node.module and _is_packages(node.module) else set()
        elif isinstance(node, ast.Name) and node.id in local:
            places.add(node)
    functions = {_function(node, code) for node in places} - {""}
    calls = code.once("calls by name", lambda: _calls(code))
    places |= {call for name in functions if len(code.functions.get(name, ())) == 1 for call in calls.get(name, ())}
    return sorted(code.span(node)[0] for node in places)


def _function(node: ast.AST, code: Code) -> str:
    """The function that a node stands in; "" where it has a way back there."""
    for parent, child in code.above(node):
        if isinstance(parent, ast.Try) and child in parent.body:
            return ""
        if isinstance(parent, (ast.If, ast.IfExp)) and child is not parent.test:
            return ""
        if isinstance(parent, FUNCTIONS):
            return parent.name
    return ""


def _is_packages(module: str) -> bool:
    return any(f"{module}.".startswith(f"{name}.") for name in _PACKAGES)


def leads_to_kernels(site: Site, code: Code, elsewhere: Elsewhere) -> bool:
    """Whether an XPU that comes to a place, with an arm or a device of its own there, is then taken for CUDA.

    ``n = torch.cuda.device_count()`` behind a test for CUDA, a flag that is set beside a tensor made on CUDA.
    """
    trail = Opened(code, elsewhere, present=False, said=(bool,))
    if site.kind is Kind.API and api(site) in TWINS and not isinstance(site.node, ast.Call):
        trail.value(call_of(site, code) or site.node, How())
    elif site.kind in (Kind.METHOD, Kind.LITERAL) and not asks(site, code):
        trail.tried(site.node, open_=False)
    elif site.kind in (Kind.AVAILABLE, Kind.OWN_QUESTION) and (call := call_of(site, code)) is not None:
        for gate, positive in decisions(call, code):
            trail.leaves(guarded(gate, code, positive=positive))
    return _for_cuda_alone([part for block in trail.near for part in block], code)


def by_what_it_opens(
    site: Site, trail: Opened, then: Verdict, sites: Sequence[Site], verdicts: Mapping[Site, Verdict]
) -> Verdict:
    """``then`` where all that a call opens suits an XPU; else it stays, or is for a person."""
    if for_cuda_alone(trail):
        return left([site], "it asks for CUDA, and CUDA's kernels or settings stand behind it")
    if trail.lost:
        return person([site], "it asks for CUDA, and the answer goes elsewhere: look at who reads it, then ask the XPU")
    blocks = [*trail.near, *trail.far]
    inside = [place for place in trail.inside(sites) if place is not site]
    later = [] if trail.present else [place for place in inside if place not in verdicts and place.kind is Kind.API]
    open_ = [place for place in inside if place not in verdicts or not verdicts[place].runs_on_xpu]
    open_ = [place for place in open_ if place not in later]  # they lead to each other, and hold together
    if open_:
        return person([site], f"it asks for CUDA: decide about line {open_[0].line} first, which stands behind it")
    done = any(place in verdicts and verdicts[place].decision is Decision.CONVERTED for place in inside)
    if trail.present and not done and not all(says(part) for block in blocks for part in block):
        return person([site], "it asks for CUDA: ask the XPU too, if what follows suits it")
    behind = "it asks for CUDA, and what stands behind it is not ready for an XPU"
    return replace(then, together=tuple(inside), otherwise=behind)
