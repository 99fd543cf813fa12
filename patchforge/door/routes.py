"""The HTTP routes of a program, read from its source without running it: ComfyUI and its node packs, and Ollama.

A route is written as aiohttp has it, ``GET /history/{prompt_id}``. ``{name}`` is one segment of the path, ``{name:.*}``
the rest of it, and ``[/api]`` at the beginning may stand there or not: ComfyUI offers its own table of routes twice.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from patchforge.engine.blocks import UnreadableSource, parsed
from patchforge.errors import Damaged
from patchforge.sources import MissingBlobError
from patchforge.vocabulary import Tree

TWIN = "[/api]"  #: what begins a path that is there below /api too
UNREADABLE = "?"  #: the path of a route whose source does not say it
_VERBS = frozenset({"get", "post", "put", "delete", "patch", "head", "options"})
_NEEDLE = re.compile(rb"RouteTableDef|routes\b|ROUTES\b|\brouter\b|add_subapp|\bstatic\(|\.route\(")
_GO = re.compile(r'\b\w+\.(GET|POST|PUT|DELETE|PATCH|HEAD|OPTIONS|Any)\(\s*"([^"]*)"')
_SEGMENT = re.compile(r"\{(\w+):((?:[^{}]|\{[^{}]*\})*)\}")


@dataclass(frozen=True, order=True, slots=True)
class Route:
    """One route: the method (``*`` for any), the path, and the place where it is declared, as path and line."""

    method: str
    path: str
    place: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class _Said:
    """What one file says. A route is ``shared`` where it goes into the server's own table."""

    routes: tuple[tuple[str, str, int, bool], ...] = ()  #: method, path, line, shared
    mounts: tuple[tuple[str, str], ...] = ()  #: prefix, and the file of what is mounted there
    twins: bool = False  #: the server's table is offered once more below /api


def of_comfyui(tree: Tree) -> tuple[Route, ...]:
    """The routes of a release, sorted. Damaged where a file that may declare some is not Python."""
    said = _files(tree)
    mounted = {path: prefix for source in said.values() for prefix, path in source.mounts}
    twin = TWIN if any(source.twins for source in said.values()) else ""
    return tuple(
        sorted(
            Route(method, (mounted[path] if path in mounted else twin * shared) + route, f"{path}:{line}")
            for path, source in said.items()
            for method, route, line, shared in source.routes
        )
    )


def of_pack(tree: Tree) -> tuple[Route, ...]:
    """The routes that a node pack adds to the server's table, sorted. Errors as ``of_comfyui``."""
    return tuple(
        sorted(
            Route(method, TWIN * shared + route, f"{path}:{line}")
            for path, source in _files(tree).items()
            for method, route, line, shared in source.routes
        )
    )


def or_nothing_read(read: Callable[[Tree], tuple[Route, ...]], tree: Tree) -> tuple[Route, ...]:
    """As ``read``; where the source cannot be read, a route that says so and that nobody can have decided about."""
    try:
        return read(tree)
    except (Damaged, MissingBlobError) as error:
        return (Route("*", UNREADABLE, str(error).partition("\n")[0]),)


def of_ollama(tree: Tree) -> tuple[Route, ...]:
    """The routes of an Ollama release (Go, gin), sorted."""
    text = tree.read("server/routes.go").decode("utf-8", "replace")
    routes = []
    for match in _GO.finditer(text):
        method, path = match[1], re.sub(r":(\w+)", r"{\1}", re.sub(r"\*(\w+)", r"{\1:.*}", match[2]))
        line = text.count("\n", 0, match.start()) + 1
        routes.append(Route("*" if method == "Any" else method, path, f"server/routes.go:{line}"))
    return tuple(sorted(routes))


def _files(tree: Tree) -> dict[str, _Said]:
    """What the Python files say that run with the program: its tests do not."""
    files = {}
    for path, entry in tree.entries().items():
        if path.endswith(".py") and not re.match(r"tests?[-_/]|.*/tests?/", path):
            said = _file(path, entry.blob, tree.read)
            if said.routes or said.mounts or said.twins:
                files[path] = said
    return files


_KNOWN: dict[tuple[str, str], _Said] = {}  #: by path and blob: releases share most of their files


def _file(path: str, blob: str, read: Callable[[str], bytes]) -> _Said:
    if (path, blob) not in _KNOWN:
        data = read(path)
        try:
            _KNOWN[path, blob] = _RouteReader(data).said() if _NEEDLE.search(data) else _Said()
        except (SyntaxError, ValueError, UnreadableSource) as error:
            raise Damaged(
                f"{path} may declare routes and cannot be read",
                expected="Python",
                found=str(error),
                do="correct the file, or ask for the routes of another version",
            ) from None
    return _KNOWN[path, blob]


