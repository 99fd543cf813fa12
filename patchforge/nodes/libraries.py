"""Libraries with device names of their own: "xpu" means nothing to them, or another maker's chip."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from patchforge.effort import spend
from patchforge.engine.syntax import called_by, dotted, parameters
from patchforge.nodes.code import Code
from patchforge.nodes.known import PACKAGES, Package
from patchforge.pattern import Kind, Site, Verdict, left, person

Key = tuple[ast.AST | None, str]  #: (scope, name); (None, "self.device") for an attribute


_BY_TOP: dict[str, list[Package]] = {}
for _package in PACKAGES:
    if _package.source:
        _BY_TOP.setdefault(_package.module.partition(".")[0], []).append(_package)
_CLEAR = frozenset(("str", "torch.device"))  #: calls that hand a device on
_OWN = "_patchforge_"


def named(name: str) -> Package | None:
    """The library that a dotted name is in."""
    known = _BY_TOP.get(name.partition(".")[0], ())
    return next((library for library in known if name == library.module or name.startswith(f"{library.module}.")), None)


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a device goes. ``alone``: to the library and nowhere else."""

    library: Package
    alone: bool


class Flows:
    """What of a file's expressions goes into a library's calls, through names, attributes and functions of the file.

    ``given``: functions elsewhere in the pack, and which of their parameters go into a library.
    """

    def __init__(self, code: Code, given: Mapping[str, Mapping[str, Package]]) -> None:
        self.code, self.given = code, given
        self.nodes: dict[ast.AST, Package] = {}
        self.keys: dict[Key, Package] = {}
        self.used: set[ast.AST] = set()
        self._objects: dict[Key, Package] = {}
        self._assigned: dict[Key, list[ast.expr]] = {}
        self._calls: dict[str, list[ast.Call]] = {}
        self._returned: dict[str, list[ast.expr]] = {}
        self.concerned = self._concerned()
        if self.concerned:
            self._gather()
            self._spread()

    def of(self, node: ast.AST) -> Flow | None:
        """Where an expression goes, if to a library."""
        library = self.nodes.get(node)
        return Flow(library, not self._mixed) if library else None

    def parameters(self) -> dict[str, dict[str, Package]]:
        """Function or class → its parameters that go into a library."""
        by_function: dict[str, dict[str, Package]] = {}
        for (scope, name), library in self.keys.items():
            if isinstance(scope, ast.FunctionDef) and name in parameters(scope):
                by_function.setdefault(called_by(scope, self.code.parent(scope)), {})[name] = library
        return by_function

    def _concerned(self) -> bool:
        tops = {name.partition(".")[0] for name in self.code.aliases.values()} | self.code.imported
        return not tops.isdisjoint(_BY_TOP) or any(name in self.code.source.text for name in self.given)

    def _gather(self) -> None:
        for node in self.code.nodes:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if (key := self._key(target)) is not None:
                        self._assigned.setdefault(key, []).append(node.value)
            elif isinstance(node, ast.Call):
                self._calls.setdefault(dotted(node.func).rpartition(".")[2], []).append(node)
            elif isinstance(node, ast.Return) and node.value is not None:
                scope = self.code.scope(node)
                self._returned.setdefault(getattr(scope, "name", ""), []).append(node.value)
        for _ in range(2):  # what functions of the file give, is known once their names are
            for key, values in self._assigned.items():
                made = [value for value in values if not isinstance(value, ast.Constant) and not _looks_up(value)]
                libraries = {self._made_by(value) for value in made}
                if len(libraries) == 1 and (library := libraries.pop()):
                    self._objects[key] = library

    def _made_by(self, value: ast.expr) -> Package | None:
        """The library whose object a value is: one that it gave, or one that a function of the file returns."""
        if not isinstance(value, ast.Call):
            return self._objects.get(key) if (key := self._key(value)) is not None else None
        own = dotted(value.func).rpartition(".")[2]
        if (library := self.called(value)) or len(self.code.functions.get(own, ())) != 1:
            return library
        keys = map(self._key, self._returned.get(own, ()))
        return next((self._objects[key] for key in keys if key is not None and key in self._objects), None)

    def _key(self, node: ast.AST) -> Key | None:
        if isinstance(node, ast.Name):
            scope = self.code.scope(node)
            stored = (isinstance(use.ctx, ast.Store) for use in self.code.named(node.id, scope))
            known = scope is not self.code.tree and (node.id in parameters(scope) or any(stored))
            return (scope if known else self.code.tree), node.id
        return (None, text) if isinstance(node, ast.Attribute) and (text := dotted(node)) else None

    def called(self, call: ast.Call) -> Package | None:
        """The library that a call goes to: a function of it, or a method of what one gave."""
        node: ast.AST = call.func
        if library := named(self.code.name(node)):
            return library
        while isinstance(node, (ast.Attribute, ast.Call)):
            if isinstance(node, ast.Call):
                return self._made_by(node)
            if (key := self._key(node)) in self._objects and key is not None:
                return self._objects[key]
            node = node.value
        key = self._key(node)
        return self._objects.get(key) if key is not None else None

    def _spread(self) -> None:
        todo: list[tuple[ast.AST, Package]] = []
        for calls in self._calls.values():
            for call in calls:
                if library := self.called(call):
                    todo += [(value, library) for value in _devices_among(call)]
                elif given := self.given.get(dotted(call.func).rpartition(".")[2]):
                    todo += [
                        (keyword.value, given[keyword.arg])
                        for keyword in call.keywords
                        if keyword.arg and keyword.arg in given
                    ]
        while todo:
            spend()
            node, library = todo.pop()
            if node in self.nodes:
                continue
            self.nodes[node] = library
            todo += [(origin, library) for origin in self._behind(node, library)]

    def _behind(self, node: ast.AST, library: Package) -> Iterator[ast.AST]:
        """What an expression's value comes from."""
        if isinstance(node, ast.IfExp):
            yield from (node.body, node.orelse)
        elif isinstance(node, (ast.BoolOp, ast.JoinedStr)):
            yield from node.values
        elif isinstance(node, (ast.FormattedValue, ast.Starred)):
            yield node.value
        elif isinstance(node, (ast.Name, ast.Attribute)):
            self.used.add(node)
            key = self._key(node)
            if key is not None and key not in self.keys:
                self.keys[key] = library
                yield from self._assigned.get(key, ())
                yield from self._passed(key)
        elif isinstance(node, ast.Call):
            name = self.code.name(node.func)
            if name in _CLEAR or name.startswith(_OWN):
                yield from node.args
            elif len(self.code.functions.get(own := name.rpartition(".")[2], ())) == 1:
                self.used.add(node)
                yield from self._returned.get(own, ())

    def _passed(self, key: Key) -> Iterator[ast.expr]:
        """What a parameter is given: its default, and what calls in the file hand over."""
        function, name = key
        if not isinstance(function, ast.FunctionDef) or name not in parameters(function):
            return
        arguments = function.args
        by_place = [*arguments.posonlyargs, *arguments.args]
        last = by_place[len(by_place) - len(arguments.defaults) :]
        pairs = [
            *zip(last, arguments.defaults, strict=True),
            *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
        ]
        yield from (value for parameter, value in pairs if parameter.arg == name and value)
        names = [parameter.arg for parameter in by_place if parameter.arg not in ("self", "cls")]
        for call in self._calls.get(called_by(function, self.code.parent(function)), ()):
            yield from (keyword.value for keyword in call.keywords if keyword.arg == name)
            if name in names and names.index(name) < len(call.args):
                yield call.args[names.index(name)]

    @property
    def _mixed(self) -> bool:
        """Whether something that goes to a library goes elsewhere too."""
        return self.code.once("mixed", lambda: any(map(self._elsewhere, self.keys)))

    def _elsewhere(self, key: Key) -> bool:
        scope, name = key
        if scope is None:
            read = (
                node for node in self.code.nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
            )
            loads: list[ast.expr] = [node for node in read if dotted(node) == name]
        else:
            loads = [use for use in self.code.named(name, scope) if isinstance(use.ctx, ast.Load)]
        return any(load not in self.used and not self._only_looked_at(load) for load in loads)

    def _only_looked_at(self, node: ast.expr) -> bool:
        parent = self.code.parent(node)
        if isinstance(parent, ast.Call):
            return dotted(parent.func).rpartition(".")[2] in ("print", "info", "debug", "warning", "error", "log")
        return isinstance(parent, (ast.Compare, ast.FormattedValue, ast.If, ast.Attribute))