class _RouteReader:
    """One file: its tables of routes, the calls that declare one, and the texts that paths are made of."""

    def __init__(self, data: bytes) -> None:
        nodes = list(ast.walk(parsed(data)))
        self.calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
        self.decorators = {id(decorator) for node in nodes for decorator in getattr(node, "decorator_list", ())}
        assigned = [node for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign)]
        targets = [
            (target, node.value)
            for node in assigned
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        ]
        self.texts = {
            target.id: value.value
            for target, value in targets
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str)
        }
        self.made = {
            _name(target): _name(value.func) for target, value in targets if isinstance(value, ast.Call)
        }  #: what a variable or attribute is an instance of
        self.own = {name for name, kind in self.made.items() if kind == "RouteTableDef"}
        self.tables = {"routes", *self.own}
        self.modules = {
            alias.asname or alias.name: node.module.replace(".", "/") + ".py"
            for node in nodes
            if isinstance(node, ast.ImportFrom) and node.module
            for alias in node.names
        }

    def said(self) -> _Said:
        twins = any(map(_makes_twins, self.calls))
        added = {_name(call.args[0]) for call in self._calls_of("add_routes") if call.args} & self.own
        routes = []
        for call in self.calls:
            if _makes_twins(call) or (route := self._route(call)) is None:
                continue
            table = _receiver(call)
            is_table = table in self.tables or id(call) in self.decorators
            # A table that a file makes and adds to an application by itself is not the server's.
            shared = is_table and _verb(call) != "static" and (twins or table not in added)
            routes.append((*route, call.lineno, shared))
        mounts = [(self._path(call.args[0]), self._mounted(call.args[1])) for call in self._calls_of("add_subapp")]
        return _Said(tuple(routes), tuple(mounts), twins)

    def _calls_of(self, name: str) -> Iterator[ast.Call]:
        return (call for call in self.calls if _verb(call) == name)

    def _route(self, call: ast.Call) -> tuple[str, str] | None:
        """Method and path of a call that declares a route; None for any other."""
        table, verb = _receiver(call), _verb(call)
        if table == "router" and verb.startswith("add_"):
            verb = verb.removeprefix("add_")
        elif not (table in self.tables or id(call) in self.decorators or table == "web"):
            return None
        if verb not in {*_VERBS, "resource", "route", "static", "view"} or (table == "web" and len(call.args) < 2):
            return None
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        if verb == "route":
            method = self._text(given[0]) if given else None
            return (method or "*").upper(), self._path(given[1]) if len(given) > 1 else UNREADABLE
        path = self._path(given[0]) if given else UNREADABLE
        if verb == "static":
            return "GET", path if path == UNREADABLE else path.rstrip("/") + "/{path:.*}"
        return "*" if verb in {"resource", "view"} else verb.upper(), path

    def _path(self, node: ast.expr) -> str:
        """As routes are written here: what a segment may look like is left out, unless it may be several."""
        text = self._text(node)
        if text is None or not text.startswith("/"):
            return UNREADABLE
        return _SEGMENT.sub(lambda match: match[0] if match[2] in {".*", ".+"} else f"{{{match[1]}}}", text)

    def _text(self, node: ast.expr) -> str | None:
        """The text of an expression, with ``{name}`` where a name stands whose text is not known."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            return self.texts.get(node.id, f"{{{node.id}}}")
        if isinstance(node, ast.FormattedValue):
            return self._text(node.value)
        if isinstance(node, ast.Call) and len(node.args) == 1:  # quote(name)
            return self._text(node.args[0])
        parts = (
            node.values
            if isinstance(node, ast.JoinedStr)
            else [node.left, node.right]
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)
            else ()
        )
        texts = [self._text(part) for part in parts]
        return "".join(text for text in texts if text is not None) if texts and None not in texts else None

    def _mounted(self, node: ast.expr) -> str:
        """The file of ``self.ROUTES.get_app()``, by what ROUTES is an instance of and where that is imported from."""
        owner = node.func.value if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else node
        return self.modules.get(self.made.get(_name(owner), ""), UNREADABLE)


def _name(node: ast.expr) -> str:
    """The last name of ``name`` and ``some.name``; "" for anything else."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _verb(call: ast.Call) -> str:
    return _name(call.func)


def _receiver(call: ast.Call) -> str:
    return _name(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def _makes_twins(call: ast.Call) -> bool:
    """``TABLE.route(route.method, "/api" + route.path)``, which offers each route of another table below /api."""
    if _verb(call) != "route" or len(call.args) != 2 or not isinstance(path := call.args[1], ast.BinOp):
        return False
    return isinstance(path.left, ast.Constant) and path.left.value == "/api" and _name(path.right) == "path"