def _devices_among(call: ast.Call) -> Iterator[ast.expr]:
    """What a call is given, but for ONNX Runtime's providers, which have a rule of their own."""
    yield from call.args[: 2 if dotted(call.func).endswith("InferenceSession") else None]
    yield from (keyword.value for keyword in call.keywords if keyword.arg not in ("providers", "provider_options"))


def _looks_up(value: ast.expr) -> bool:
    """``cache.get(name)`` or ``cache[name]``: what was put there before."""
    get = isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in ("get", "pop")
    return get or isinstance(value, ast.Subscript)


def flows(code: Code, given: Mapping[str, Mapping[str, Package]]) -> Flows:
    """The flows of a file, found once."""
    return code.once(("flows", id(given)), lambda: Flows(code, given))


def foreign(site: Site, code: Code, given: Mapping[str, Mapping[str, Package]]) -> Verdict | None:
    """A device that goes to a library, or the question that chooses it: it stays, or is for a person."""
    if site.kind not in (Kind.LITERAL, Kind.AVAILABLE, Kind.OWN_QUESTION, Kind.API, Kind.METHOD):
        return None
    file_flows = flows(code, given)
    if not file_flows.concerned:
        return None
    if isinstance(site.node, ast.Call) and (library := file_flows.called(site.node)):
        return person([site], _reason(library))
    chosen = list(_chosen(site.node, code))
    flow = next(filter(None, map(file_flows.of, chosen)), None)
    if flow is None:
        return None
    reason = _reason(flow.library)
    if not flow.library.devices:
        return left([site], reason)
    if not flow.alone:
        return person([site], f"{reason}, and elsewhere: give each its own device")
    otherwise = any(isinstance(parent, (ast.If, ast.IfExp)) for parent, _ in code.above(site.node))
    return left([site], reason) if otherwise else person([site], f'{reason}: give it "cpu" on an XPU')


def _reason(library: Package) -> str:
    return f"goes to {library.module}, which {library.takes}"


def _chosen(node: ast.expr, code: Code) -> Iterator[ast.AST]:
    """An expression; or for a question the devices that it chooses among."""
    yield node
    for parent, child in code.above(node):
        if isinstance(parent, ast.IfExp) and child is parent.test:
            yield parent
            return
        if isinstance(parent, ast.If) and child is parent.test:
            for statement in parent.body:
                if isinstance(statement, (ast.Assign, ast.Return)) and statement.value is not None:
                    yield statement.value
            return
        if isinstance(parent, ast.Call) and parent.func is not child:
            yield child.value if isinstance(child, ast.keyword) else child
            if (name := code.name(parent.func)) not in _CLEAR and not name.startswith(_OWN):
                return
        if isinstance(parent, ast.stmt):
            return
